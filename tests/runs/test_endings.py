"""Whatever ends a run but SIGKILL leaves the last adapter that was seen to give a finite loss, and progress is never worth a run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundles import RandomBundle, StubRunner, use_runner

import lcsb_mobile.runs.session as session_module
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.batch import Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import NonFiniteLossError, RunCheckpointError
from lcsb_mobile.runs.checkpoint import checkpoint_files, read_checkpoint
from lcsb_mobile.runs.setup import Observer, SimulateOptions
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.training.interrupts import SIGNALS, Interrupted


@pytest.fixture
def options(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> SimulateOptions:
    return SimulateOptions(random_bundle.bundle, messages, steps=4, adapter=tmp_path / "adapter.safetensors", threads=1, learning_rate=0.01)


def saved(options: SimulateOptions) -> Float32Array:
    return load_adapter(options.adapter, Bundle.open(options.bundle).manifest.adapter)


class Failing(StubRunner):
    """At its step number `at` (from 0) it does what `failure` yields."""

    def __init__(self, at: int, failure: BaseException | float) -> None:
        super().__init__()
        self.at, self.failure, self.count = at, failure, 0

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        self.count += 1
        if self.count <= self.at:
            return super().step(subset, batch, adapter)
        if isinstance(self.failure, BaseException):
            raise self.failure
        return StepResult(self.failure, super().step(subset, batch, adapter).gradients)


@pytest.mark.parametrize(
    ("failure", "expected", "left"),
    [
        (math.nan, NonFiniteLossError, 1),  # what step 2 made gives no finite loss
        (OSError("a disk"), OSError, 1),  # nobody knows what it gives
        (KeyboardInterrupt(), KeyboardInterrupt, 2),  # it is looked at once more
    ],
)
def test_the_last_adapter_that_gave_a_finite_loss_is_kept(
    options: SimulateOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException | float,
    expected: type[BaseException],
    left: int,
) -> None:
    whole = dataclasses.replace(options, steps=left, adapter=tmp_path / "whole")
    use_runner(monkeypatch, StubRunner())
    simulate(whole)
    use_runner(monkeypatch, Failing(2, failure))
    with pytest.raises(expected, match="step 3.* the adapter after step 1, the last" if expected is NonFiniteLossError else None):
        simulate(options)
    np.testing.assert_array_equal(saved(options), saved(whole))


class Breaking(StubRunner):
    """Of an adapter that was updated at least `at` times its losses are NaN."""

    def __init__(self, at: int, rate: float) -> None:
        super().__init__()
        self.broken = (at - 0.5) * rate  # gradients of 1 move every parameter down by the rate

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        self.first = getattr(self, "first", adapter.copy())
        return math.nan if (self.first - adapter).max() > self.broken else 1.0

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        return StepResult(self.evaluate(batch, adapter), super().step(subset, batch, adapter).gradients)


@pytest.mark.parametrize(("broken", "every"), [(1, 1), (3, 1), (4, 9), (5, 9)])
def test_a_broken_adapter_is_kept_nowhere(
    options: SimulateOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int, every: int
) -> None:
    """By its first, third and fourth of five updates, and the last, which the evaluation after it alone can tell. A lower rate goes on."""
    options = dataclasses.replace(options, steps=5, learning_rate=0.01, method="full", checkpoint_directory=tmp_path / "run")
    options = dataclasses.replace(options, checkpoint_every=every)
    whole = dataclasses.replace(options, steps=broken - 1, adapter=tmp_path / "whole", checkpoint_directory=None)
    use_runner(monkeypatch, StubRunner())
    if broken > 1:
        simulate(whole)
    use_runner(monkeypatch, Breaking(broken, 0.01))
    with pytest.raises(NonFiniteLossError, match=f"the adapter after step {broken - 1}, the last that was seen to give a finite loss"):
        simulate(options)
    good = Bundle.open(options.bundle).initial_adapter() if broken == 1 else saved(whole)
    np.testing.assert_array_equal(saved(options), good)
    newest, *_ = [read_checkpoint(file, Bundle.open(options.bundle).manifest.adapter) for file in checkpoint_files(tmp_path / "run")]
    assert newest.place.step == len(newest.steps) == broken - 1 and newest.updates.tolist() == [broken - 1] * 3
    np.testing.assert_array_equal(newest.state.adapter, good)

    use_runner(monkeypatch, Breaking(broken, 0.01))
    for refused in (None, 0.02):  # its own default is no wish for it
        with pytest.raises(RunCheckpointError, match="learning_rate: 0.01 then"):
            simulate(dataclasses.replace(options, resume=True, learning_rate=refused))
    result = simulate(dataclasses.replace(options, resume=True, learning_rate=1e-4)).result
    assert result.resumed_from == broken - 1 and len(result.losses) == 5 and result.learning_rate == 1e-4


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_an_update_that_cannot_be_trained_on_is_not_kept(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient whose square is no float32 makes a second moment infinite, and its parameter stay for ever; a rate beyond all sense makes
    an adapter that no float16 can hold. Losses would go on."""
    for stub, rate, fault in ((StubRunner(gradient=1e25), 0.01, "a second moment of inf"), (StubRunner(), 1e6, r"a parameter of 1e\+06")):
        use_runner(monkeypatch, stub)
        monkeypatch.setattr("lcsb_mobile.training.trainer.clip_gradients", lambda *_: None)
        with pytest.raises(NonFiniteLossError, match=f"step 1: its update would make {fault}; .* after step 0"):
            simulate(dataclasses.replace(options, learning_rate=rate, force=True))
        np.testing.assert_array_equal(saved(options), Bundle.open(options.bundle).initial_adapter())


def test_nothing_begins_with_a_loss_that_is_not_finite(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    use_runner(monkeypatch, StubRunner(loss=math.inf))
    with pytest.raises(NonFiniteLossError, match="step 0: .* begin with another adapter"):
        simulate(options)
    assert not options.adapter.exists()


def test_a_lost_interrupt_is_raised_again(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised where Python drops what is raised, and then twice more while the adapter is written: one signal's worth of ending."""

    class Dropping(StubRunner):
        def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            return super().step(subset, batch, adapter)

    def impatient(*arguments: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        save_adapter(*arguments)

    use_runner(monkeypatch, Dropping())
    monkeypatch.setattr(session_module, "save_adapter", impatient)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted, match="SIGTERM"):
        simulate(options)
    assert saved(options).any() and [signal.getsignal(number) for number in SIGNALS] == handlers


def test_progress_is_never_worth_a_run(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of it is lost: nobody reads it any more, or the log's disk is full."""
    told: list[str] = []

    class Broken(Observer):
        def __getattribute__(self, name: str) -> Any:
            def fail(*_: object) -> None:
                told.append(name)
                raise BrokenPipeError

            return fail

    use_runner(monkeypatch, StubRunner())
    simulate(options, Broken())
    assert set(told) == {"phase", "data", "numbers", "evaluated", "stepped", "saved"} and saved(options).any()


def test_the_adapter_is_kept_when_text_samples_fail(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come last; nothing that goes wrong with them may cost the training."""
    calls: Iterator[int] = iter(range(9))

    def interrupted(*_: object) -> list[str]:
        if next(calls):
            raise KeyboardInterrupt
        return ["before"]

    monkeypatch.setattr(session_module, "continue_prompt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(dataclasses.replace(options, prompts=("the ",)))
    assert saved(options).any()
