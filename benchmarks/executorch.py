"""Steps of a published shape on ExecuTorch and on ONNX Runtime, in turn: `executorch.py [SHAPE [LAYERS|all [DIRECTORY]]]`.

Both bundles have the same random weights. Each measurement is a cycle of steps in a process of its own, after one to warm up.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import msgspec
from common import markdown_table, write_results

from lcsb_mobile.bench.jobs import WORKER, StepsJob, StepsResult, run_job
from lcsb_mobile.bench.shapes import RandomBundleOptions
from lcsb_mobile.bundle.schedule import Method
from lcsb_mobile.export.random_bundle import random_bundle
from lcsb_mobile.targets import PTE_FILE, Target

TARGETS: tuple[Target, ...] = ("executorch", "onnxruntime")
SETTINGS: tuple[tuple[int, Method], ...] = ((1, "full"), (1, "lcsb-identity"), (2, "full"))  # threads, method
ROUNDS, STEPS = 3, 4

Found = dict[tuple[str, int, str], list[StepsResult]]  # target, threads, method -> a result a round


def main(shape: str, layers: str, kept: str | None) -> None:
    """`kept`: where the bundles are left, or are already."""
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        depth = None if layers == "all" else int(layers)
        bundles = {x: random_bundle(Path(kept or temporary) / x, RandomBundleOptions(shape, x, depth)) for x in TARGETS}
        for _ in range(ROUNDS):
            for threads, method in SETTINGS:
                for target in TARGETS:
                    job = StepsJob(str(bundles[target]), method, STEPS, 0, STEPS, threads, temporary)
                    found[target, threads, method].append(run_job(sys.executable, WORKER, job, StepsResult))
        size = (bundles["executorch"] / PTE_FILE).stat().st_size
    header = ["target", "threads", "method", "least, median seconds", "forward, head, backward", "MB beyond the process"]
    table = markdown_table(header, [cells(*key, results) for key, results in found.items()])
    table += (
        f"\n{shape}, random weights, a cycle of {STEPS} steps, {ROUNDS} rounds. {comparisons(found)} `{PTE_FILE}`: {size / 1e3:.0f} kB.\n"
    )
    rows = {" ".join(map(str, key)): msgspec.to_builtins(results) for key, results in found.items()}
    write_results("executorch", table, rows, f"executorch.py {shape} {layers}")


def seconds(results: list[StepsResult]) -> list[float]:
    return [x for result in results for x in result.step_seconds]


def beyond(results: list[StepsResult]) -> float:
    """Bytes that the steps take beyond the process with its runtime imported."""
    return statistics.median((result.peak_anonymous_bytes or 0) - (result.base_bytes or 0) for result in results)


def cells(target: str, threads: int, method: str, results: list[StepsResult]) -> list[str]:
    phases = ", ".join(f"{statistics.median(x.phase_seconds[name] for x in results):.2f}" for name in ("forward", "head", "backward"))
    taken = seconds(results)
    return [
        target,
        str(threads),
        f"`{method}`",
        f"{min(taken):.2f}, {statistics.median(taken):.2f}",
        phases,
        f"{beyond(results) / 1e6:.0f}",
    ]


def comparisons(found: Found) -> str:
    def over(threads: int) -> str:
        ours, theirs = (seconds(found[target, threads, "full"]) for target in TARGETS)
        return f"{min(ours) / min(theirs):.2f}x by the least and {statistics.median(ours) / statistics.median(theirs):.2f}x by the median"

    saved = statistics.median(seconds(found["executorch", 1, "full"])) / statistics.median(seconds(found["executorch", 1, "lcsb-identity"]))
    memory = beyond(found["executorch", 1, "full"]) / beyond(found["onnxruntime", 1, "full"])
    return (
        f"A full step on ExecuTorch over one on ONNX Runtime: on one thread {over(1)}, on two {over(2)}; its memory: {memory:.2f}x. "
        f"`full` over `lcsb-identity` on ExecuTorch: {saved:.2f}x."
    )


if __name__ == "__main__":
    main(*sys.argv[1:], *("qwen2.5-0.5b", "all", None)[len(sys.argv) - 1 :])
