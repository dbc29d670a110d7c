"""Recording the golden trace, and holding a runtime to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult, StepRunner
from lcsb_mobile.bundle.golden import LEARNING_RATE, TOLERANCES, GoldenBatch, GoldenStep, GoldenTrace
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import AccuracyLevel, AdamWConfig
from lcsb_mobile.errors import GoldenTraceError, NonFiniteLossError, OptionError
from lcsb_mobile.training.optimizer import AdamW, LayerUpdate, UpdateLayer, update_layer
from lcsb_mobile.training.trainer import TrainConfig, Trainer

TEXT = (
    "The train was late again, so I walked along the canal instead and counted the boats. Two of them had geraniums on the roof. "
    "Somebody was frying onions. By the time I reached the bridge it had started to rain, and I thought of the washing on the line, "
    "and of the letter I still owe you. Here it is, then: nothing much happened, and all of it was fine. "
)

# A program of AdamW is held to its constants by a rate of 1, so that what is added to the parameters is m / (sqrt(v) + eps).
UPDATE_RATE = 1.0
UPDATE_LEAST = 1e-12  # the least gradient; the default eps is 1e-8
UPDATE_TOLERANCE = 1e-5  # relative; square roots are off by a rounding or two in ONNX Runtime before 1.24
UPDATE_NEGLIGIBLE = 1e-30  # where a square of a gradient is not a normal float32 any more


@dataclass(frozen=True)
class TraceDifference:
    """The largest relative differences found."""

    steps: int
    step_loss: float
    step_gradient_norm: float
    run_loss: float


def golden_batches(encode: Callable[[str], list[int]], seq_len: int, count: int) -> tuple[GoldenBatch, ...]:
    """Sequences of real text: two packed segments, the first one's beginning not counted, and some padding."""
    ids = encode(TEXT)
    ids = ids * math.ceil((seq_len + 1 + count) / len(ids))
    first, padding = seq_len // 2, seq_len // 8
    lengths = (first, seq_len - first - padding, padding)
    batches = []
    for offset in range(count):
        window = ids[offset : offset + seq_len + 1]
        labels = window[1:]
        ignored = [*range(first // 3), first - 1, *range(seq_len - padding - 1, seq_len)]
        for position in ignored:
            labels[position] = IGNORED_LABEL
        positions = [p for length in lengths for p in range(length)]
        segments = [s for s, length in enumerate(lengths) for _ in range(length)]
        batches.append(GoldenBatch(tuple(window[:-1]), tuple(labels), tuple(positions), tuple(segments)))
    return tuple(batches)


def single_steps(num_layers: int) -> list[Subset]:
    """Steps that together take every path of a step: all layers; identities above, between and below; a low band, exactly."""
    everything = tuple(range(num_layers))
    return [
        Subset(everything, everything),
        Subset(everything[::2], everything[::2]),
        Subset(everything[:1], everything),
    ]


def record_trace(
    runner: StepRunner,
    adapter: Float32Array,
    slices: Sequence[slice],
    optimizer: AdamWConfig,
    batches: tuple[GoldenBatch, ...],
    steps: Sequence[Subset],
    run: Sequence[Subset],
    progress: Callable[[int, int], None],
    accuracy_level: AccuracyLevel = 0,
) -> GoldenTrace:
    """Computes the trace with `runner`, the eager reference, and sets the tolerances for products of `accuracy_level`.

    `slices`: of each layer's vector. `progress(done, total)` counts steps.
    """
    total = len(steps) + len(run)
    singles = []
    for number, subset in enumerate(steps):
        index = number % len(batches)
        singles.append(_golden_step(subset, index, runner.step(subset, batches[index].batch(), adapter)))
        progress(number + 1, total)
    recorder = _Recorder(runner)
    trainer = Trainer(recorder, run, AdamW(adapter.copy(), slices, optimizer), TrainConfig(steps=len(run), learning_rate=LEARNING_RATE))
    records = []
    for number, subset in enumerate(run):
        index = number % len(batches)
        trainer.step(number, [batches[index].batch()])
        records.append(GoldenStep(subset, index, *recorder.last))
        progress(len(steps) + number + 1, total)
    return GoldenTrace(batches, tuple(singles), LEARNING_RATE, tuple(records), *TOLERANCES[accuracy_level])


def check_first_step(runner: StepRunner, trace: GoldenTrace, adapter: Float32Array) -> TraceDifference:
    """One recorded step, if there is one: what a run checks before it starts. Raises GoldenTraceError."""
    if not trace.run:
        return TraceDifference(0, 0.0, 0.0, 0.0)
    loss, norm = _compare(runner, trace, trace.run[0], adapter)
    difference = TraceDifference(1, loss, norm, loss)
    _hold(runner.name, trace, difference)
    return difference


def check_trace(
    runner: StepRunner,
    trace: GoldenTrace,
    adapter: Float32Array,
    slices: Sequence[slice],
    optimizer: AdamWConfig,
    progress: Callable[[int, int], None],
) -> TraceDifference:
    """Every recorded step, and the run through the trainer. `slices`: of each layer's vector.

    Raises GoldenTraceError with the largest differences."""
    if not trace.run:
        return TraceDifference(0, 0.0, 0.0, 0.0)
    losses, norms, run_losses = [], [], []
    total = len(trace.steps) + len(trace.run)
    for number, step in enumerate((*trace.steps, trace.run[0])):
        loss, norm = _compare(runner, trace, step, adapter)
        losses.append(loss)
        norms.append(norm)
        progress(number + 1, total)
    schedule = [step.subset for step in trace.run]
    trainer = Trainer(
        runner, schedule, AdamW(adapter.copy(), slices, optimizer), TrainConfig(steps=len(schedule), learning_rate=trace.learning_rate)
    )
    for number, step in enumerate(trace.run):
        try:
            outcome = trainer.step(number, [trace.batches[step.batch].batch()])
        except NonFiniteLossError:  # the trainer goes no further; it is the runtime that is at fault, not a learning rate
            run_losses.append(math.inf)
            break
        run_losses.append(_relative(outcome.loss, step.loss))
        progress(min(total, len(trace.steps) + 1 + number), total)
    difference = TraceDifference(total, max(losses), max(norms), max(run_losses))
    _hold(runner.name, trace, difference)
    return difference


def check_update(name: str, update: UpdateLayer, sizes: Iterable[int], config: AdamWConfig) -> None:
    """Holds a runtime's AdamW to the manifest's constants: they stand in the program too, and no loss shows another `eps`. Two updates of a
    vector of each of the `sizes`, with gradients from far below `eps` to 1, against NumPy's; `name`: the runtime's. Raises
    GoldenTraceError."""
    scalars = LayerUpdate(np.float32(1), np.float32(UPDATE_RATE), np.float32(1))
    for size in dict.fromkeys(sizes):
        gradient = np.geomspace(UPDATE_LEAST, 1, size, dtype=np.float32)
        found, expected = np.zeros((2, 3, size), np.float32)
        for _ in range(2):
            for state, compute in ((found, update), (expected, update_layer)):
                compute(state[0], state[1], state[2], gradient, scalars, config)
        for what, x, y in zip(("parameters", "first moment", "second moment"), found, expected, strict=True):
            if not np.allclose(x, y, rtol=UPDATE_TOLERANCE, atol=UPDATE_NEGLIGIBLE):
                raise GoldenTraceError(
                    f"{name}: the program of AdamW does not compute what the manifest's betas and eps give ({what}); do not train with it"
                )


def compare_run_losses(name: str, trace: GoldenTrace, losses: Sequence[float]) -> float:
    """Holds losses of the recorded run that were computed in another way; returns the largest relative difference."""
    difference = max((_relative(found, step.loss) for found, step in zip(losses, trace.run, strict=True)), default=0.0)
    _hold(name, trace, TraceDifference(len(losses), 0.0, 0.0, difference))
    return difference


def compare_runners(
    runner: StepRunner, reference: StepRunner, schedule: Sequence[Subset], trace: GoldenTrace, adapter: Float32Array
) -> tuple[float, float]:
    """One step of every subset on both, element by element: the largest relative difference of the losses, and of the
    gradients relative to each layer's largest element. Raises GoldenTraceError, or OptionError where the trace has no sequence."""
    if not trace.batches:
        raise OptionError("eager: expected a bundle with a golden trace, whose sequences are compared on, found one without")
    losses, gradients = [], []
    batch = trace.batches[0].batch()
    for subset in dict.fromkeys(schedule):
        found, expected = runner.step(subset, batch, adapter), reference.step(subset, batch, adapter)
        losses.append(_relative(found.loss, expected.loss))
        for layer in subset.train:
            error = np.abs(found.gradients[layer] - expected.gradients[layer]).max() / np.abs(expected.gradients[layer]).max()
            gradients.append(float(error) if np.isfinite(error) else math.inf)
    _hold(runner.name, trace, TraceDifference(len(losses), max(losses), max(gradients), 0.0))
    return max(losses), max(gradients)


class _Recorder:
    """Passes steps on, and remembers loss and norms of the last: the trainer clips its gradients in place."""

    def __init__(self, runner: StepRunner) -> None:
        self.name, self.version = runner.name, runner.version
        self.evaluate, self.next_logits, self.decoder = runner.evaluate, runner.next_logits, runner.decoder
        self._step = runner.step
        self.last: tuple[float, tuple[float, ...]] = (math.nan, ())

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        result = self._step(subset, batch, adapter)
        self.last = result.loss, _norms(subset, result)
        return result


def _norms(subset: Subset, result: StepResult) -> tuple[float, ...]:
    return tuple(float(np.linalg.norm(result.gradients[layer])) for layer in subset.train)


def _golden_step(subset: Subset, batch: int, result: StepResult) -> GoldenStep:
    return GoldenStep(subset, batch, result.loss, _norms(subset, result))


def _compare(runner: StepRunner, trace: GoldenTrace, step: GoldenStep, adapter: Float32Array) -> tuple[float, float]:
    found = _golden_step(step.subset, step.batch, runner.step(step.subset, trace.batches[step.batch].batch(), adapter))
    norms = [_relative(f, e) for f, e in zip(found.gradient_norms, step.gradient_norms, strict=True)]
    return _relative(found.loss, step.loss), max(norms)


def _relative(found: float, expected: float) -> float:
    """NaN counts as infinitely far, so that it can never pass."""
    difference = abs(found - expected) / max(abs(expected), 1e-12)
    return difference if math.isfinite(difference) else math.inf


def _hold(name: str, trace: GoldenTrace, difference: TraceDifference) -> None:
    bounds = (
        ("a step's loss", difference.step_loss, trace.step_tolerance),
        ("a gradient's norm", difference.step_gradient_norm, trace.step_tolerance),
        ("the run's losses", difference.run_loss, trace.run_tolerance),
    )
    faults = [f"{what} by {found:.1e} (at most {most:.0e})" for what, found, most in bounds if not found <= most]
    if faults:
        raise GoldenTraceError(f"{name} does not reproduce the bundle's golden trace: {', '.join(faults)}; do not train with it")
