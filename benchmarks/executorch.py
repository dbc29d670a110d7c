"""Whole steps of a published shape on ExecuTorch and on ONNX Runtime, in turn: `executorch.py [SHAPE [LAYERS|all [DIRECTORY]]]`.

Both bundles have the same random weights. The table has the least and the median seconds of a full step on one and two threads, the phases
of one, the anonymous memory beyond the process with its runtime, and `full` over `lcsb-identity`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import LCSB, lcsb, markdown_table, write_results

TARGETS = ("executorch", "onnxruntime")
ROUNDS = 3
PROGRAMS = "programs.pte"

Rows = dict[tuple[str, int, str], list[dict[str, Any]]]  # target, threads, method -> a row a round


def main(shape: str, layers: str, kept: str | None) -> None:
    """`kept`: where the bundles are left, or are already."""
    size = () if layers == "all" else ("--layers", layers)
    rows: Rows = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(kept or temporary)
        for _ in range(ROUNDS):
            for threads, methods in ((1, "full,lcsb-identity"), (2, "full")):
                for target in TARGETS:
                    setting = ("--methods", methods, "--threads", str(threads), "--rounds", "1")
                    found: Any = lcsb(
                        "bench", "--shape", shape, "--target", target, *size, "--bundle-dir", directory, *setting, program=LCSB
                    )
                    for row in found:
                        rows[target, threads, row["method"]].append(row)
        sizes = {path.parent.name: path.stat().st_size for path in directory.glob(f"*/{PROGRAMS}")}
    header = ["target", "threads", "method", "least, median seconds", "forward, head, backward", "MB anonymous, whole process"]
    table = markdown_table(header, [cells(*key, found) for key, found in rows.items()])
    table += f"\n{shape}, {found[0]['seq_len']} tokens, rank {found[0]['rank']}, random weights. {comparisons(rows)}"
    table += f" `{PROGRAMS}`: {', '.join(f'{size / 1e3:.0f} kB' for size in sizes.values())}.\n"
    write_results("executorch", table, {" ".join(map(str, key)): found for key, found in rows.items()}, f"executorch.py {shape} {layers}")


def cells(target: str, threads: int, method: str, rows: list[dict[str, Any]]) -> list[str]:
    seconds = [row["step_seconds_mean"] for row in rows]
    phases = ", ".join(f"{statistics.median(row['phase_seconds'][name] for row in rows):.2f}" for name in ("forward", "head", "backward"))
    memory = statistics.median(row["peak_anonymous_bytes"] for row in rows) / 1e6
    return [target, str(threads), f"`{method}`", f"{min(seconds):.2f}, {statistics.median(seconds):.2f}", phases, f"{memory:.0f}"]


def comparisons(rows: Rows) -> str:
    def median(target: str, threads: int, method: str = "full") -> float:
        return statistics.median(row["step_seconds_mean"] for row in rows[target, threads, method])

    over = [f"{median('executorch', threads) / median('onnxruntime', threads):.2f}x on {threads}" for threads in (1, 2)]
    saved = median("executorch", 1) / median("executorch", 1, "lcsb-identity")
    return (
        f"ExecuTorch over ONNX Runtime, by medians: {' and '.join(over)} threads; `full` over `lcsb-identity` on ExecuTorch: {saved:.2f}x."
    )


if __name__ == "__main__":
    main(*sys.argv[1:], *("qwen2.5-0.5b", "all", None)[len(sys.argv) - 1 :])
