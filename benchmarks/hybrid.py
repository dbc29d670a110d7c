"""A hybrid model's step by kinds of layers, at a published shape with random weights: `hybrid.py [SHAPE [LAYERS|all [DIRECTORY]]]`.

Seconds of each kind's programs on one layer, over those of their matrix products at the speed that the runtime's own product has at the
model's shapes; the anonymous memory of each program, run alone in a fresh process; then whole steps of each method.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import LCSB, lcsb, markdown_table, write_results

METHODS = "full,lcsb-exact,lcsb-identity"
ROLES = ("forward", "backward", "backward_kept")
THREADS = 1


def main(shape: str, layers: str, kept: str | None) -> None:
    """`kept`: where the bundle is left, or is already."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = kept or temporary
        size = () if layers == "all" else ("--layers", layers)
        setting = ("--methods", METHODS, "--threads", str(THREADS), "--rounds", "1")
        rows: Any = lcsb("bench", "--shape", shape, *size, "--bundle-dir", directory, *setting, program=LCSB)
        (bundle,) = Path(directory).iterdir()
        inspection = lcsb("inspect", bundle, "--calibrate", "--threads", str(THREADS))
        gflops = next(row["sgemm_gflops"] for row in rows if row["sgemm_gflops"])
        kinds = [kind_row(kind, inspection["calibration"]["seconds"], gflops, bundle) for kind in inspection["kinds"]]
    programs = [f"{role.replace('_', ' ')}, ms (over its products)" for role in ROLES]
    header = ["kind", "layers", "M weights", *programs, "MB: forward, backward"]
    table = markdown_table(header, [kind_cells(kind) for kind in kinds])
    steps = [step_cells(row) for row in rows]
    table += "\n" + markdown_table(["method", "seconds a step", "over its products", "MB anonymous, whole process"], steps)
    table += f"\n{rows[0]['shape']}, {rows[0]['seq_len']} tokens, rank {rows[0]['rank']}, {THREADS} thread, random weights.\n"
    write_results("hybrid", table, {"kinds": kinds, "steps": rows}, f"hybrid.py {shape} {layers}")


def kind_row(kind: dict[str, Any], seconds: dict[str, float], gflops: float, bundle: Path) -> dict[str, Any]:
    programs = {role: f"{kind['name']}_{role}" for role in ROLES}
    times = {role: seconds[name] for role, name in programs.items()}
    bounds = {role: kind["flops"][role] / gflops / 1e9 for role in ROLES}
    memory = {role: program_memory(bundle, programs[role]) for role in ("forward", "backward")}
    return {
        "name": kind["name"],
        "layers": kind["layers"],
        "parameters": kind["parameters"],
        "seconds": times,
        "bounds": bounds,
        "anonymous_bytes": memory,
    }


def kind_cells(kind: dict[str, Any]) -> list[str]:
    times = [f"{kind['seconds'][role] * 1e3:.0f} ({kind['seconds'][role] / kind['bounds'][role]:.1f}x)" for role in ROLES]
    memory = ", ".join(f"{kind['anonymous_bytes'][role] / 1e6:.0f}" for role in ("forward", "backward"))
    return [f"`{kind['name']}`", kind["layers"], f"{kind['parameters'] / 1e6:.1f}", *times, memory]


def step_cells(row: dict[str, Any]) -> list[str]:
    over = f"{row['time_over_gemm_bound']:.2f}x"
    return [row["method"], f"{row['step_seconds_mean']:.2f}", over, f"{row['peak_anonymous_bytes'] / 1e6:.0f}"]


def program_memory(bundle: Path, program: str) -> int:
    """Of one program, its session and its buffers, beyond the process with its runtime."""
    output = subprocess.run([sys.executable, __file__, "--program", str(bundle), program], check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(output.stdout))


def run_program(path: Path, name: str) -> None:
    import numpy as np

    from lcsb_mobile.bundle.directory import Bundle
    from lcsb_mobile.measuring.memory import MemorySampler, process_memory
    from lcsb_mobile.runners import make_runner

    bundle = Bundle.open(path)
    programs: Any = make_runner(bundle, threads=THREADS)
    base, _ = process_memory()
    layer = next(number for number, place in enumerate(bundle.manifest.layers) if place.kind == name.partition("_")[0])
    with MemorySampler() as sampler:
        graph = bundle.manifest.graphs[name]
        feeds = {x.name: np.full(x.shape, 0.01, x.dtype) for x in graph.inputs if x.weight is None}
        for _ in range(2):
            programs.programs.run(name, feeds, programs.programs.new_outputs(name), layer)
    print(json.dumps((sampler.peak_anonymous or 0) - (base or 0)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--program"]:
        run_program(Path(sys.argv[2]), sys.argv[3])
    else:
        main(*sys.argv[1:], *("qwen3.5-0.8b", "all", None)[len(sys.argv) - 1 :])
