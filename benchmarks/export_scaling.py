"""Export time by stage, and peak memory, at 8, 16 and 24 layers of the Qwen2.5-0.5B shape, target onnxruntime."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import ROOT, lcsb, markdown_table, measured, write_results

LAYERS = (8, 16, 24)


def main() -> None:
    rows, table = [], []
    for layers in LAYERS:
        with tempfile.TemporaryDirectory() as temporary:
            checkpoint = Path(temporary) / "checkpoint"
            measured(sys.executable, ROOT / "benchmarks/random_checkpoint.py", checkpoint, "--layers", str(layers))
            report = lcsb("export", checkpoint, "--target", "onnxruntime", "--output", Path(temporary) / "bundle")
        seconds, anonymous, resident = report["seconds"], report["peak_anonymous_bytes"], report["peak_rss_bytes"]
        rows.append({"layers": layers, "seconds": seconds, "peak_anonymous_bytes": anonymous, "peak_rss_bytes": resident})
        stages = [f"{value:.1f}" for value in (*seconds.values(), sum(seconds.values()))]
        table.append([str(layers), *stages, f"{anonymous / 1e6:.0f} MB", f"{resident / 1e6:.0f} MB"])
    header = ["layers", *(f"{stage}, s" for stage in rows[0]["seconds"]), "all, s", "peak anonymous", "peak resident"]
    write_results("export_scaling", markdown_table(header, table), rows)


if __name__ == "__main__":
    main()
