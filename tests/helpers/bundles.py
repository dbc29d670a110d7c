"""Bundles of small random models, exported whole, and the command line run in this process or one of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.checkpoints import write_checkpoint
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch, StepResult, StepRunner
from lcsb_mobile.bundle.schedule import ScheduleConfig, Subset
from lcsb_mobile.cli import app
from lcsb_mobile.config import AccuracyLevel, LoraConfig, QuantizationConfig
from lcsb_mobile.export.bundle import ExportOptions, export_bundle
from lcsb_mobile.runners.decoding import WholeSequenceDecoder
from lcsb_mobile.targets import Target

SEQ_LEN = 32
EXPORT = ("--seq-len", SEQ_LEN, "--group-size", 8, "--rank", 4, "--subsets", 3)  # of the helpers' checkpoints: 3 layers, 48 wide

MESSAGES = [
    "the train was late again",
    "two boats on the canal",
    "it had started to rain",
    "the washing is on the line",
    "i owe you a letter",
    "nothing much happened",
]


@dataclass(frozen=True)
class RandomBundle:
    """A bundle and the checkpoint it was exported from. Tests read them and change neither."""

    checkpoint: Path
    bundle: Path

    @classmethod
    def within(cls, directory: Path) -> RandomBundle:
        return cls(directory / "checkpoint", directory / "bundle")


def made_once(directories: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory of this session, filled by the first of its processes that asks. Tests read what is in it and do not change it."""
    root = directories.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    directory, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of one that failed
            directory.mkdir()
            make(directory)
            done.touch()
    return directory


def export_random(
    directory: Path, model_type: str = "llama", target: Target = "onnxruntime", accuracy_level: AccuracyLevel = 0, **overrides: Any
) -> RandomBundle:
    checkpoint = write_checkpoint(directory / "checkpoint", model_type, tied=True, **overrides)
    export_bundle(small_export(model=str(checkpoint), output=directory / "bundle", target=target, accuracy_level=accuracy_level))
    return RandomBundle.within(directory)


def small_export(**options: Any) -> ExportOptions:
    """ExportOptions for the helpers' checkpoints, as EXPORT says it on the command line."""
    small = {"quantization": QuantizationConfig(group_size=8), "schedule": ScheduleConfig(subsets=3), "seq_len": SEQ_LEN}
    return ExportOptions(lora=LoraConfig(rank=4), **small, **options)


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def lcsb(*arguments: object, code: int = 0) -> str:
    """Runs the command in this process, holds it to its exit code, and returns its standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, (result.exit_code, result.stderr)
    return str(result.stdout)


def lcsb_json(*arguments: object) -> Any:
    """Standard output must be one JSON object on one line, and nothing else."""
    text = lcsb(*arguments, "--json")
    assert text.count("\n") == 1
    return json.loads(text)


def lcsb_error(code: int, *arguments: object) -> str:
    """The command's one line of error. Nothing stands on standard output, and no traceback anywhere."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, (result.exit_code, result.stderr, result.stdout)
    return one_error(result.stdout, result.stderr)


def one_error(stdout: str, stderr: str) -> str:
    lines = stderr.splitlines()
    assert stdout == "" and "Traceback" not in stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], stderr
    return str(lines[-1])


def python(program: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program in an interpreter of its own."""
    command = [sys.executable, "-c", program, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


class StubRunner:
    """A StepRunner without a model: the loss of a batch is `loss`, every gradient is `gradient`. `layers`: of one size."""

    name, version = "stub", "0"

    def __init__(
        self,
        loss: float = 1.0,
        gradient: float = 1.0,
        logits: Mapping[int, float] | None = None,
        vocabulary: int = 8,
        seq_len: int = 64,
        layers: int = 3,
    ) -> None:
        self.loss, self.gradient, self.vocabulary, self.seq_len, self.layers = loss, gradient, vocabulary, seq_len, layers
        self.logits = logits or {}

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        size = adapter.size // self.layers
        return StepResult(self.loss, {layer: np.full(size, self.gradient, np.float32) for layer in subset.train})

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        return self.loss

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        logits = np.zeros(self.vocabulary, np.float32)
        for token, value in self.logits.items():
            logits[token] = value
        return logits

    def decoder(self, adapter: Float32Array) -> WholeSequenceDecoder:
        return WholeSequenceDecoder(lambda batch, position: self.next_logits(batch, position, adapter), self.seq_len)


def use_runner(monkeypatch: pytest.MonkeyPatch, runner: StepRunner) -> None:
    """In place of the target's runtime, which the golden trace would find out."""
    monkeypatch.setattr("lcsb_mobile.runs.setup.make_runner", lambda *_: runner)
    monkeypatch.setattr("lcsb_mobile.runs.simulate.check_first_step", lambda *_: None)


def left_behind(directory: Path, name: str) -> list[str]:
    """Files of an output that should not be there, temporary ones included."""
    return [path.name for path in directory.iterdir() if name in path.name]
