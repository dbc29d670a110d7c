"""The predicted peak of memory against the measured one, on random weights of several shapes, 8 steps each in a fresh process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import ROOT, lcsb, markdown_table, measured, random_text, write_results

# shape, layers (None: the shape's own), tokens, rank
SETTINGS = (
    ("smollm2-135m", None, 64, 8),
    ("smollm2-135m", None, 256, 8),
    ("smollm2-135m", None, 256, 16),
    ("smollm2-135m", 15, 128, 4),
    ("gemma3-270m", 6, 256, 8),
    ("qwen2.5-0.5b", 8, 128, 4),
)


def main() -> None:
    rows, table = [], []
    for shape, layers, seq_len, rank in SETTINGS:
        with tempfile.TemporaryDirectory() as temporary:
            checkpoint, bundle, data = (Path(temporary) / name for name in ("checkpoint", "bundle", "data.jsonl"))
            layer_arguments = ("--layers", str(layers)) if layers else ()
            measured(sys.executable, ROOT / "benchmarks/random_checkpoint.py", checkpoint, "--shape", shape, *layer_arguments)
            lcsb("export", checkpoint, "--seq-len", str(seq_len), "--rank", str(rank), "--output", bundle)
            random_text(data, seq_len)
            run = lcsb("simulate", bundle, "--data", data, "--steps", "8", "--method", "full", "--adapter", f"{temporary}/a.safetensors")
        found, predicted = run["peak_anonymous_bytes"], run["predicted_peak_anonymous_bytes"]
        rows.append({"shape": shape, "layers": layers, "seq_len": seq_len, "rank": rank, "measured": found, "predicted": predicted})
        figures = [f"{found / 1e6:.0f} MB", f"{predicted / 1e6:.0f} MB", f"{predicted / found - 1:+.0%}"]
        table.append([shape, str(layers or "all"), str(seq_len), str(rank), *figures])
    header = ["shape", "layers", "tokens", "rank", "measured peak", "predicted", "error"]
    write_results("memory_model", markdown_table(header, table), rows)


if __name__ == "__main__":
    main()
