"""A published shape on the desktop's build of Core AI, beside ONNX Runtime: `coreai.py [LAYERS]`, of Qwen2.5-0.5B's shape.

It says what an export costs and what its programs hold. It is no measure of a phone: the build has no delegate, and copies every input.
Exports and steps are processes of their own, and both bundles have the same random weights.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, lcsb, markdown_table, measured, write_results

from lcsb_mobile.bench.jobs import WORKER, StepsJob, StepsResult, run_job
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.planning.cost import full_subset
from lcsb_mobile.planning.memory import predicted_peak
from lcsb_mobile.targets import Target, target_row

TARGETS: tuple[Target, ...] = ("onnxruntime", "coreai")
HEADER = ["target", "layers kept", "capture and programs", "size", "a step", "forward, head, backward", "MB beyond the process, predicted"]


def main(layers: str) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "checkpoint"
        measured(sys.executable, ROOT / "benchmarks/random_checkpoint.py", checkpoint, "--layers", layers)
        for target in TARGETS:
            path = Path(temporary) / target
            report = lcsb("export", checkpoint, "--target", target, "--output", path)
            for keep in (0, int(layers)):
                result = run_job(sys.executable, WORKER, StepsJob(str(path), "full", 1, keep, 1, 1, temporary), StepsResult)
                rows.append(row(target, keep, report, Bundle.open(path), result))
        held = {name: graph.working_bytes for name, graph in Bundle.open(path).manifest.graphs.items()}
    table = markdown_table(HEADER, [cells(x) for x in rows])
    table += (
        f"\nQwen2.5-0.5B's shape, {layers} layers, 256 tokens, one thread, one step of all layers after one to warm up. By its graph a "
        f"`block_backward` holds {held['block_backward'] / 2**20:.0f} MiB beside what it is fed.\n"
    )
    write_results("coreai", table, rows, f"coreai.py {layers}")


def row(target: Target, keep: int, report: dict[str, Any], bundle: Bundle, result: StepsResult) -> dict[str, Any]:
    files, subset = bundle.manifest.files, full_subset(bundle.manifest)
    programs = {graph.file for graph in bundle.manifest.graphs.values()} | set(target_row(target).files)
    return {
        "target": target,
        "kept": keep,
        "export_seconds": report["seconds"],
        "programs_bytes": sum(files[name].size for name in programs),
        "step_seconds": result.step_seconds,
        "phase_seconds": result.phase_seconds,
        "beyond_bytes": (result.peak_anonymous_bytes or 0) - (result.base_bytes or 0),
        "predicted_bytes": predicted_peak(bundle.manifest, [subset], keep, 0),
    }


def cells(x: dict[str, Any]) -> list[str]:
    return [
        x["target"],
        str(x["kept"]),
        f"{x['export_seconds']['capture'] + x['export_seconds']['graphs']:.1f} s",
        f"{x['programs_bytes'] / 1e3:.0f} kB",
        f"{x['step_seconds'][0]:.2f} s",
        ", ".join(f"{x['phase_seconds'][name]:.2f}" for name in ("forward", "head", "backward")),
        f"{x['beyond_bytes'] / 1e6:.0f}, {x['predicted_bytes'] / 1e6:.0f}",
    ]


if __name__ == "__main__":
    main(*sys.argv[1:], *("4",)[len(sys.argv) - 1 :])
