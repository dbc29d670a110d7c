"""The tables of `lcsb bench` in docs/benchmarks.md: `bench.py [methods] [lengths] [memory]`, all of them without arguments.

Each measures in the environment of `make test-device`, which has the newest ONNX Runtime and no torch, if it is there; the peer and
the random bundles need this one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, lcsb, markdown_table, write_results

from lcsb_mobile.bench.jobs import PHASES
from lcsb_mobile.measuring.machine import scratch_directory

Row = dict[str, Any]

DEVICE_PYTHON = ROOT / ".venv-onnxruntime" / "bin" / "python"
LENGTHS, RANKS = (128, 256, 512, 1024), (4, 8, 16, 32)


def rows_of(*arguments: str | Path) -> list[Row]:
    python = DEVICE_PYTHON if DEVICE_PYTHON.is_file() else Path(sys.executable)
    rows: Any = lcsb("bench", *arguments, "--python", python)
    return list(rows)


def number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def megabytes(count: int | None) -> str:
    return number(None if count is None else count / 1e6, "{:,.0f}")


def footnote(row: Row) -> str:
    runtime = f"{row['runtime']} {row['runtime_version']}"
    return f"\n{row['shape']}, random weights, {row['threads']} threads, {runtime}, GEMM {row['sgemm_gflops']:.0f} GFLOP/s at its shapes.\n"


def speed_table(rows: Sequence[Row]) -> str:
    full = next(row["step_seconds_mean"] for row in rows if row["method"] == "full" and not row["kept_layers"])
    header = ["method", "layers kept", "s/step, median", "range", "mean", "full's mean over it", "time over its GEMMs'"]
    header += ["peak anonymous, MB", "predicted", "peak resident, MB"]
    cells = []
    for row in rows:
        span = f"{row['step_seconds_min']:.2f}–{row['step_seconds_max']:.2f}"
        speed = [f"{row['step_seconds_median']:.2f}", span, f"{row['step_seconds_mean']:.2f}", f"{full / row['step_seconds_mean']:.2f}x"]
        memory = [megabytes(row[f"{name}_bytes"]) for name in ("peak_anonymous", "predicted_peak_anonymous", "peak_rss")]
        cells.append([row["method"], str(row["kept_layers"]), *speed, number(row["time_over_gemm_bound"], "{:.2f}x"), *memory])
    return markdown_table(header, cells)


def phase_table(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        phases = [number(row["phase_seconds"].get(phase), "{:.2f}") for phase in PHASES]
        unpacking = [row["decompress_seconds"].get(phase) for phase in PHASES]
        phases = [f"{all_of_it} ({of_it:.2f})" if of_it else all_of_it for all_of_it, of_it in zip(phases, unpacking)]
        cells.append([row["method"], str(row["kept_layers"]), *phases, number(row["decompress_share"], "{:.0%}")])
    return markdown_table(["method", "layers kept", *(f"{phase}, s" for phase in PHASES), "decompression (in brackets)"], cells)


def lengths_table(rows: Sequence[Row]) -> str:
    cells = [
        [
            str(row["seq_len"]),
            str(row["rank"]),
            f"{row['step_seconds_median']:.2f}",
            f"{1000 * row['step_seconds_median'] / row['seq_len']:.1f}",
            number(row["time_over_gemm_bound"], "{:.2f}x"),
            megabytes(row["peak_anonymous_bytes"]),
            megabytes(row["predicted_peak_anonymous_bytes"]),
        ]
        for row in rows
    ]
    return markdown_table(
        ["tokens", "rank", "s/step, median", "ms a token", "time over its GEMMs'", "peak anonymous, MB", "predicted"], cells
    )


def methods() -> None:
    """Every method, nothing and everything kept, beside PyTorch with peft, at the shape of Qwen2.5-0.5B."""
    pictures = RESULTS / "bench_methods"
    rows = rows_of("--shape", "qwen2.5-0.5b", "--keep", "none", "--keep", "all", "--peers", "torch", "--plot", pictures)
    write_results("bench_methods", f"{speed_table(rows)}\n{phase_table(rows)}{footnote(rows[0])}", rows, "bench.py methods")


def lengths() -> None:
    """Sequence length and rank: method full, nothing kept."""
    settings = [(length, 8) for length in LENGTHS] + [(256, rank) for rank in RANKS if rank != 8]
    rows = []
    for length, rank in settings:
        options = ("--methods", "full", "--seq-len", str(length), "--rank", str(rank))
        rows += rows_of("--shape", "qwen2.5-0.5b", *options)
    write_results("bench_lengths", lengths_table(rows) + footnote(rows[0]), rows, "bench.py lengths")


def memory() -> None:
    """The shape of Qwen2.5-3B: the peak of a full step, and of a cycle of lcsb-exact, nothing kept."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as directory:
        shared = ("--shape", "qwen2.5-3b", "--bundle-dir", directory, "--rounds", "1")
        rows = rows_of(*shared, "--methods", "full", "--steps", "1") + rows_of(*shared, "--methods", "lcsb-exact")
    write_results("bench_memory", speed_table(rows) + footnote(rows[0]), rows, "bench.py memory")


PARTS = {"methods": methods, "lengths": lengths, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"expected some of {', '.join(PARTS)}, found {', '.join(unknown)}")
    for part in parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
