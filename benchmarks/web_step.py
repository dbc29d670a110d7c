"""Where a step's time goes by WebAssembly, beside the same step on native ONNX Runtime: `web_step.py [BUNDLE]`.

Needs `make models`, `make test-device`, `make web` and an idle machine. Without a BUNDLE, which has to be one of SmolLM2, it exports one of
128 tokens a sequence. The kit of the web page, on Node, and the Python package run steps of the bundle's first golden batch through all
layers, with one thread each and without AdamW, and let the runtime's profiler tell of every operator. Of the steps under the profiler the
fastest one counts, since whatever else a machine does makes steps slower only; without the profiler likewise. The native ones run before
and after.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from common import DEVICE_LCSB, ROOT, markdown_table, smollm2, write_results

from lcsb_mobile.bench.op_profile import KERNEL, RUN
from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.bundle.manifest import DECOMPRESSION
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.planning.cost import step_cost

STEPS = 6
PROFILER = ROOT / "web_demo/build/cli/profile.js"
PRODUCTS = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")
BODIES = ("Loop", "If")  # their time is that of the operators in them
ROWS = ("products of matrices", "decompression", "other operators", "between operators", "between programs")


class Arguments(msgspec.Struct):
    op_name: str = ""


class Event(msgspec.Struct):
    """Of a profile's event those fields that are read. Microseconds, from whenever the profile began."""

    name: str
    ts: int
    dur: int
    args: Arguments

    @property
    def row(self) -> str:
        if self.name.startswith(f"{DECOMPRESSION}."):
            return ROWS[1]
        return ROWS[0] if self.args.op_name in PRODUCTS else ROWS[2]


class Measured(msgspec.Struct):
    """Seconds of the fastest step without a profile, and of the fastest one with it, by row."""

    seconds: float
    rows: dict[str, float]


def by_step(profile: Sequence[Event], steps: int) -> list[Counter[str]]:
    """One program's microseconds in each of the steps but the first, by row but the last, and "run" for all of them together."""
    runs = sorted((event for event in profile if event.name == RUN), key=lambda event: event.ts)
    share, rest = divmod(len(runs), steps + 1)
    if rest:
        raise SystemExit(f"a program ran {len(runs)} times in {steps + 1} steps")
    starts = [event.ts for event in runs[::share]]
    found = [Counter[str]() for _ in starts]
    for event in profile:
        step = found[max(0, int(np.searchsorted(starts, event.ts, "right")) - 1)]
        if event.name == RUN:
            step["run"] += event.dur
        elif event.name.endswith(KERNEL) and event.args.op_name not in BODIES:
            step[event.row] += event.dur
    for step in found:
        step[ROWS[3]] = step["run"] - sum(step[row] for row in ROWS[:3])
    return found[1:]


def measured(plain: Sequence[float], profiled: Sequence[float], profiles: Iterable[Sequence[Event]]) -> Measured:
    """`profiles`: a program's each."""
    steps = [Counter[str]() for _ in profiled]
    for profile in profiles:
        for step, more in zip(steps, by_step(profile, len(profiled)), strict=True):
            step.update(more)
    fastest = int(np.argmin(profiled))
    step = steps[fastest]
    rows = {row: step[row] / 1e6 for row in ROWS[:4]}
    return Measured(min(plain), rows | {ROWS[4]: profiled[fastest] - step["run"] / 1e6})


def in_webassembly(bundle: Path) -> tuple[Measured, float]:
    """And the multiplications and additions a second that the processor's vectors give there. What the profiler prints is too much for a
    pipe that is read in the end."""
    with tempfile.TemporaryFile("w+") as printed:
        subprocess.run(["node", PROFILER, bundle, str(STEPS)], check=True, stdout=printed)
        printed.seek(0)
        lines = [line.strip().rstrip(",") for line in printed]
    told: dict[str, object] = {}
    profiles: list[list[Event]] = []
    for line in lines:
        if line == "[":
            profiles.append([])
        elif line.startswith("{") and profiles:
            profiles[-1].append(msgspec.json.decode(line, type=Event))
        elif line.startswith("{"):
            told |= msgspec.json.decode(line)
    plain, profiled = (msgspec.convert(told[name], list[float]) for name in ("seconds", "profiled"))
    return measured(plain, profiled, profiles), msgspec.convert(told["multiplyAdds"], float)


def natively(bundle: Path) -> Measured:
    """In the environment of a device."""
    command = [DEVICE_LCSB.with_name("python"), __file__, "--native", bundle]
    return msgspec.json.decode(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout, type=Measured)


def native(path: Path) -> Measured:
    from lcsb_mobile.runners.block_runner import BlockRunner
    from lcsb_mobile.runners.onnxruntime import OnnxRuntime

    bundle = Bundle.open(path)
    batch, layers = read_trace(bundle.golden_path).batches[0].batch(), tuple(range(bundle.manifest.model.num_hidden_layers))
    adapter = bundle.initial_adapter()

    def seconds(runtime: OnnxRuntime) -> list[float]:
        runner = BlockRunner(bundle, runtime)
        return timed(lambda: runner.step(Subset(layers, layers), batch, adapter))

    plain = seconds(OnnxRuntime(bundle, threads=1))
    with tempfile.TemporaryDirectory() as directory:
        runtime = OnnxRuntime(bundle, threads=1, profile=Path(directory))
        profiled = seconds(runtime)
        runtime.end_profiling()
        profiles = [msgspec.json.decode(file.read_bytes(), type=list[Event]) for file in Path(directory).iterdir()]
    return measured(plain, profiled, profiles)


def timed(step: Callable[[], object]) -> list[float]:
    """Seconds of each step, the first one, which prepares the programs, left out."""
    found = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return found[1:]


def flops_of(path: Path) -> int:
    """Of a step's products."""
    bundle = Bundle.open(path)
    layers = tuple(range(bundle.manifest.model.num_hidden_layers))
    counted = sum(label != IGNORED_LABEL for label in read_trace(bundle.golden_path).batches[0].labels)
    return step_cost(bundle.manifest, Subset(layers, layers), counted).flops


def main(given: str | None = None) -> None:
    with smollm2(given) as bundle:
        before = natively(bundle)
        web, most = in_webassembly(bundle)
        after = natively(bundle)
        flops = flops_of(bundle)
    desktop = min(before, after, key=lambda run: run.seconds)
    both = (web, desktop)
    totals = [sum(run.rows.values()) for run in both]
    rows = []
    for name in ROWS:
        seconds = [run.rows[name] for run in both]
        cells = [f"{value:.2f} ({100 * value / total:.0f} %)" for value, total in zip(seconds, totals)]
        rows.append([name, *cells, f"{seconds[0] / seconds[1]:.1f}x"])
    rows.append(["a step under the profiler", *(f"{total:.2f}" for total in totals), f"{totals[0] / totals[1]:.1f}x"])
    rows.append(["a step without it", *(f"{run.seconds:.2f}" for run in both), f"{web.seconds / desktop.seconds:.1f}x"])
    speeds = [flops / run.rows[ROWS[0]] / 1e9 for run in both]
    least = (flops / most + totals[1] - desktop.rows[ROWS[0]]) / totals[1]
    notes = (
        f"The products are {flops / 1e9:.0f} GFLOP: {speeds[0]:.0f} a second by WebAssembly, {speeds[1]:.0f} natively. A loop of nothing "
        f"but multiplications and additions of vectors comes to {most / 1e9:.0f} by WebAssembly; products at that speed, and all else as "
        f"natively, would make {least:.1f}x. One thread; the load was {os.getloadavg()[1]:.1f} over the last five minutes."
    )
    data = {"web": msgspec.to_builtins(web), "native": msgspec.to_builtins(desktop), "flops": flops, "most": most, "load": os.getloadavg()}
    write_results("web_step", f"{markdown_table(['s of a step', 'WebAssembly', 'native', 'ratio'], rows)}\n{notes}\n", data)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--native"]:
        print(msgspec.json.encode(native(Path(sys.argv[2]))).decode())
    else:
        main(*sys.argv[1:])
