"""The exporter and runner of ONNX Runtime's training API against the eager runner: law 2, and what is refused."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from helpers.captured import MakeModelGraphs
from helpers.onnxruntime_bundles import DEFAULTS, Exported, MakeExported, export_tiny
from helpers.runners import TOLERANCE, some_subsets
from helpers.tiny_models import WITH_STEP_GRAPHS, assert_steps_equal, make_tiny, packed_batch, subset

from lcsb_mobile.errors import MissingDependencyError, OptionError
from lcsb_mobile.export.onnx import step_graph
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.runners.onnxruntime_training import PARAMETER, OnnxRuntimeTrainingRunner, batch_inputs, import_runtime, subset_inputs

pytestmark = [pytest.mark.training_api, pytest.mark.usefixtures("small_chunks")]


def open_runner(case: Exported) -> OnnxRuntimeTrainingRunner:
    return OnnxRuntimeTrainingRunner(case.bundle, threads=1)


# Steps


@pytest.mark.parametrize(("name", "bits"), WITH_STEP_GRAPHS, ids=str)
def test_steps_equal_the_eager_runner(training_programs: MakeExported, name: str, bits: tuple[int, int]) -> None:
    case = training_programs(name, *bits)
    runner, eager, tolerance = open_runner(case), case.model.runner(), TOLERANCE[case.model.config.model_type]
    for seed, step in enumerate(some_subsets(case.model.config.num_hidden_layers)):
        batch, adapter = packed_batch(seed), case.model.adapter(seed)
        found = runner.step(step, batch, adapter)
        assert set(found.gradients) == set(step.train)
        assert_steps_equal(found, eager.step(step, batch, adapter), tolerance)


@pytest.mark.parametrize(("name", "bits"), WITH_STEP_GRAPHS, ids=str)
def test_evaluate_and_logits_equal_the_eager_runner(training_programs: MakeExported, name: str, bits: tuple[int, int]) -> None:
    case = training_programs(name, *bits)
    runner, eager = open_runner(case), case.model.runner()
    batch, adapter = packed_batch(5), case.model.adapter(5)
    assert runner.evaluate(batch, adapter) == pytest.approx(eager.evaluate(batch, adapter), rel=1e-6)
    for position in (0, 6, 15):
        found, expected = runner.next_logits(batch, position, adapter), eager.next_logits(batch, position, adapter)
        assert found.shape == (case.model.config.vocab_size,)
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * float(np.abs(expected).max()))


def test_gradients_of_untrained_layers_are_exactly_zero(training_programs: MakeExported) -> None:
    case = training_programs("gemma3")
    runner = open_runner(case)
    runner.step(subset([0, 1, 2, 3]), packed_batch(), case.adapter)
    runner.step(subset([1], [2]), packed_batch(), case.adapter)
    gradient = runner.state.parameters[PARAMETER].grad
    assert [bool(gradient[layer].any()) for layer in range(4)] == [False, True, False, False]


def test_steps_do_not_depend_on_each_other(training_programs: MakeExported) -> None:
    """Nothing is left over from an evaluation, another subset or another adapter, and the result is not overwritten."""
    case = training_programs("llama")
    runner = open_runner(case)
    first = runner.step(subset([1, 2]), packed_batch(), case.adapter)
    kept = {layer: gradient.copy() for layer, gradient in first.gradients.items()}
    runner.step(subset([0]), packed_batch(1), case.adapter + 1)
    runner.evaluate(packed_batch(2), case.adapter - 1)
    again = runner.step(subset([1, 2]), packed_batch(), case.adapter)
    assert again.loss == first.loss
    for layer, gradient in kept.items():
        assert np.array_equal(gradient, first.gradients[layer])
        assert np.array_equal(gradient, again.gradients[layer])


def test_vocabulary_in_one_chunk(model_graphs: MakeModelGraphs, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graph, "head_rows", lambda hidden_size: 4096)
    case = export_tiny(make_tiny(tmp_path, "qwen2-untied"), model_graphs("qwen2-untied"), DEFAULTS)
    step, batch = subset([0, 1, 2]), packed_batch()
    assert_steps_equal(open_runner(case).step(step, batch, case.adapter), case.model.runner().step(step, batch, case.adapter), 6e-6)


def test_gradients_accumulate(training_programs: MakeExported) -> None:
    """Without `lazy_reset_grad` the next gradient is added, whichever layers it has."""
    case = training_programs("llama")
    runner, eager = open_runner(case), case.model.runner()
    steps = [(subset([0, 1, 2]), packed_batch(0)), (subset([1], [2]), packed_batch(1)), (subset([0, 2]), packed_batch(2))]
    expected = np.zeros((3, case.model.layout.sizes[0]), np.float32)
    runner.step(*steps[0], case.adapter)  # resets, then computes
    for number, (step, batch) in enumerate(steps):
        if number > 0:
            runner.module(*batch_inputs(batch), *subset_inputs(step, 3))
        for layer, gradient in eager.step(step, batch, case.adapter).gradients.items():
            expected[layer] += gradient
    found = runner.state.parameters[PARAMETER].grad
    assert np.abs(found - expected).max() <= 6e-6 * np.abs(expected).max()
    runner.step(*steps[2], case.adapter)
    assert not runner.state.parameters[PARAMETER].grad[1].any()  # the reset forgets


# Refusals


def test_bad_subset_is_refused(training_programs: MakeExported) -> None:
    case = training_programs("llama")
    with pytest.raises(OptionError, match="layers from 0 to 2"):
        open_runner(case).step(subset([3]), packed_batch(), case.adapter)


def test_missing_runtime(model_graphs: MakeModelGraphs, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: Any = None
    monkeypatch.setitem(sys.modules, "onnxruntime.training", hidden)
    with pytest.raises(MissingDependencyError, match=re.escape(how_to_install("onnxruntime-training"))):
        import_runtime()
    with pytest.raises(MissingDependencyError, match=re.escape(how_to_install("onnxruntime-training"))):
        export_tiny(make_tiny(tmp_path, "llama"), model_graphs("llama"), DEFAULTS)
