"""Kills a run with SIGKILL at random moments, again and again, and holds what it comes to against the unbroken run, bit for bit.

`kill_test.py BUNDLE --data FILE.jsonl --kills 50`. A run is `simulate` with a checkpoint after every step, begun anew or resumed in a
process of its own, a fork of this one, which has imported the runtime and opened no session. Each is given a random time, at most what
the unbroken run took; runs that end are compared, and the next begins, until so many processes were killed. Prints figures as JSON;
exit code 1 when anything differs, or when a process failed by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import msgspec
from kill_figures import Figures, RunFailed

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.runners import import_runtime
from lcsb_mobile.runs.checkpoint import checkpoint_files
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import simulate

STEPS = 7


def run_until(options: SimulateOptions, result: Path, seconds: float | None) -> bool:
    """Runs in a fork. True when it ended by itself, False when it was killed after `seconds`. Raises RunFailed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            simulation = simulate(options)
            result.write_bytes(msgspec.json.encode(simulation.result))
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    due = None if seconds is None else time.monotonic() + seconds
    while due is None or time.monotonic() < due:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise RunFailed(f"the process ended with status {status}")
            return True
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RunFailed(f"the process ended with status {status}")
    return os.WIFEXITED(status)


def outcome(options: SimulateOptions, result: Path) -> tuple[bytes, list[float], list[list[float]]]:
    """What must be equal: the adapter's file, the losses of all steps, and the evaluations."""
    figures = json.loads(result.read_bytes())
    return options.adapter.read_bytes(), figures["losses"], figures["evaluations"]


def moment(generator: random.Random, longest: float) -> float:
    """Seconds until a kill. Half of them anywhere in a run as long as the unbroken one, half early: what is before the first checkpoint is
    short, and shorter still where the unbroken run was held up."""
    return longest * (generator.random() if generator.random() < 0.5 else 10 ** generator.uniform(-3, 0))


def kill(options: SimulateOptions, kills: int, seed: int, directory: Path) -> tuple[Figures, list[str]]:
    generator, figures, faults = random.Random(seed), Figures(), []
    result = directory / "result.json"
    started = time.monotonic()
    whole = replace(options, adapter=directory / "unbroken.safetensors")
    run_until(whole, result, None)
    longest = time.monotonic() - started
    expected = outcome(whole, result)
    while figures.kills < kills:
        checkpoints = directory / f"run-{figures.runs}"
        broken = replace(options, adapter=directory / f"{figures.runs}.safetensors", checkpoint_directory=checkpoints, resume=True)
        result.unlink()
        while not run_until(broken, result, moment(generator, longest)):
            figures.kills += 1
            figures.early += not (checkpoints.is_dir() and checkpoint_files(checkpoints))
            figures.writing += any(checkpoints.glob(".step-*"))
        figures.runs += 1
        if outcome(broken, result) != expected:
            faults.append(f"run {figures.runs} differs from the unbroken one")
        if len(checkpoint_files(checkpoints)) != 2 or any(checkpoints.glob(".step-*")):
            faults.append(f"run {figures.runs} left {sorted(path.name for path in checkpoints.iterdir())}")
    return figures, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import_runtime(Bundle.open(arguments.bundle).manifest.target)
    options = SimulateOptions(
        arguments.bundle, arguments.data, arguments.steps, Path(), evaluate_every=3, accumulation=2, checkpoint_every=1, threads=1
    )
    with tempfile.TemporaryDirectory() as temporary:
        figures, faults = kill(options, arguments.kills, arguments.seed, Path(temporary))
    target = Bundle.open(arguments.bundle).manifest.target
    print(json.dumps({"target": target, "steps": arguments.steps, **vars(figures), "faults": faults}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
