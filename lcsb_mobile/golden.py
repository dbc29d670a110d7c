"""The golden trace: steps that the eager reference computed at export, which every runtime and every phone is held to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from lcsb_mobile.batch import IGNORED_LABEL, Batch, Float32Array, StepResult, StepRunner
from lcsb_mobile.bounded import one_line, read_bounded, some
from lcsb_mobile.config import AccuracyLevel, Record
from lcsb_mobile.errors import BundleError, GoldenTraceError, NonFiniteLossError, OptionError
from lcsb_mobile.manifest import Manifest
from lcsb_mobile.optimizer import AdamW, AdamWConfig
from lcsb_mobile.schedule import Subset
from lcsb_mobile.trainer import TrainConfig, Trainer

LEARNING_RATE = 1e-3  # of the recorded run
TRACE_BYTES = 16 * 2**20  # that are read: 7 kB are usual, half a megabyte at 8,192 tokens

# Relative. A step's loss and gradient norms differ by float32 rounding alone, about 1e-6 a product chain. Over optimizer steps
# the differences grow: AdamW moves an element whose gradient is all but zero by the sign of its rounding.
STEP_TOLERANCE = 1e-4
RUN_TOLERANCE = 1e-3
# Of bundles whose forward rounds activations to int8. Found on tiny: losses 6e-3, gradient norms 1.4e-2 on x86 and 1.6e-2 on ARM64.
INT8_TOLERANCE = 5e-2

TEXT = (
    "The train was late again, so I walked along the canal instead and counted the boats. Two of them had geraniums on the roof. "
    "Somebody was frying onions. By the time I reached the bridge it had started to rain, and I thought of the washing on the line, "
    "and of the letter I still owe you. Here it is, then: nothing much happened, and all of it was fine. "
)


class GoldenBatch(Record, frozen=True):
    """A `Batch` as data; all of length T."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    position_ids: tuple[int, ...]
    segment_ids: tuple[int, ...]

    def batch(self) -> Batch:
        return Batch(*(np.array(x, np.int64) for x in (self.input_ids, self.labels, self.position_ids, self.segment_ids)))


class GoldenStep(Record, frozen=True):
    """`gradient_norms`: Euclidean norm of the gradient of each layer in `subset.train`, in its order."""

    subset: Subset
    batch: int  # index into GoldenTrace.batches
    loss: float
    gradient_norms: tuple[float, ...]


class GoldenTrace(Record, frozen=True):
    """`steps` are single steps at the initial adapter. `run` are consecutive optimizer steps from it, at `learning_rate` and
    with the manifest's AdamW; each records loss and gradient before its update. The tolerances are relative: of a step's loss and
    gradient norms, and of the run's losses."""

    batches: tuple[GoldenBatch, ...]
    steps: tuple[GoldenStep, ...]
    learning_rate: float
    run: tuple[GoldenStep, ...]
    step_tolerance: float = STEP_TOLERANCE
    run_tolerance: float = RUN_TOLERANCE


NO_TRACE = GoldenTrace((), (), LEARNING_RATE, ())  # of random weights, which are measured and hold a runtime to nothing


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


def record_trace(
    runner: StepRunner,
    adapter: Float32Array,
    optimizer: AdamWConfig,
    batches: tuple[GoldenBatch, ...],
    steps: Sequence[Subset],
    run: Sequence[Subset],
    progress: Callable[[int, int], None],
    accuracy_level: AccuracyLevel = 0,
) -> GoldenTrace:
    """Computes the trace with `runner`, the eager reference, and sets the tolerances for products of `accuracy_level`.

    `progress(done, total)` counts steps.
    """
    total = len(steps) + len(run)
    singles = []
    for number, subset in enumerate(steps):
        index = number % len(batches)
        singles.append(_golden_step(subset, index, runner.step(subset, batches[index].batch(), adapter)))
        progress(number + 1, total)
    recorder = _Recorder(runner)
    trainer = Trainer(recorder, run, AdamW(adapter.copy(), optimizer), TrainConfig(steps=len(run), learning_rate=LEARNING_RATE))
    records = []
    for number, subset in enumerate(run):
        index = number % len(batches)
        trainer.step(number, [batches[index].batch()])
        records.append(GoldenStep(subset, index, *recorder.last))
        progress(len(steps) + number + 1, total)
    tolerances = (INT8_TOLERANCE, INT8_TOLERANCE) if accuracy_level else (STEP_TOLERANCE, RUN_TOLERANCE)
    return GoldenTrace(batches, tuple(singles), LEARNING_RATE, tuple(records), *tolerances)


def read_trace(path: Path) -> GoldenTrace:
    try:
        return msgspec.json.decode(read_bounded(path, TRACE_BYTES), type=GoldenTrace)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not a readable golden trace ({one_line(error)}); export the bundle again") from error


def check_fits(trace: GoldenTrace, manifest: Manifest, path: Path) -> None:
    """Raises BundleError unless the trace's sequences and steps are of the manifest's model, and its tolerances among those in use."""
    faults = [f"batch {number}: {fault}" for number, batch in enumerate(trace.batches) for fault in _batch_faults(batch, manifest)]
    for number, step in enumerate((*trace.steps, *trace.run)):
        try:
            step.subset.check(manifest.model.num_hidden_layers)
        except OptionError as error:
            faults.append(f"step {number}: {error}")
        if not 0 <= step.batch < len(trace.batches):
            faults.append(f"step {number}: expected one of {len(trace.batches)} batches, found {step.batch}")
        if len(step.gradient_norms) != len(step.subset.train) or not all(norm >= 0 for norm in step.gradient_norms):
            faults.append(f"step {number}: expected the norms of {len(step.subset.train)} layers, found {list(step.gradient_norms)}")
    if not 0 < trace.learning_rate <= 1:
        faults.append(f"learning_rate: expected more than 0 and at most 1, found {trace.learning_rate}")
    for name in ("step_tolerance", "run_tolerance"):
        if not 0 <= getattr(trace, name) <= INT8_TOLERANCE:
            faults.append(f"{name}: expected 0 to {INT8_TOLERANCE}, found {getattr(trace, name)}")
    if faults:
        raise BundleError(f"{path}: not a golden trace of this bundle: {some(faults)}; export the bundle again")


def _batch_faults(batch: GoldenBatch, manifest: Manifest) -> Iterator[str]:
    tokens, vocabulary = manifest.seq_len, manifest.model.vocab_size
    for name, most in (("input_ids", vocabulary), ("labels", vocabulary), ("position_ids", tokens), ("segment_ids", tokens)):
        values = getattr(batch, name)
        if len(values) != tokens:
            yield f"{name}: expected {tokens} numbers, found {len(values)}"
        elif not all(0 <= value < most or (name == "labels" and value == IGNORED_LABEL) for value in values):
            yield f"{name}: expected 0 to {most - 1}, found {min(values)} to {max(values)}"
    if all(label == IGNORED_LABEL for label in batch.labels):
        yield "labels: none is counted"


def write_trace(path: Path, trace: GoldenTrace) -> None:
    path.write_bytes(msgspec.json.encode(trace) + b"\n")


def check_first_step(runner: StepRunner, trace: GoldenTrace, adapter: Float32Array) -> TraceDifference:
    """One recorded step, if there is one: what a run checks before it starts. Raises GoldenTraceError."""
    if not trace.run:
        return TraceDifference(0, 0.0, 0.0, 0.0)
    loss, norm = _compare(runner, trace, trace.run[0], adapter)
    difference = TraceDifference(1, loss, norm, loss)
    _hold(runner.name, trace, difference)
    return difference


def check_trace(
    runner: StepRunner, trace: GoldenTrace, adapter: Float32Array, optimizer: AdamWConfig, progress: Callable[[int, int], None]
) -> TraceDifference:
    """Every recorded step, and the run through the trainer. Raises GoldenTraceError with the largest differences."""
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
        runner, schedule, AdamW(adapter.copy(), optimizer), TrainConfig(steps=len(schedule), learning_rate=trace.learning_rate)
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
