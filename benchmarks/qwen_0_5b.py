"""The Qwen2.5-0.5B shape with random weights: export, then 8 steps with full and lcsb-identity steps alternating in one run.

The alternating run goes through the runner that `lcsb simulate` uses; `lcsb simulate` itself then runs 8 steps of the bundle's
schedule, whose peak memory is stated.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import LCSB, ROOT, lcsb, markdown_table, measured, random_text, write_results

from lcsb_mobile.bundle import Bundle
from lcsb_mobile.golden import read_trace
from lcsb_mobile.runners import make_runner
from lcsb_mobile.schedule import Method, ScheduleConfig, make_schedule

METHODS: tuple[Method, ...] = ("full", "lcsb-identity", "lcsb-exact")
CYCLES = 2


def alternate(bundle: Bundle) -> dict[str, list[float]]:
    """Seconds of each step, the methods in turn, so that a drift of the machine meets all of them alike."""
    runner = make_runner(bundle)
    layers = bundle.manifest.model.num_hidden_layers
    schedules = {method: make_schedule(ScheduleConfig(method=method), layers) for method in METHODS}
    batch = read_trace(bundle.golden_path).batches[0].batch()
    adapter = bundle.initial_adapter()
    runner.step(schedules["full"][0], batch, adapter)  # warm-up
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(CYCLES * 4):
        for method, schedule in schedules.items():
            start = time.perf_counter()
            runner.step(schedule[number % len(schedule)], batch, adapter)
            seconds[method].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint, path, data = (Path(temporary) / name for name in ("checkpoint", "bundle", "data.jsonl"))
        measured(sys.executable, ROOT / "benchmarks/random_checkpoint.py", checkpoint)
        seconds, resident = measured(LCSB, "export", checkpoint, "--method", "lcsb-identity", "--output", path)
        random_text(data, 256)
        run = lcsb("simulate", path, "--data", data, "--steps", "8", "--adapter", f"{temporary}/a.safetensors")
        steps = alternate(Bundle.open(path))
    full = statistics.median(steps["full"])
    rows = [
        [method, f"{statistics.median(s):.2f}", f"{min(s):.2f}–{max(s):.2f}", f"{full / statistics.mean(s):.2f}x", f"{full / max(s):.2f}x"]
        for method, s in steps.items()
    ]
    table = markdown_table(["method", "s/step, median", "range", "full's median over the mean", "over the slowest step"], rows)
    table += f"\nExport: {seconds:.0f} s, peak resident {resident / 1e6:.0f} MB. `lcsb simulate`, 8 lcsb-identity steps: "
    table += (
        f"peak anonymous {run['peak_anonymous_bytes'] / 1e6:.0f} MB (predicted {run['predicted_peak_anonymous_bytes'] / 1e6:.0f} MB).\n"
    )
    write_results("qwen_0_5b", table, {"steps": steps, "export_seconds": seconds, "export_peak_resident_bytes": resident, "simulate": run})


if __name__ == "__main__":
    main()
