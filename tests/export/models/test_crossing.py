"""What crosses layers: a made-up family of two kinds, one of which gives keys and values that the other takes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
import torch
from helpers import crossing_model
from helpers.families import ids, relative, worst
from helpers.kinds_loop import KindsLoop, Lora, Tokens
from torch import Tensor

from lcsb_mobile.export.models import ARCHITECTURES, checkpoint_weights, model_of

T = 40
TOKENS = Tokens.packed([ids(1, 23), ids(2, 1), ids(3, 16)])
LAYERS = range(6)
# train, propagate, and whether a gradient crosses at all
SUBSETS: dict[str, tuple[Sequence[int], Sequence[int], bool]] = {
    "all layers": (LAYERS, LAYERS, True),
    "a band, exact, with the giver of a taker above it": ([2], range(2, 6), True),
    "a band, exact, above a giver": ([3, 4], range(3, 6), False),
    "a giver and one of its takers, identities between": ([0, 5], [0, 5], True),
    "a giver, its takers identities": ([0], [0, 3], False),
    "takers, their givers identities": ([1, 3, 5], [1, 3, 5], False),
}


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> KindsLoop:
    monkeypatch.setitem(ARCHITECTURES, crossing_model.MODEL_TYPE, crossing_model)
    config = crossing_model.read_config(crossing_model.RAW)
    return KindsLoop.of(model_of(config), crossing_model.random_tensors(checkpoint_weights(config), torch.float64), lora, 1.5)


def lora(number: int, name: str, shape: tuple[int, int]) -> Lora:
    generator = torch.Generator().manual_seed(number + len(name))
    normal = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    return {"lora_A": normal(4, shape[1]) * 0.2, "lora_B": normal(shape[0], 4) * 0.1}


@pytest.mark.parametrize("subset", SUBSETS)
def test_step_equals_autograd_of_the_whole_model(loop: KindsLoop, subset: str) -> None:
    train, propagate, crosses = SUBSETS[subset]
    loss, gradients = loop.step(TOKENS, train, propagate)
    expected_loss, expected = loop.whole_step(TOKENS, train, propagate)
    assert abs(float(loss - expected_loss)) < 1e-12
    assert worst(gradients, expected) < 1e-12
    _, without = loop.step(TOKENS, train, propagate, crossing=False)
    assert (worst(without, expected) > 0.1) == crosses  # what the sum over takers is there for


def test_segments_equal_examples_apart(loop: KindsLoop) -> None:
    apart = torch.cat([loop.logits(Tokens.packed([ids(seed, length)])) for seed, length in ((1, 23), (2, 1), (3, 16))])
    assert relative(loop.logits(TOKENS), apart) < 1e-12


@pytest.mark.parametrize("prompt", [1, 17])
def test_takers_remember_nothing(loop: KindsLoop, prompt: int) -> None:
    """While a text is written, a giver gives all keys and values so far."""
    text: Tensor = ids(4, 22)
    assert relative(loop.continued(text, prompt, T), loop.logits(Tokens.packed([text]))[prompt - 1 :]) < 1e-12
