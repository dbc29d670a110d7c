"""The training loop: schedule, AdamW, learning rate, accumulation, clipping, evaluation. It knows no runtime."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch, StepRunner
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import Record
from lcsb_mobile.errors import NonFiniteLossError
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.training.interrupts import uninterrupted
from lcsb_mobile.training.optimizer import AdamW, LearningRateSchedule, clip_gradients, gradient_norm, learning_rate


class TrainConfig(Record, frozen=True):
    """`learning_rate`: the highest of the run. `accumulation`: sequences a step."""

    steps: int
    learning_rate: float
    lr_schedule: LearningRateSchedule = "constant"
    warmup: int = 0
    accumulation: int = 1

    def check(self) -> None:
        check_ranges({"steps": self.steps, "accumulation": self.accumulation, "warmup": self.warmup, "lr": self.learning_rate})


@dataclass(frozen=True)
class StepOutcome:
    """One optimizer step. `loss`: mean over all counted labels of its batches, before the update. `gradient_norm`: before
    clipping. Seconds: `gradient_seconds` in the runtime, `optimizer_seconds` in AdamW."""

    step: int
    subset: Subset
    loss: float
    learning_rate: float
    gradient_norm: float
    gradient_seconds: float
    optimizer_seconds: float


class Trainer:
    """Trains `optimizer.adapter` in place, one step at a time. `accept` is called before an update: the adapter as it is has given a finite
    loss. `record` is told of each step together with its update: an interrupt comes before both or after both."""

    def __init__(
        self,
        runner: StepRunner,
        schedule: Sequence[Subset],
        optimizer: AdamW,
        config: TrainConfig,
        record: Callable[[StepOutcome], None] = lambda outcome: None,
        accept: Callable[[], None] = lambda: None,
    ) -> None:
        config.check()
        self.runner, self.schedule, self.optimizer, self.config = runner, schedule, optimizer, config
        self.record, self.accept = record, accept
        self._trainable = {layer for subset in schedule for layer in subset.train}

    def step(self, number: int, batches: Sequence[Batch]) -> StepOutcome:
        """Step `number` (from 0) on `config.accumulation` sequences.

        Raises NonFiniteLossError: before anything was updated, when the loss or the gradient is NaN or infinite; after the update, when
        what it made cannot be trained on (`AdamW.fault`).
        """
        subset = self.schedule[number % len(self.schedule)]
        started = time.perf_counter()
        loss, gradients = self._gradients(subset, batches)
        norm = gradient_norm(gradients)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteLossError(
                f"step {number + 1}: the loss is {loss} and the gradient's norm {norm}; nothing was updated by it; "
                "try a lower learning rate"
            )
        computed = time.perf_counter()
        rate = learning_rate(self.config.learning_rate, self.config.lr_schedule, number, self.config.steps, self.config.warmup)
        self.accept()
        updating = time.perf_counter()
        clip_gradients(gradients, norm, self.optimizer.config.clip_norm)
        with uninterrupted():
            self.optimizer.update(gradients, rate, self._trainable)
            if (fault := self.optimizer.fault()) is not None:
                raise NonFiniteLossError(f"step {number + 1}: its update would make {fault}; try a lower learning rate")
            outcome = StepOutcome(number + 1, subset, loss, rate, norm, computed - started, time.perf_counter() - updating)
            self.record(outcome)
        return outcome

    def _gradients(self, subset: Subset, batches: Sequence[Batch]) -> tuple[float, dict[int, Float32Array]]:
        """Mean over all counted labels of `batches`: each batch's mean weighs as many labels as it counts."""
        counts = [batch.counted_labels for batch in batches]
        loss = 0.0
        gradients: dict[int, Float32Array] = {}
        for batch, count in zip(batches, counts, strict=True):
            result = self.runner.step(subset, batch, self.optimizer.adapter)
            weight = count / sum(counts)
            loss += weight * result.loss
            for layer, gradient in result.gradients.items():
                scaled = gradient if weight == 1 else gradient * gradient.dtype.type(weight)
                gradients[layer] = gradients[layer] + scaled if layer in gradients else scaled
        return loss, gradients


def evaluate(runner: StepRunner, batches: Sequence[Batch], adapter: Float32Array) -> float:
    """Mean loss over all counted labels."""
    counts = [batch.counted_labels for batch in batches]
    return sum(count * runner.evaluate(batch, adapter) for count, batch in zip(counts, batches, strict=True)) / sum(counts)
