"""Holds the device half in another language to this package: `parity.py BUNDLE… --data FILE.jsonl [--core swift] [--with-kotlin]`.

For each bundle the same run is made unbroken by both, and in relays in which one goes on from the other's checkpoints, both ways round;
`--with-kotlin`: in one more, from Python to Swift to Kotlin to Python. Adapter, moments, losses and evaluations must be the same bits, the
norms of the gradients the same to 1e-12 (their sums are in double precision, in another order). Then: PEFT's directory has the same bytes;
the losses by example and the verdict are the same. With the first bundle, as it is the same with any: each refuses a directory that the
other uses; a write that fails in the middle, a flipped bit and files' times that run backward lose nothing. Prints a line of JSON for each
bundle, then counts; exit code 1 when anything differs. `--tolerance` is for machines on which two releases of ONNX Runtime do not compute
the same bits: a relative one, of each tensor's largest value.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from cores import Core, add_arguments, chosen, kotlin

import lcsb_mobile.cli

STEPS = {1: (13,), 3: (5, 9, 13), 4: (4, 7, 10, 13)}  # where a relay of so many changes hands, and the end
END = 13
# Python's own turns are forks of a process that has imported what they need, and opened no session.
TURNS = multiprocessing.get_context("forkserver")
TURNS.set_forkserver_preload([*(f"lcsb_mobile.cli.{verb}" for verb in ("simulate", "compare", "adapter")), "onnxruntime"])
OPTIONS = ("--accumulation", 2, "--eval-every", 1, "--checkpoint-every", 2, "--threads", 1, "--seed", 3)
NORM_TOLERANCE = 1e-12
HOLD = """
import pathlib, sys
from lcsb_mobile.runs.directory import RunDirectory
with RunDirectory(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


class Parity:
    """One bundle's checks. `faults`: what differs. `differences`: the largest that were found, relative."""

    def __init__(self, bundle: Path, data: Path, directory: Path, tested: Core, second: Core | None, tolerance: float) -> None:
        self.bundle, self.data, self.directory, self.tolerance = bundle, data, directory, tolerance
        self.tested, self.second = tested, second
        self.faults: list[str] = []
        self.differences: dict[str, float] = {}

    def core(self, run: str, steps: int) -> tuple[int, list[dict[str, Any]]]:
        return self.tested.run(*self._train(self.tested, run, steps))

    def kotlin(self, run: str, steps: int) -> tuple[int, list[dict[str, Any]]]:
        assert self.second is not None
        return self.second.run(*self._train(self.second, run, steps))

    def _train(self, core: Core, run: str, steps: int, *more: object) -> tuple[object, ...]:
        return (core.train, self.bundle, self.data, self.directory / run, "--steps", steps, *OPTIONS, *more)

    def python(self, run: str, steps: int) -> tuple[int, str]:
        path = self.directory / run
        return lcsb(
            "simulate", self.bundle, "--data", self.data, "--steps", steps, *OPTIONS, "--adapter", path / "adapter.safetensors",
            "--checkpoint-dir", path, "--resume", "--json",
        )  # fmt: skip

    def expect(self, what: str, holds: bool) -> None:
        if not holds:
            self.faults.append(what)

    def relay(self, run: str, *runners: Any) -> None:
        for steps, runner in zip(STEPS[len(runners)], runners, strict=True):
            code, output = runner(run, steps)
            if code:
                raise SystemExit(f"{run}, to step {steps}: exit code {code}: {output}")

    def compare(self, run: str, expected: str = "python") -> None:
        name = f"step-{END:08}.safetensors"
        wanted, found = (safetensors.numpy.load_file(self.directory / side / name) for side in (expected, run))
        for side in (wanted, found):
            steps = side.pop("steps")
            side |= {"losses": steps[:, 0], "learning_rates": steps[:, 1], "gradient_norms": steps[:, 2]}
        for key, tensor in wanted.items():
            difference = float(np.abs(tensor.astype(np.float64) - found[key]).max() / np.abs(tensor).max())
            self.differences[key] = max(difference, self.differences.get(key, 0.0))
            most = max(self.tolerance, NORM_TOLERANCE) if key == "gradient_norms" else self.tolerance
            self.expect(
                f"{run}: {key} differ by {difference:.1e} of the largest, {np.mean(tensor != found[key]):.1%} of them", difference <= most
            )
        adapters = [(self.directory / side / "adapter.safetensors").read_bytes() for side in (expected, run)]
        self.expect(f"{run}: the adapter's file is another", self.tolerance > 0 or adapters[0] == adapters[1])

    def peft(self) -> None:
        adapter = self.directory / "core" / "adapter.safetensors"
        outputs = [self.directory / "peft-python", self.directory / "peft-core"]
        lcsb("adapter", "export", adapter, "--bundle", self.bundle, "--output", outputs[0])
        self.tested.run("peft", self.bundle, adapter, outputs[1])
        contents = [{path.name: path.read_bytes() for path in output.iterdir()} for output in outputs]
        self.expect("PEFT's directory is another", contents[0] == contents[1] and len(contents[0]) == 2)

    def verdict(self) -> None:
        """Losses by example with the base and with the run's adapter, and the verdict on them."""
        adapter = self.directory / "core" / "adapter.safetensors"
        options = ("--seed", 3, "--threads", 1)
        code, output = lcsb("compare", self.bundle, "--data", self.data, "--after", adapter, *options, "--json")
        failed, lines = self.tested.run("compare", self.bundle, self.data, adapter, *options)
        if code or failed:
            raise SystemExit(f"compare: exit codes {code} and {failed}: {output}{lines}")
        wanted, found = json.loads(output.splitlines()[-1]), lines[-1]
        for key in ("losses_before", "losses_after"):
            difference = float(np.abs(np.subtract(wanted[key], found[key])).max() / np.max(wanted[key]))
            self.differences[key] = difference
            self.expect(f"{key} by example differ by {difference:.1e} of the largest", difference <= self.tolerance)
        self.expect(
            f"the verdict is {found['verdict']}, and Python's {wanted['verdict']}",
            wanted["verdict"]["outcome"] == found["verdict"]["outcome"] and len(wanted["losses_before"]) == len(found["losses_before"]),
        )

    def locks(self) -> None:
        """Each way round: a directory that is in use is refused."""
        held = self.directory / "held"
        command = self.tested.command(*self._train(self.tested, "held", 1, "--delay", 60_000))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as core:
            assert core.stdout is not None
            core.stdout.readline()
            self._refused("held", f"process {core.pid}")
            core.kill()
        with subprocess.Popen([sys.executable, "-c", HOLD, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as python:
            assert python.stdout is not None
            python.stdout.readline()
            self._refused("held", f"process {python.pid}")
            python.kill()

    def _refused(self, run: str, holder: str) -> None:
        code, lines = self.core(run, END)
        self.expect(f"core was not refused what {holder} holds: {lines[-1]}", code == 2 and holder in lines[-1].get("error", ""))
        code, text = self.python(run, END)
        self.expect(f"Python was not refused what {holder} holds: {text}", code == 2 and holder in text)

    def harm(self) -> None:
        """A disk that is full in the middle of a checkpoint, a flipped bit in the newest, and the clock set back."""
        path = self.directory / "harmed"
        self.core("harmed", 1)
        code, last = self._in_little_room(max(file.stat().st_size for file in path.glob("step-*")) + 100)
        names = sorted(file.name for file in path.iterdir())
        self.expect(f"a full disk: exit code {code}, {last}", code == 1 and last.get("fault") in ("STORAGE_FULL", "STORAGE_FAILED"))
        self.expect(
            f"a full disk left {names}", not [name for name in names if name.startswith(".")] and "step-00000001.safetensors" in names
        )
        self.core("harmed", STEPS[3][0])
        newest = max(path.glob("step-*"))
        raw = bytearray(newest.read_bytes())
        raw[len(raw) // 3] ^= 4
        newest.write_bytes(raw)
        os.utime(newest, (0, 0))
        _, lines = self.core("harmed", END)
        self.expect("the flipped bit was not noticed", any("damaged" in line.get("warning", "") for line in lines))
        self.compare("harmed")

    def _in_little_room(self, size: int) -> tuple[int, dict[str, Any]]:
        """A run that may write files of `size` bytes, from when a JVM has unpacked the runtime's library."""
        arguments = self.tested.command(*self._train(self.tested, "harmed", END, "--delay", 10))
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as core:
            assert core.stdout is not None
            for line in core.stdout:
                if json.loads(line).get("phase") == "golden trace":
                    resource.prlimit(core.pid, resource.RLIMIT_FSIZE, (size, size))
        return core.returncode, json.loads(line)

    def check(self, also_harm: bool) -> None:
        self.relay("python", self.python)
        self.relay("core", self.core)
        self.compare("core")
        self.relay("core-python-core", self.core, self.python, self.core)
        self.compare("core-python-core")
        self.relay("python-core-python", self.python, self.core, self.python)
        self.compare("python-core-python")
        if self.second is not None:
            self.relay("all", self.python, self.core, self.kotlin, self.python)
            self.compare("all")
        self.peft()
        self.verdict()
        if not also_harm:
            return
        if self.tested.locks:
            self.locks()
        self.harm()


def lcsb(*arguments: object) -> tuple[int, str]:
    """The exit code, and what was printed."""
    with tempfile.NamedTemporaryFile() as output:
        process = TURNS.Process(target=turn, args=(output.name, *map(str, arguments)))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, Path(output.name).read_text("utf-8")


def turn(output: str, *arguments: str) -> None:
    """The command line, in a process that prints to a file."""
    file = os.open(output, os.O_WRONLY)
    for printed in (1, 2):
        os.dup2(file, printed)
    sys.argv = ["lcsb", *arguments]
    lcsb_mobile.cli.main()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--with-kotlin", action="store_true")
    add_arguments(parser)
    arguments = parser.parse_args()
    if not hasattr(resource, "prlimit"):
        print("parity: a full disk is made by prlimit, which only Linux has")
        sys.exit(3)

    def check(bundle: Path) -> Parity:
        with tempfile.TemporaryDirectory() as temporary:
            second = kotlin() if arguments.with_kotlin else None
            parity = Parity(bundle, arguments.data, Path(temporary), chosen(arguments), second, arguments.tolerance)
            parity.check(also_harm=bundle is arguments.bundles[0])
        return parity

    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # what takes time are processes
        for bundle, parity in zip(arguments.bundles, pool.map(check, arguments.bundles), strict=True):
            print(json.dumps({"bundle": bundle.name, "differences": parity.differences, "faults": parity.faults}), flush=True)
            failed += bool(parity.faults)
    print(f"{len(arguments.bundles) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
