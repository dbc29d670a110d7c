"""Target `executorch` against the reference and the eager runner: laws 1, 2 and 4, evaluation, text; where values lie; refusals."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
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
from helpers.tiny_models import packed_batch, subset
from torch import Tensor

from lcsb_mobile.errors import BundleError, OptionError
from lcsb_mobile.export.executorch.modules import Chunks
from lcsb_mobile.export.executorch.program import exported, write_program
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.executorch import ExecuTorch, import_runtime
from lcsb_mobile.targets import PTE_FILE

# Model, bits of blocks, bits of embedding and head, tile. An export takes half a minute, so each kind of computation is here once: Mistral
# and Qwen 2 have Gemma 2's windows, Granite and SmolLM3 no operator of their own, nor Qwen 3 and Gemma 3, whose normed queries and keys are
# Qwen 3.5's too, in test_executorch_kinds.py. Qwen 2 is the bundle of test_executorch_bundle.py.
CASES = [("llama-untied", 8, 4, None), ("phi3", 4, 8, TILE), ("gemma2", 4, 8, None)]


def open_runner(case: Exported, keep: int = 0) -> BlockRunner:
    return BlockRunner(case.bundle, ExecuTorch(case.bundle, 1), keep)


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), CASES)
def test_steps_equal_the_reference(methods: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """Laws 1 and 2, with no layer kept, the top one, and all."""
    case = methods(name, bits, embedding_bits, tile)
    check_steps(case, {keep: open_runner(case, keep) for keep in (0, 1, case.model.config.num_hidden_layers)})


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), CASES)
def test_evaluation_and_text(methods: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """The loss, logits anywhere, and a text token by token beyond the windows of 5."""
    case = methods(name, bits, embedding_bits, tile)
    check_evaluation_and_text(case, open_runner(case))


@pytest.mark.parametrize("name", [case[0] for case in CASES])
def test_law_4(methods: MakeExported, name: str) -> None:
    """24 optimizer steps through eight cycles give the eager losses, momentum included, with the update by the method `adamw`."""
    case = methods(name, *next(rest for first, *rest in CASES if first == name))
    kind, layers = case.model.config.model_type, case.model.config.num_hidden_layers
    steps, batches = cycles(layers, "lcsb-identity")
    layout, runner = case.model.layout, open_runner(case)
    expected, _ = run_losses(case.model.runner(), layout, case.adapter, steps, batches, 1e-3, DEFAULTS)
    found, adapter = run_losses(runner, layout, case.adapter, steps, batches, 1e-3, DEFAULTS, runner.update_layer)
    _, by_numpy = run_losses(runner, layout, case.adapter, steps, batches, 1e-3, DEFAULTS)
    np.testing.assert_allclose(found, expected, rtol=LOSS_TOLERANCE[kind], atol=0)
    np.testing.assert_allclose(adapter, by_numpy, rtol=0, atol=1e-5)  # a hundredth of a step of the rate
    still = msgspec.structs.replace(DEFAULTS, implicit_updates="none")
    without, _ = run_losses(case.model.runner(), layout, case.adapter, steps, batches, 1e-3, still)
    assert np.abs(np.array(without) / expected - 1).max() > 100 * LOSS_TOLERANCE[kind]


def test_kept_values_beyond_float16(methods: MakeExported) -> None:
    case = grown(methods(*CASES[0]), 1)
    check_beyond_float16(case, open_runner(case, 3))


def test_one_counted_label(methods: MakeExported) -> None:
    """Positions that are not counted weigh nothing, wherever they are."""
    case = methods(*CASES[0])
    check_one_counted_label(case, open_runner(case))


# Memory


class OverVocabulary(torch.nn.Module):
    """Nothing but a loop over the rows of a head."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.chunks = Chunks(vocabulary, rows=100)

    def forward(self, x: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
        (total,), _ = self.chunks(lambda carried, rows: ([carried[0] + x @ rows.sum(0)], []), [x[:, 0] * 0.0], packed, scale)
        return total


def test_the_vocabulary_is_not_planned(tmp_path: Path) -> None:
    """A loop's operands get no memory of their own, and the last rows count, which are less than a chunk."""
    vocabulary, width = 20_030, 32
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(-127, 128, (vocabulary, 1, width), dtype=torch.int8, generator=generator)
    args = torch.ones(1, width), packed, torch.full((vocabulary, 1), 0.5, dtype=torch.float16)
    planned = write_program(tmp_path / PTE_FILE, {"sum": exported(OverVocabulary(vocabulary), args)}, lambda: None)
    assert 0 < planned["sum"] < packed.nbytes / 10
    (found,) = import_runtime()._load_program(str(tmp_path / PTE_FILE)).load_method("sum")(args)
    assert float(found) == pytest.approx(0.5 * float(packed.sum()), rel=1e-4)


# Refusals


def test_bundle_of_another_target_is_refused(programs: MakeExported) -> None:
    bundle = programs("llama", tile=TILE).bundle
    with pytest.raises(BundleError, match="expected a bundle of target executorch, found onnxruntime; export one with --target executorch"):
        ExecuTorch(bundle)


def test_bad_subset_is_refused(methods: MakeExported) -> None:
    with pytest.raises(OptionError, match="layers from 0 to 2"):
        open_runner(methods(*CASES[0])).step(subset([3]), packed_batch(), methods(*CASES[0]).adapter)
