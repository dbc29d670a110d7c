"""Law 4 for ONNX Runtime's training API: whole runs, with its own optimizer and with ours."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from helpers.onnxruntime_bundles import DEFAULTS, Exported, MakeExported
from helpers.runners import LOSS_TOLERANCE, cycles, run_losses
from helpers.tiny_models import ARCHITECTURES

from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.schedule import Method, Subset
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner

pytestmark = [pytest.mark.training_api, pytest.mark.usefixtures("small_chunks")]

RATE = 1e-3

OTHERS = AdamWConfig(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3, clip_norm=0.5)


def eager_losses(case: Exported, steps: Sequence[Subset], batches: Sequence[Batch], config: AdamWConfig) -> list[float]:
    return run_losses(case.model.runner(), case.model.layout, case.adapter, steps, batches, RATE, config)[0]


LAW_4 = [
    *((name, "lcsb-identity", DEFAULTS) for name in ARCHITECTURES),
    ("gemma3", "lcsb-exact", DEFAULTS),
    ("llama", "lcsb-identity", OTHERS),
]


@pytest.mark.parametrize(("name", "method", "config"), LAW_4, ids=lambda v: v if isinstance(v, str) else f"eps {v.eps}")
def test_law_4(training_programs: MakeExported, name: str, method: Method, config: AdamWConfig) -> None:
    """The official loop (Module, Optimizer and CheckpointState as they are) gives the losses of the eager runner and AdamW."""
    case = training_programs(name, optimizer=config)
    steps, batches = cycles(case.model.config.num_hidden_layers, method)
    runner = OnnxRuntimeTrainingRunner(case.bundle, threads=1)
    found = runner.official_losses(steps, batches, RATE)
    expected = eager_losses(case, steps, batches, config)
    tolerance = LOSS_TOLERANCE[case.model.config.model_type]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0)
    assert found[-2] < 0.85 * found[0]  # it learns: the same batch as in step 0
    # The implicit updates are seen by this test: without them the losses are others.
    without = eager_losses(case, steps, batches, msgspec.structs.replace(config, implicit_updates="none"))
    assert np.abs(np.array(without) / expected - 1).max() > 100 * tolerance
    runner.options = runner.ort.SessionOptions()  # ONNX Runtime's own, without any setting of ours
    np.testing.assert_allclose(runner.official_losses(steps, batches, RATE), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_law_4_of_the_other_methods(training_programs: MakeExported, method: Method) -> None:
    case = training_programs("qwen2")
    steps, batches = cycles(3, method)
    expected = eager_losses(case, steps, batches, DEFAULTS)
    found = OnnxRuntimeTrainingRunner(case.bundle, threads=1).official_losses(steps, batches, RATE)
    np.testing.assert_allclose(found, expected, rtol=LOSS_TOLERANCE["qwen2"], atol=0)


def test_runner_with_our_adamw_gives_the_same_losses(training_programs: MakeExported) -> None:
    """As the trainer runs it: gradients from Module, the update by `AdamW`."""
    case = training_programs("llama")
    steps, batches = cycles(3, "lcsb-exact")
    runner = OnnxRuntimeTrainingRunner(case.bundle, threads=1)
    found, _ = run_losses(runner, case.model.layout, case.adapter, steps, batches, RATE, DEFAULTS)
    np.testing.assert_allclose(found, eager_losses(case, steps, batches, DEFAULTS), rtol=LOSS_TOLERANCE["llama"], atol=0)
