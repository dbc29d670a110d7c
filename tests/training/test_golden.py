"""The golden trace: what it records, and that nothing that computes something else passes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers import hostile
from helpers.bundles import RandomBundle

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import RUN_TOLERANCE, STEP_TOLERANCE, GoldenTrace, read_trace
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.errors import BundleError, GoldenTraceError
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.eager import EagerRunner
from lcsb_mobile.runners import layer_update, make_runner
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.runs.verify import verify
from lcsb_mobile.training.golden import (
    check_first_step,
    check_trace,
    check_update,
    compare_run_losses,
    compare_runners,
    golden_batches,
    record_trace,
)
from lcsb_mobile.training.optimizer import update_layer


@pytest.fixture(scope="module")
def bundle(random_bundle: RandomBundle) -> Bundle:
    return Bundle.open(random_bundle.bundle)


@pytest.fixture(scope="module")
def eager(bundle: Bundle) -> EagerRunner:
    return EagerRunner(model_of(bundle.manifest.model), bundle.manifest.adapter, bundle.weights)


@pytest.fixture(scope="module")
def trace(bundle: Bundle) -> GoldenTrace:
    return read_trace(bundle.golden_path)


class Perturbed:
    """Another runner's steps, changed: the loss times `loss`, gradients times `gradient`, from step number `since` on."""

    name, version = "perturbed", "0"

    def __init__(self, runner: StepRunner, loss: float = 1.0, gradient: float = 1.0, layer: int | None = None, since: int = 0) -> None:
        self.runner, self.loss, self.gradient, self.layer, self.since = runner, loss, gradient, layer, since
        self.count = 0

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        result = self.runner.step(subset, batch, adapter)
        self.count += 1
        if self.count <= self.since:
            return result
        changed = {
            layer: gradient * np.float32(self.gradient) if self.layer in (None, layer) else gradient
            for layer, gradient in result.gradients.items()
        }
        return StepResult(result.loss * self.loss, changed)

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        return self.runner.evaluate(batch, adapter)

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        return self.runner.next_logits(batch, position, adapter)


def check(runner: StepRunner, bundle: Bundle, trace: GoldenTrace) -> None:
    manifest = bundle.manifest
    check_trace(runner, trace, bundle.initial_adapter(), manifest.adapter.slices, manifest.optimizer, lambda done, total: None)


def test_the_reference_reproduces_its_own_trace(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace) -> None:
    """Bit for bit: the same machine, the same arithmetic; and the adapter that it is given is not written to."""
    adapter, slices, optimizer = bundle.initial_adapter(), bundle.manifest.adapter.slices, bundle.manifest.optimizer
    counts: list[tuple[int, int]] = []
    difference = check_trace(eager, trace, adapter, slices, optimizer, lambda done, total: counts.append((done, total)))
    assert max(difference.step_loss, difference.step_gradient_norm, difference.run_loss) <= 1e-6
    assert counts[-1][0] == counts[-1][1] == difference.steps
    np.testing.assert_array_equal(adapter, bundle.initial_adapter())


def test_what_is_recorded(bundle: Bundle, trace: GoldenTrace) -> None:
    """Two whole cycles of the schedule, and single steps that have identities above, between and below."""
    schedule = list(bundle.manifest.schedule)
    assert [step.subset for step in trace.run] == schedule * 2
    assert any(set(step.subset.propagate) > set(step.subset.train) for step in trace.steps)
    assert any(step.subset.train == step.subset.propagate == (0, 2) for step in trace.steps)
    assert len({step.loss for step in trace.run}) == len(trace.run)
    assert all(len(step.gradient_norms) == len(step.subset.train) and min(step.gradient_norms) > 0 for step in (*trace.steps, *trace.run))


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        ({"loss": 1.001}, "a step's loss"),
        ({"loss": math.nan}, "a step's loss"),
        ({"loss": math.inf}, "a step's loss"),
        ({"gradient": 1.001}, "a gradient's norm"),
        ({"gradient": 0.999}, "a gradient's norm"),
        ({"gradient": math.nan}, "a gradient's norm"),
        ({"gradient": 0.0}, "a gradient's norm"),
    ],
)
def test_a_runner_that_is_off_fails(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace, changes: dict[str, float], blamed: str) -> None:
    """By one part in a thousand, or with NaN."""
    with pytest.raises(GoldenTraceError, match=blamed):
        check(Perturbed(eager, **changes), bundle, trace)
    with pytest.raises(GoldenTraceError, match=blamed):
        check_first_step(Perturbed(eager, **changes), trace, bundle.initial_adapter())


def test_one_layer_that_is_off_fails(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace) -> None:
    with pytest.raises(GoldenTraceError, match="a gradient's norm"):
        check(Perturbed(eager, gradient=1.001, layer=1), bundle, trace)


@pytest.mark.parametrize("gradient", [-1.0, math.nan])
def test_a_run_that_is_off_fails(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace, gradient: float) -> None:
    """Norms do not see a gradient's sign, and the single steps pass; the run's losses do not."""
    single = len(trace.steps) + 1
    with pytest.raises(GoldenTraceError, match="the run's losses"):
        check(Perturbed(eager, gradient=gradient, since=single), bundle, trace)


def test_differences_within_the_tolerance_pass(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace) -> None:
    difference = check_first_step(Perturbed(eager, loss=1 + STEP_TOLERANCE / 2), trace, bundle.initial_adapter())
    assert difference.step_loss == pytest.approx(STEP_TOLERANCE / 2, rel=0.05)


def test_compare_runners(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace) -> None:
    """Element by element, so that a wrong sign is seen too."""
    schedule, adapter = bundle.manifest.schedule, bundle.initial_adapter()
    assert compare_runners(eager, eager, schedule, trace, adapter) == (0.0, 0.0)
    for changes in ({"loss": 1.001}, {"gradient": 1.001}, {"gradient": -1.0}, {"gradient": math.nan}, {"loss": math.nan}):
        with pytest.raises(GoldenTraceError):
            compare_runners(Perturbed(eager, **changes), eager, schedule, trace, adapter)


def test_compare_run_losses(trace: GoldenTrace) -> None:
    losses = [step.loss for step in trace.run]
    assert compare_run_losses("loop", trace, losses) == 0
    for last in (losses[-1] * (1 + 2 * RUN_TOLERANCE), math.nan):
        with pytest.raises(GoldenTraceError, match="loop does not reproduce"):
            compare_run_losses("loop", trace, [*losses[:-1], last])
    with pytest.raises(ValueError, match="zip"):
        compare_run_losses("loop", trace, losses[:-1])


def test_batches() -> None:
    """Two segments and padding; labels are the next tokens within a segment; the beginning and the padding are not counted."""
    batches = golden_batches(lambda text: [ord(letter) for letter in text], 40, 2)
    assert batches[0] != batches[1] and len(batches) == 2
    for golden in batches:
        batch = golden.batch()
        assert all(array.shape == (40,) and array.dtype == np.int64 for array in (batch.input_ids, batch.labels))
        assert [int(np.count_nonzero(batch.segment_ids == segment)) for segment in range(3)] == [20, 15, 5]
        assert batch.position_ids.tolist() == [*range(20), *range(15), *range(5)]
        for at in np.flatnonzero(batch.labels != IGNORED_LABEL):
            assert batch.labels[at] == batch.input_ids[at + 1] and batch.segment_ids[at] == batch.segment_ids[at + 1] < 2
        assert (batch.labels[:6] == IGNORED_LABEL).all() and batch.counted_labels > 20
    assert len(golden_batches(lambda text: [1, 2], 40, 1)[0].input_ids) == 40  # a tokenizer of long tokens: the text repeats


def test_recording_leaves_the_adapter(bundle: Bundle, eager: EagerRunner, trace: GoldenTrace) -> None:
    adapter = bundle.initial_adapter()
    subsets, slices = bundle.manifest.schedule, bundle.manifest.adapter.slices
    again = record_trace(eager, adapter, slices, AdamWConfig(), trace.batches, [subsets[0]], subsets, lambda done, total: None)
    np.testing.assert_array_equal(adapter, bundle.initial_adapter())
    assert [step.subset for step in again.run] == list(subsets)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"batches": 3}'])
def test_an_unreadable_trace(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.json").write_bytes(content)
    with pytest.raises(BundleError, match="not a readable golden trace"):
        read_trace(tmp_path / "golden.json")


@pytest.mark.parametrize(("eps", "betas"), [(1e-7, (0.9, 0.999)), (1.1e-8, (0.9, 0.999)), (1e-8, (0.901, 0.999)), (1e-8, (0.9, 0.9991))])
def test_constants_of_a_program_are_the_manifests(bundle: Bundle, eps: float, betas: tuple[float, float]) -> None:
    """`adamw.onnx` has the manifest's; a manifest of other ones is held to the program."""
    update, sizes = layer_update(make_runner(bundle)), bundle.manifest.adapter.sizes
    check_update("onnxruntime", update, sizes, bundle.manifest.optimizer)
    other = msgspec.structs.replace(bundle.manifest.optimizer, eps=eps, betas=betas)
    with pytest.raises(GoldenTraceError, match="the program of AdamW does not compute"):
        check_update("onnxruntime", update, sizes, other)
    check_update("numpy", update_layer, sizes, other)


def test_verify_and_a_run_hold_them(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(random_bundle.bundle, tmp_path / "bundle"))
    hostile.edit(changed, hostile.put("optimizer.eps", 1e-7))
    with pytest.raises(GoldenTraceError, match="betas and eps"):
        verify(changed)
    with pytest.raises(GoldenTraceError, match="betas and eps"):
        simulate(SimulateOptions(changed, messages, steps=1, adapter=tmp_path / "adapter"))
