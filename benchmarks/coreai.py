"""A published shape on the desktop's build of Core AI, beside ONNX Runtime: `coreai.py [LAYERS]`, of Qwen2.5-0.5B's shape.

It says what an export costs and that the programs are what they should be. It is no measure of a phone: the build has no delegate, and
copies every input. Exports and steps are processes of their own, and both bundles have the same random weights.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import ROOT, lcsb, markdown_table, measured, write_results

from lcsb_mobile.bench.jobs import WORKER, StepsJob, StepsResult, run_job
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Method
from lcsb_mobile.planning.cost import full_subset
from lcsb_mobile.planning.plan import predicted_peak
from lcsb_mobile.targets import Target, target_row

TARGETS: tuple[Target, ...] = ("onnxruntime", "coreai")
METHODS: tuple[Method, ...] = ("full", "lcsb-identity")
STEPS = 4


def main(layers: str) -> None:
    table, rows = [], []
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "checkpoint"
        measured(sys.executable, ROOT / "benchmarks/random_checkpoint.py", checkpoint, "--layers", layers)
        for target in TARGETS:
            path = Path(temporary) / target
            report = lcsb("export", checkpoint, "--target", target, "--output", path)
            bundle = Bundle.open(path)
            for method in METHODS:
                for keep in (0, int(layers)) if method == "full" else (0,):
                    result = run_job(sys.executable, WORKER, StepsJob(str(path), method, STEPS, keep, STEPS, 1, temporary), StepsResult)
                    rows.append(row(target, method, keep, report, bundle, result))
                    table.append(cells(rows[-1]))
    header = [
        "target",
        "method",
        "kept",
        "export: seconds, MB",
        "programs",
        "seconds a step",
        "forward, head, backward",
        "MB beyond, predicted",
    ]
    text = (
        markdown_table(header, table)
        + f"\nQwen2.5-0.5B's shape, {layers} layers, 256 tokens, one thread, mean of a cycle of {STEPS} steps.\n"
    )
    write_results("coreai", text, rows, f"coreai.py {layers}")


def row(target: Target, method: Method, keep: int, report: dict[str, object], bundle: Bundle, result: StepsResult) -> dict[str, object]:
    files, subset = bundle.manifest.files, full_subset(bundle.manifest)
    programs = {graph.file for graph in bundle.manifest.graphs.values()} | set(target_row(target).files)
    return {
        "target": target,
        "method": method,
        "kept": keep,
        "export_seconds": report["seconds"],
        "export_anonymous_bytes": report["peak_anonymous_bytes"],
        "programs_bytes": sum(files[name].size for name in programs),
        "step_seconds": result.step_seconds,
        "phase_seconds": result.phase_seconds,
        "beyond_bytes": (result.peak_anonymous_bytes or 0) - (result.base_bytes or 0),
        "predicted_bytes": predicted_peak(bundle.manifest, [subset], keep, 0) if method == "full" else None,
    }


def cells(x: dict[str, object]) -> list[str]:
    seconds, steps, phases = x["export_seconds"], x["step_seconds"], x["phase_seconds"]
    assert isinstance(seconds, dict) and isinstance(steps, (list, tuple)) and isinstance(phases, dict)
    predicted = "" if x["predicted_bytes"] is None else f", {int(str(x['predicted_bytes'])) / 1e6:.0f}"
    return [
        str(x["target"]),
        f"`{x['method']}`",
        str(x["kept"]),
        f"{seconds['capture'] + seconds['graphs']:.1f}, {int(str(x['export_anonymous_bytes'])) / 1e6:.0f}",
        f"{int(str(x['programs_bytes'])) / 1e3:.0f} kB",
        f"{sum(steps) / len(steps):.2f}",
        ", ".join(f"{phases[name]:.2f}" for name in ("forward", "head", "backward")),
        f"{int(str(x['beyond_bytes'])) / 1e6:.0f}{predicted}",
    ]


if __name__ == "__main__":
    main(*sys.argv[1:], *("4",)[len(sys.argv) - 1 :])
