"""Target `coreai` against the reference and the eager runner: laws 1, 2 and 4, evaluation, text, AdamW."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captured import TILE
from helpers.onnxruntime_bundles import DEFAULTS, Exported, MakeExported
from helpers.runners import (
    LOSS_TOLERANCE,
    check_beyond_float16,
    check_evaluation_and_text,
    check_one_counted_label,
    check_steps,
    cycles,
    grown,
    run_losses,
)

from lcsb_mobile.bundle.programs import update_program
from lcsb_mobile.errors import BundleError
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.coreai import CoreAI
from lcsb_mobile.training.optimizer import LayerUpdate, update_layer

pytestmark = pytest.mark.coreai

# Model, bits of blocks, bits of embedding and head, tile.
CASES = [("llama-untied", 8, 4, None), ("qwen2", 4, 8, None), ("qwen3", 4, 4, TILE), ("gemma3", 4, 8, TILE), ("phi3", 4, 8, TILE)]
CASES += [("gemma2", 4, 8, None)]
every_case = pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), CASES)


def open_runner(case: Exported, keep: int = 0) -> BlockRunner:
    return BlockRunner(case.bundle, CoreAI(case.bundle), keep)


@every_case
def test_steps_equal_the_reference(functions: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """Laws 1 and 2, with no layer kept, the top one, and all."""
    case = functions(name, bits, embedding_bits, tile)
    check_steps(case, {keep: open_runner(case, keep) for keep in (0, 1, case.model.config.num_hidden_layers)})


@every_case
def test_evaluation_and_text(functions: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """The loss, logits anywhere, and a text token by token beyond the windows of 5."""
    case = functions(name, bits, embedding_bits, tile)
    check_evaluation_and_text(case, open_runner(case))


@every_case
def test_law_4(functions: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """24 optimizer steps through eight cycles give the eager losses, momentum included; the functions of AdamW give NumPy's bits."""
    case = functions(name, bits, embedding_bits, tile)
    kind, layers = case.model.config.model_type, case.model.config.num_hidden_layers
    steps, batches = cycles(layers, "lcsb-identity")
    layout, runner = case.model.layout, open_runner(case)
    expected, _ = run_losses(case.model.runner(), layout, case.adapter, steps, batches, 1e-3, DEFAULTS)
    found, adapter = run_losses(runner, layout, case.adapter, steps, batches, 1e-3, DEFAULTS, runner.update_layer)
    same, by_numpy = run_losses(runner, layout, case.adapter, steps, batches, 1e-3, DEFAULTS)
    np.testing.assert_allclose(found, expected, rtol=LOSS_TOLERANCE[kind], atol=0)
    assert found == same and adapter.tobytes() == by_numpy.tobytes()


def test_adamw_bit_for_bit(functions: MakeExported) -> None:
    """From 1e-30 to 1e3, and where nothing has been learnt yet."""
    case = functions(*CASES[1])
    runner, size = open_runner(case), case.bundle.manifest.kinds[0].size
    rng = np.random.default_rng(1)
    state = [rng.standard_normal(size).astype(np.float32) * np.float32(10.0) ** rng.integers(-30, 3, size) for _ in range(3)]
    theta, m, g = (x.astype(np.float32) for x in state)
    v = np.abs(m).astype(np.float32)
    m[::7], v[::7] = 0, 0
    scalars = LayerUpdate(decay=np.float32(0.999), rate=np.float32(1e-3), root=np.float32(0.7))
    ours, theirs = ([x.copy() for x in (theta, m, v)] for _ in range(2))
    runner.update_layer(*ours, g, scalars, DEFAULTS)
    update_layer(*theirs, g, scalars, DEFAULTS)
    for found, expected in zip(ours, theirs):
        assert found.tobytes() == expected.tobytes()
    assert update_program("block") in case.bundle.manifest.graphs


def test_kept_values_beyond_float16(functions: MakeExported) -> None:
    case = grown(functions(*CASES[0]), 1)
    check_beyond_float16(case, open_runner(case, 3))


def test_one_counted_label(functions: MakeExported) -> None:
    """With a label of the first chunk of the head, of the rows that the second and the third have both, and of the third alone."""
    case = functions(*CASES[0])
    check_one_counted_label(case, open_runner(case), labels=(7, 85, 130))


def test_bundle_of_another_target_is_refused(programs: MakeExported) -> None:
    bundle = programs("llama", tile=TILE).bundle
    with pytest.raises(BundleError, match="expected a bundle of target coreai, found onnxruntime; export one with --target coreai"):
        CoreAI(bundle)
