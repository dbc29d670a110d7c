"""SmolLM2-135M-Instruct fine-tuned on real text, each method in a process of its own: held-out loss against steps and seconds.

Needs `make models`. One seed; every method sees the same sequences in the same order. `real_model.py METHOD@RATE …` runs those
rows alone and keeps the others of the last results.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import MODELS, RESULTS, ROOT, lcsb, markdown_table, write_results

ROWS = ("full@4e-4", "full@8e-4", "lcsb-exact@8e-4", "lcsb-exact@1.6e-3", "lcsb-identity@4e-4", "lcsb-identity@8e-4")
STEPS, EVERY = 100, 25
PROMPTS = ("The trouble with computers is", "My advice to the young:")


def run(bundle: Path, row: str) -> dict[str, Any]:
    method, _, rate = row.partition("@")
    return lcsb(
        *("simulate", bundle, "--data", MODELS / "fortunes.train.jsonl", "--eval-data", MODELS / "fortunes.eval.jsonl"),
        *("--steps", str(STEPS), "--eval-every", str(EVERY), "--method", method, "--lr", rate),
        *("--adapter", bundle.parent / "adapter.safetensors", "--report", ROOT / "runs" / f"smollm2-{row}.html"),
        *("--max-tokens", "32", "--force"),
        *(word for prompt in PROMPTS for word in ("--prompt", prompt)),
    )


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = []
    for row in sorted(rows):
        result = rows[row]
        losses = [f"{loss:.3f}" for _, loss in result["evaluations"]]
        seconds = result["step_seconds"]
        figures = [f"{statistics.median(seconds):.2f}", f"{sum(seconds):.0f}", f"{result['peak_anonymous_bytes'] / 1e6:.0f} MB"]
        lines.append([result["method"], row.partition("@")[2], *losses, *figures])
    checkpoints = [f"{step} steps" for step in range(EVERY, STEPS + 1, EVERY)]
    return markdown_table(["method", "rate", "before", *checkpoints, "s/step", "s in all", "peak anonymous"], lines)


def main() -> None:
    path = RESULTS / "real_model.json"
    chosen = sys.argv[1:] or ROWS
    data: dict[str, Any] = json.loads(path.read_text())["rows"] if sys.argv[1:] and path.exists() else {"runs": {}}
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "smollm2"
        data["export"] = lcsb("export", MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", "--target", "onnxruntime-training", "--output", bundle)
        data["runs"] |= {row: run(bundle, row) for row in chosen}
    seconds = {stage: round(value, 1) for stage, value in data["export"]["seconds"].items()}
    footer = "\nExport from GGUF: " + ", ".join(f"{stage} {value} s" for stage, value in seconds.items()) + ".\n"
    write_results("real_model", table(data["runs"]) + footer, data)


if __name__ == "__main__":
    main()
