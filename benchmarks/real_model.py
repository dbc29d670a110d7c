"""SmolLM2-135M-Instruct fine-tuned on real text, each method in a process of its own: held-out loss against steps and seconds.

Needs `make models`. One seed; every method sees the same sequences in the same order.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from common import MODELS, ROOT, lcsb, markdown_table, write_results

METHODS = ("full", "lcsb-exact", "lcsb-identity")
STEPS, EVERY = 100, 25
PROMPTS = ("The trouble with computers is", "My advice to the young:")


def main() -> None:
    rows, table = [], []
    reports = ROOT / "runs"
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "smollm2"
        export = lcsb("export", MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", "--target", "onnxruntime-training", "--output", bundle)
        for method in METHODS:
            result = lcsb(
                *("simulate", bundle, "--data", MODELS / "fortunes.train.jsonl", "--eval-data", MODELS / "fortunes.eval.jsonl"),
                *("--steps", str(STEPS), "--eval-every", str(EVERY), "--method", method, "--adapter", f"{temporary}/{method}.safetensors"),
                *("--report", reports / f"smollm2-{method}.html", "--max-tokens", "32", "--force"),
                *(word for prompt in PROMPTS for word in ("--prompt", prompt)),
            )
            rows.append(result)
            losses = [f"{loss:.3f}" for _, loss in result["evaluations"]]
            seconds = result["step_seconds"]
            table.append(
                [
                    method,
                    f"{result['learning_rate']:.0e}",
                    *losses,
                    f"{statistics.median(seconds):.2f}",
                    f"{sum(seconds):.0f}",
                    f"{result['peak_anonymous_bytes'] / 1e6:.0f} MB",
                ]
            )
    header = [
        "method",
        "rate",
        "before",
        *(f"{step} steps" for step in range(EVERY, STEPS + 1, EVERY)),
        "s/step",
        "s in all",
        "peak anonymous",
    ]
    seconds = {stage: round(value, 1) for stage, value in export["seconds"].items()}
    footer = f"\nExport from GGUF: {sum(seconds.values()):.0f} s ({seconds}).\n"
    write_results("real_model", markdown_table(header, table) + footer, rows)


if __name__ == "__main__":
    main()
