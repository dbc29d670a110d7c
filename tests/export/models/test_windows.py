"""Attention windows at lengths beyond them, against transformers' model with peft's LoRA and autograd, whose masks are its own: the eager
runner, the exported programs of both targets, and generation with a cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
import torch
from helpers.captured import TILE
from helpers.onnxruntime_bundles import MakeExported
from helpers.runners import TOLERANCE
from helpers.tiny_models import SEQ_LEN, MakeTiny, TinyModel, assert_steps_equal, example, largest_difference, pack, subset
from helpers.transformers_reference import Hidden, RecordingRunner, TransformersReference
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.bundle.batch import Batch, StepResult, StepRunner
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import AttentionKind, ModelConfig
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.models.layers import MASKED
from lcsb_mobile.export.models.tables import step_tables
from lcsb_mobile.export.reference.eager import EagerRunner
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.onnxruntime import OnnxRuntime
from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner

WINDOW = 5
# Of the tiny models those with layers of a window, between or above full ones or alone; Mistral, whose block is Llama's, in test_rope.py.
NAMES = ("phi3", "qwen2", "qwen3", "gemma3", "gemma2", "smollm3")
BATCHES = {
    "one example four windows long": pack([example(1, SEQ_LEN)]),
    "two, each beyond the window": pack([example(2, 11), example(3, 9)]),
    "at the window, just beyond it, and padding": pack([example(4, WINDOW), example(5, WINDOW + 2)]),  # a last label is not counted
}
Expect = Callable[[str, str, int], tuple[StepResult, Hidden]]


def steps(layers: int) -> tuple[Subset, ...]:
    """All layers; a band with the exact gradient through those above it; the same with identities."""
    return subset(range(layers)), subset([0], range(layers)), subset([0, layers - 1])


@pytest.fixture(scope="module")
def expect(tiny: MakeTiny) -> Expect:
    """`expect(name, batch, step)`: the reference's loss and gradients, of the adapter of seed 0."""

    @functools.cache
    def reference(name: str) -> TransformersReference:
        return TransformersReference.of(tiny(name))

    @functools.cache
    def result(name: str, batch: str, step: int) -> tuple[StepResult, Hidden]:
        model = tiny(name)
        return reference(name).step(steps(model.config.num_hidden_layers)[step], BATCHES[batch], model.adapter())

    return result


def assert_equals_transformers(runner: StepRunner, model: TinyModel, name: str, batch: str, expect: Expect) -> None:
    for number, step in enumerate(steps(model.config.num_hidden_layers)):
        expected, _ = expect(name, batch, number)
        assert_steps_equal(runner.step(step, BATCHES[batch], model.adapter()), expected, TOLERANCE[model.config.model_type])
    assert runner.evaluate(BATCHES[batch], model.adapter()) == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_eager_step(tiny: MakeTiny, expect: Expect, name: str, batch: str) -> None:
    """Loss, LoRA's gradients, and the gradient of every layer's input and of the top."""
    model = tiny(name)
    runner = RecordingRunner(model_of(model.config), model.layout, model.weights)
    assert_equals_transformers(runner, model, name, batch, expect)
    for number, step in enumerate(steps(model.config.num_hidden_layers)):
        runner.step(step, BATCHES[batch], model.adapter())
        _, hidden = expect(name, batch, number)
        assert set(runner.hidden) == {layer + above for layer in step.propagate for above in (0, 1)}
        for layer, g in runner.hidden.items():
            largest = float(np.abs(hidden[layer]).max())
            np.testing.assert_allclose(g, hidden[layer], rtol=0, atol=TOLERANCE[model.config.model_type] * largest)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_programs(programs: MakeExported, expect: Expect, name: str, batch: str) -> None:
    case = programs(name, tile=TILE)
    assert_equals_transformers(BlockRunner(case.bundle, OnnxRuntime(case.bundle, 1)), case.model, name, batch, expect)


@pytest.mark.training_api
@pytest.mark.parametrize("name", ["phi3", "qwen2", "gemma3"])  # its loop has the windows: alone, above full layers, between them
def test_training_api(training_programs: MakeExported, expect: Expect, name: str) -> None:
    case = training_programs(name)
    runner = OnnxRuntimeTrainingRunner(case.bundle, threads=1)
    for batch in BATCHES:
        assert_equals_transformers(runner, case.model, name, batch, expect)


@pytest.mark.parametrize("name", NAMES)
def test_generation(programs: MakeExported, name: str) -> None:
    """Prompts within the window and beyond it, then token by token to the last place: transformers' logits at each."""
    case = programs(name, tile=TILE)
    ids = BATCHES["one example four windows long"].input_ids
    expected = TransformersReference.of(case.model).logits(torch.from_numpy(ids), case.adapter).numpy()
    decoder = BlockRunner(case.bundle, OnnxRuntime(case.bundle, 1)).decoder(case.adapter)
    for prompt in (1, WINDOW, WINDOW + 1, 13):
        logits = [decoder.start(ids[:prompt].tolist()), *(decoder.extend(int(token)) for token in ids[prompt:])]
        # float32 on both sides; measured 8e-7 of the largest, Gemma 3e-6 (tests/runners/test_onnxruntime_decoder.py)
        np.testing.assert_allclose(logits, expected[prompt - 1 :], rtol=0, atol=8e-6 * float(np.abs(expected).max()))


def with_window(config: ModelConfig, window: int | None) -> ModelConfig:
    kinds = {name: msgspec.structs.replace(kind, window=kind.window and window) for name, kind in config.attention_kinds.items()}
    return msgspec.structs.replace(config, attention_kinds=kinds)


@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 1, None])
@pytest.mark.parametrize("name", NAMES)
def test_windows_matter(tiny: MakeTiny, expect: Expect, name: str, window: int | None) -> None:
    """So that the tests above see them: with another window, loss and gradients are others by far more than the tolerance."""
    model = tiny(name)
    runner = EagerRunner(model_of(with_window(model.config, window)), model.layout, model.weights)
    for batch in BATCHES:
        found = runner.step(steps(model.config.num_hidden_layers)[0], BATCHES[batch], model.adapter())
        expected, _ = expect(name, batch, 0)
        assert abs(found.loss / expected.loss - 1) > 10 * TOLERANCE[model.config.model_type]
        assert largest_difference(found, expected) > 100 * TOLERANCE[model.config.model_type]


# The masks


def slow_masks(windows: Sequence[int | None], segment_ids: Sequence[int]) -> np.ndarray:
    """As docs/bundle.md says it, pair by pair."""
    masks = np.full((len(windows), len(segment_ids), len(segment_ids)), MASKED, np.float32)
    for kind, window in enumerate(windows):
        for query, own in enumerate(segment_ids):
            for key, other in enumerate(segment_ids):
                if own == other and key <= query and (window is None or query - key < window):
                    masks[kind, query, key] = 0.0
    return masks


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.lists(st.none() | st.integers(1, 25), min_size=1, max_size=3, unique=True))
def test_masks(tiny: MakeTiny, lengths: list[int], windows: list[int | None]) -> None:
    segment_ids = np.repeat(np.arange(len(lengths)), lengths)
    kinds = {str(number): AttentionKind(rope_theta=1e4, window=window) for number, window in enumerate(windows)}
    config = msgspec.structs.replace(tiny("qwen3").config, attention_kinds=kinds)
    ids = torch.from_numpy(segment_ids)
    tables = step_tables(config, len(ids))(position_ids=torch.zeros_like(ids), segment_ids=ids)
    masks = np.stack([tables[f"mask.{name}"] for name in kinds])
    assert np.array_equal(masks, slow_masks(windows, segment_ids.tolist()))


@pytest.mark.parametrize("name", NAMES)
def test_masks_of_the_program(programs: MakeExported, name: str) -> None:
    """What `embed` gives the blocks, for any packing."""
    bundle = programs(name, tile=TILE).bundle
    runner = BlockRunner(bundle, OnnxRuntime(bundle, 1))
    kinds = runner.manifest.model.attention_kinds
    windows = [kind.window for kind in kinds.values()]

    @settings(max_examples=30, deadline=None)
    @given(LENGTHS)
    def check(lengths: list[int]) -> None:
        segment_ids = np.repeat(np.arange(len(lengths) + 1), [*lengths, SEQ_LEN])[:SEQ_LEN]
        positions = np.concatenate([np.arange(length) for length in (*lengths, SEQ_LEN)])[:SEQ_LEN]
        zeros = np.zeros(SEQ_LEN, np.int64)
        _, tables = runner.programs.embed(Batch(zeros, zeros, positions, segment_ids))
        masks = np.stack([tables[f"mask.{name}"] for name in kinds])
        assert np.array_equal(masks, slow_masks(windows, segment_ids.tolist()))

    check()
