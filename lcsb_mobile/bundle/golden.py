"""The golden trace: steps that the eager reference computed at export, which every runtime and every phone is held to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import HALF_PRODUCTS, INT8_ACTIVATIONS, AccuracyLevel, Record
from lcsb_mobile.errors import BundleError, OptionError
from lcsb_mobile.io.bounded import one_line, read_bounded, some

LEARNING_RATE = 1e-3  # of the recorded run
TRACE_BYTES = 16 * 2**20  # that are read: 7 kB are usual, half a megabyte at 8,192 tokens

# Relative. A step's loss and gradient norms differ by float32 rounding alone, about 1e-6 a product chain. Over optimizer steps
# the differences grow: AdamW moves an element whose gradient is all but zero by the sign of its rounding.
STEP_TOLERANCE = 1e-4
RUN_TOLERANCE = 1e-3
# Of bundles whose forward rounds activations to int8. Found on tiny: losses 6e-3, gradient norms 1.4e-2 on x86 and 1.6e-2 on ARM64.
INT8_TOLERANCE = 5e-2
# Of bundles whose products are in float16. Found on tiny with Core AI's desktop build, which sums in float16 too: losses 1.3e-3, gradient
# norms 1.2e-2.
HALF_TOLERANCE = 5e-2
TOLERANCES: dict[AccuracyLevel, tuple[float, float]] = {
    0: (STEP_TOLERANCE, RUN_TOLERANCE),
    HALF_PRODUCTS: (HALF_TOLERANCE, HALF_TOLERANCE),
    INT8_ACTIVATIONS: (INT8_TOLERANCE, INT8_TOLERANCE),
}


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
