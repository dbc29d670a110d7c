"""The example of a host loop in C++ against the runner, and what it refuses. It is built as docs/executorch.md says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.runners import layer_update, make_runner
from lcsb_mobile.training.optimizer import AdamW
from lcsb_mobile.training.trainer import StepOutcome, TrainConfig, Trainer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the page builds the example on Linux")

ROOT = Path(__file__).parents[2]
# The same programs on the same values: the two differ in the sum of the gradient's norm alone, and by the number of threads.
TOLERANCE = 1e-6


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built by the first lines of the page's commands."""
    assert shutil.which("g++"), "g++ is not installed, and examples/executorch_step.cpp is built with it: apt-get install g++"
    page = (ROOT / "docs/executorch.md").read_text("utf-8")
    (commands,) = re.findall(r"```sh\n(.*?)\./executorch_step BUNDLE\n```", page, re.DOTALL)
    directory = tmp_path_factory.mktemp("executorch-cpp")
    (directory / "examples").symlink_to(ROOT / "examples")
    paths = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    built = subprocess.run(
        ["bash", "-ec", commands], cwd=directory, env=os.environ | paths, capture_output=True, text=True, check=False, timeout=600
    )
    assert built.returncode == 0, built.stderr
    return directory / "executorch_step"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)


def cycle(bundle: Bundle) -> list[StepOutcome]:
    """What the example does, by the runner and the trainer."""
    trace, manifest = read_trace(bundle.golden_path), bundle.manifest
    runner = make_runner(bundle, threads=1)
    optimizer = AdamW(bundle.initial_adapter(), manifest.adapter.slices, manifest.optimizer, layer_update(runner))
    trainer = Trainer(runner, manifest.schedule, optimizer, TrainConfig(len(manifest.schedule), trace.learning_rate))
    batch = trace.batches[trace.run[0].batch].batch()
    return [trainer.step(number, [batch]) for number in range(len(manifest.schedule))]


def test_a_cycle_is_the_runners(program: Path, executorch_bundle: Path) -> None:
    done = run(program, executorch_bundle)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = cycle(Bundle.open(executorch_bundle))
    assert [step["step"] for step in found] == [step.step for step in expected]
    assert [step["loss"] for step in found] == pytest.approx([step.loss for step in expected], rel=TOLERANCE)
    assert [step["gradient_norm"] for step in found] == pytest.approx([step.gradient_norm for step in expected], rel=TOLERANCE)
    assert found[-1]["loss"] < found[0]["loss"]


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A JSON file of the bundle, with keys replaced."""

    def spoil(bundle: Path) -> None:
        content = json.loads((bundle / name).read_text("utf-8"))
        (bundle / name).write_text(json.dumps(content | change(content)), encoding="utf-8")

    return spoil


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda bundle: os.truncate(bundle / name, size)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json: cannot be read"),
        (cut("manifest.json", 100), "manifest.json: not JSON at byte 100"),
        (edited("manifest.json", lambda manifest: {"format_version": 4}), "expected format version 3, found 4"),
        (edited("manifest.json", lambda manifest: {"target": "onnxruntime"}), "expected a bundle of target executorch, found onnxruntime"),
        (edited("manifest.json", lambda manifest: {"weights": []}), "expected a tensor embed_tokens.weight.packed among the weights"),
        (cut("weights.bin", 4096), "weights.bin ends before a tensor of the manifest"),
        (cut("weights.bin", 0), "weights.bin: cannot be mapped"),
        (cut("programs.pte", 4096), "programs.pte: Error::InvalidProgram"),
        (edited("golden.json", lambda trace: {"run": []}), "golden.json: expected a recorded run, found none"),
        (cut("adapter.safetensors", 4), "adapter.safetensors: not a safetensors file"),
    ],
)
def test_refusals(program: Path, executorch_bundle: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    bundle = shutil.copytree(executorch_bundle, tmp_path / "bundle")
    spoil(bundle)
    assert_refused(run(program, bundle), message)


def test_arguments(program: Path) -> None:
    assert_refused(run(program), "expected one argument, the directory of a bundle")


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    """The last line of the errors, after what the runtime logs."""
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
