"""The predicted peak of memory against the measured one, on random weights of several shapes: a run of 6 steps in a fresh process each.

`memory_model.py` measures each target in its own environment (`make test-device test-training`).
Both figures are of what lies beyond the process with its runtime imported and nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common import EXPORTERS, ROOT, RUNNERS, lcsb, markdown_table, measured, random_text, write_results


class Setting(NamedTuple):
    """`layers` None: the shape's own. `keep`: of the runs on one bundle, one after the other; only target onnxruntime keeps."""

    target: str
    shape: str
    layers: int | None
    seq_len: int
    rank: int
    keep: tuple[str, ...] = ("none",)


SETTINGS = (
    Setting("onnxruntime", "smollm2-135m", None, 64, 8, ("none", "all")),
    Setting("onnxruntime", "smollm2-135m", 6, 256, 16, ("none", "3", "all")),
    Setting("onnxruntime", "gemma3-270m", 4, 128, 8, ("none", "all")),
    Setting("onnxruntime", "qwen2.5-0.5b", 4, 256, 8, ("none", "2", "all")),
    Setting("onnxruntime-training", "smollm2-135m", None, 64, 8),
    Setting("onnxruntime-training", "smollm2-135m", 6, 256, 16),
    Setting("onnxruntime-training", "qwen2.5-0.5b", 4, 256, 8),
)


def main() -> None:
    rows = [row for setting in SETTINGS for row in measure(setting)]
    table = [
        [row["target"], row["shape"], str(row["layers"] or "all"), str(row["seq_len"]), str(row["rank"]), row["keep"], *figures(row)]
        for row in rows
    ]
    header = ["target", "shape", "layers", "tokens", "rank", "kept", "measured", "predicted", "error"]
    write_results("memory_model", markdown_table(header, table), rows)


def measure(setting: Setting) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint, bundle, data = (Path(temporary) / name for name in ("checkpoint", "bundle", "data.jsonl"))
        layers = ("--layers", str(setting.layers)) if setting.layers else ()
        measured(sys.executable, ROOT / "benchmarks/random_checkpoint.py", checkpoint, "--shape", setting.shape, *layers)
        lengths = ("--seq-len", str(setting.seq_len), "--rank", str(setting.rank))
        options = ("--target", setting.target, *lengths, "--method", "full", "--output", bundle)
        lcsb("export", checkpoint, *options, program=EXPORTERS[setting.target])
        random_text(data, setting.seq_len)
        run = partial(lcsb, program=RUNNERS[setting.target])
        beyond = run("inspect", bundle)["keeping"] or [run("inspect", bundle)]
        for keep in setting.keep:
            options = ("--data", data, "--steps", "6", "--threads", "1", "--adapter", f"{temporary}/{keep}.safetensors")
            result = run("simulate", bundle, *options, *(("--keep", keep) if setting.target == "onnxruntime" else ()))
            predicted = result["predicted_peak_anonymous_bytes"]
            at_keep = [x["predicted_peak_bytes"] for x in beyond if x.get("keep", 0) == result["kept_layers"]]
            base = predicted - at_keep[0]
            found = result["peak_anonymous_bytes"] - base
            rows.append(setting._asdict() | {"keep": keep, "base": base, "measured": found, "predicted": predicted - base})
    return rows


def figures(row: dict[str, Any]) -> list[str]:
    measured_bytes, predicted = row["measured"], row["predicted"]
    return [f"{measured_bytes / 1e6:.0f} MB", f"{predicted / 1e6:.0f} MB", f"{predicted / measured_bytes - 1:+.0%}"]


if __name__ == "__main__":
    main()
