"""An interrupt within a step's update comes after it, so that what is saved is a whole step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.bundles import StubRunner
from helpers.tiny_models import packed_batch

from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.training.interrupts import uninterrupted
from lcsb_mobile.training.optimizer import AdamW, update_layer
from lcsb_mobile.training.trainer import StepOutcome, TrainConfig, Trainer


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """A shell starts what runs in the background with SIGINT ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_an_interrupt_waits_for_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")
        done.append("not this")
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_an_interrupt_nothing_happens() -> None:
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_within_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_gets_no_signals() -> None:
    done: list[bool] = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_step_is_recorded_with_its_update() -> None:
    """The person presses Ctrl-C while the first of three layers is updated: all are, and the step is recorded, then it stops."""

    def update(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        update_layer(*arguments)  # type: ignore[arg-type]

    recorded: list[StepOutcome] = []
    optimizer = AdamW(np.ones(12, np.float32), [slice(0, 4), slice(4, 8), slice(8, 12)], AdamWConfig(), update)
    trainer = Trainer(StubRunner(), [Subset((0, 1, 2), (0, 1, 2))], optimizer, TrainConfig(1, 0.1), recorded.append)
    with pytest.raises(KeyboardInterrupt):
        trainer.step(0, [packed_batch()])
    assert (optimizer.updates == 1).all() and (optimizer.adapter != 1).all()
    assert [outcome.step for outcome in recorded] == [1]
