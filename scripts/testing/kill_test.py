"""Ends a run at random moments, again and again, and holds what it comes to against the unbroken run, bit for bit.

`kill_test.py BUNDLE --data FILE.jsonl --kills 50`. A run is `simulate` with a checkpoint after every step, begun anew or resumed in a
process of its own, a fork of this one, which has imported the runtime and opened no session, at a terminal of its own. Each is given a
random time, at most what the unbroken run took, and is then ended: every other one by SIGKILL, the others by a signal that can be caught,
or by closing the terminal, to which it still writes. These must leave the adapter of the newest checkpoint. Runs that end are compared, and
the next begins, until so many processes were ended, one of them with the time to save. Prints figures as JSON; exit code 1 when anything
differs, or when a process failed by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from kill_figures import Figures, RunFailed

from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.runners import import_runtime
from lcsb_mobile.runs.checkpoint import checkpoint_files, read_checkpoint
from lcsb_mobile.runs.setup import Observer, SimulateOptions
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.training.interrupts import SIGNALS
from lcsb_mobile.training.trainer import StepOutcome

STEPS = 7
INTERRUPTED = 3
SAVED, ERROR = "saved", "error"
ENDINGS = (*[signal.SIGKILL] * 4, *SIGNALS, None)  # None: its terminal is closed


class Telling(Observer):
    """Writes of each step to the terminal, and which step the adapter's file is of to `saved`."""

    def __init__(self, saved: Path) -> None:
        self._saved = saved

    def stepped(self, outcome: StepOutcome, memory: int | None) -> None:
        os.write(1, b"%d\n" % outcome.step)

    def saved(self, step: int, adapter: Path) -> None:
        self._saved.write_text(str(step))


def run_until(options: SimulateOptions, result: Path, seconds: float | None, ending: signal.Signals | None = None) -> bool:
    """Runs in a fork. True when it ended by itself, False when it was ended after `seconds`, by closing its terminal where `ending` is
    None. Raises RunFailed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until there is somebody to catch them
    child, terminal = pty.fork()
    if child == 0:
        code = INTERRUPTED
        try:
            code = _run(options, result)
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.read(terminal, 1)  # it has its terminal
    due = None if seconds is None else time.monotonic() + seconds
    status = None
    while status is None and (due is None or time.monotonic() < due):
        done, found = os.waitpid(child, os.WNOHANG)
        status = found if done else None
        time.sleep(0.0005)
    if status is None and ending is not None:
        os.kill(child, ending)
        _, status = os.waitpid(child, 0)
    os.close(terminal)
    if status is None:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):  # by SIGKILL, or before it had begun
        return False
    if os.WEXITSTATUS(status) not in (0, INTERRUPTED):
        raise RunFailed(f"the process ended with status {status}: {result.with_name(ERROR).read_text()}")
    return os.WEXITSTATUS(status) == 0


def _run(options: SimulateOptions, result: Path) -> int:
    """The exit code."""
    os.write(1, b"\n")
    try:
        for number in SIGNALS:  # a shell lets what runs in the background ignore some
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        simulation = simulate(options, Telling(result.with_name(SAVED)))
        result.write_bytes(msgspec.json.encode(simulation.result))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:
        result.with_name(ERROR).write_text(traceback.format_exc())
        return 1
    return 0


def fault_of(options: SimulateOptions, saved: Path) -> str | None:
    """What is wrong with what an interrupted run has left."""
    assert options.checkpoint_directory is not None
    layout = Bundle.open(options.bundle).manifest.adapter
    newest = read_checkpoint(checkpoint_files(options.checkpoint_directory)[0], layout)
    if newest.place.step != (step := int(saved.read_text())):
        return f"saved the adapter of step {step}, and a checkpoint of step {newest.place.step}"
    same = np.array_equal(load_adapter(options.adapter, layout), newest.state.adapter)
    return None if same else f"step {step}: the adapter is not the checkpoint's"


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
    while figures.kills < kills or not figures.saved:
        checkpoints = directory / f"run-{figures.runs}"
        broken = replace(options, adapter=directory / f"{figures.runs}.safetensors", checkpoint_directory=checkpoints, resume=True)
        result.unlink()
        saved = directory / SAVED
        saved.unlink(missing_ok=True)
        while not run_until(broken, result, moment(generator, longest), generator.choice(ENDINGS)):
            figures.kills += 1
            if saved.exists():
                figures.saved += 1
                faults += filter(None, [fault_of(broken, saved)])
                saved.unlink()
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
