"""Kills a run of the device half in another language with SIGKILL at random moments, and holds what it comes to against the unbroken run.

`kill_test.py BUNDLE --data FILE.jsonl --kills 50 [--core swift]`. A run has a checkpoint after every step and is begun anew or resumed; it
must come to the same bits. Each process is given a random time, from when it has started to what the unbroken run took; runs that end are
compared, and the next begins, until so many processes were killed; the last run then comes to its end. Prints figures as JSON, then
counts; exit code 1 when anything differs, or when a process failed by itself.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cores import Core, add_arguments, chosen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "testing"))

from kill_figures import Figures, RunFailed

STEPS = 25  # so that most of a process's time is the run, not its start
OPTIONS = ("--accumulation", 2, "--eval-every", 3, "--checkpoint-every", 1, "--threads", 1)


def run_until(arguments: list[str], output: Path, seconds: float | None) -> bool:
    """True when it ended by itself, False when it was killed after `seconds`. Raises RunFailed."""
    with output.open("wb") as file, subprocess.Popen(arguments, stdout=file) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code not in (0, -9):
        raise RunFailed(f"the process ended with status {code}: {output.read_text('utf-8')[-500:]}")
    return code == 0


def outcome(directory: Path, output: Path) -> tuple[bytes, list[float], list[dict[str, Any]]]:
    """What must be equal: the adapter's file, the losses of all steps, and the evaluations."""
    figures = json.loads(output.read_text("utf-8").splitlines()[-1])
    return (directory / "adapter.safetensors").read_bytes(), figures["losses"], figures["evaluations"]


def kill(bundle: Path, data: Path, steps: int, kills: int, seed: int, directory: Path, core: Core) -> tuple[Figures, list[str]]:
    generator, figures, faults = random.Random(seed), Figures(), []
    output = directory / "output"

    def arguments(run: Path) -> list[str]:
        return core.command(core.train, bundle, data, run, "--steps", steps, *OPTIONS)

    def whole(run: Path) -> float:
        started = time.monotonic()
        run_until(arguments(run), output, None)
        return time.monotonic() - started

    longest = min(
        whole(directory / "unbroken"), whole(directory / "again")
    )  # the first finds nothing in the cache: most kills would come too late
    expected = outcome(directory / "again", output)
    while figures.kills < kills:
        run = directory / f"run-{figures.runs}"
        while not run_until(arguments(run), output, generator.uniform(core.starting, longest) if figures.kills < kills else None):
            figures.kills += 1
            figures.early += not any(run.glob("step-*"))
            figures.writing += any(run.glob(".step-*"))
        figures.runs += 1
        if outcome(run, output) != expected:
            faults.append(f"run {figures.runs} differs from the unbroken one")
        names = sorted(path.name for path in run.iterdir())
        if names != ["adapter.safetensors", "lock", f"step-{steps - 1:08}.safetensors", f"step-{steps:08}.safetensors"]:
            faults.append(f"run {figures.runs} left {names}")
    return figures, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        figures, faults = kill(
            arguments.bundle, arguments.data, arguments.steps, arguments.kills, arguments.seed, Path(temporary), chosen(arguments)
        )
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"steps": arguments.steps, "seconds": seconds, **vars(figures), "faults": faults}))
    print(f"{figures.kills} passed, {len(faults)} failed, 0 skipped")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
