"""Law 5: AdamW equals torch.optim.AdamW; clipping equals torch's; the learning rate at chosen steps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from lcsb_mobile.config import AdamWConfig, ImplicitUpdates
from lcsb_mobile.errors import OptionError
from lcsb_mobile.training.optimizer import AdamW, clip_gradients, gradient_norm, learning_rate

LAYERS, SIZE, STEPS = 3, 257, 10
RATE = 1e-2
# Both are float32. torch forms a moment as m + (1-β)(g-m), here it is βm + (1-β)g, so each step's moments differ by a rounding
# or two; measured over 12 steps: 2.4e-7 on parameters of size 1 to 3, where a float32's spacing is 1.2e-7 to 2.4e-7.
TOLERANCE = 5e-7

Gradients = dict[int, np.ndarray]


def random_gradients(step: int, layers: tuple[int, ...] = (0, 1, 2)) -> Gradients:
    """Of very different sizes, so that eps and the second moment matter."""
    generator = np.random.default_rng(step)
    sizes = np.logspace(-9, 1, SIZE)
    return {layer: (generator.standard_normal(SIZE) * sizes).astype(np.float32) for layer in layers}


SLICES = [slice(layer * SIZE, (layer + 1) * SIZE) for layer in range(LAYERS)]


def start() -> np.ndarray:
    return np.random.default_rng(100).standard_normal(LAYERS * SIZE).astype(np.float32)


def torch_parameters(config: AdamWConfig) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    parameters = [torch.nn.Parameter(torch.from_numpy(row)) for row in start().reshape(LAYERS, SIZE)]
    adamw = torch.optim.AdamW(
        parameters, lr=RATE, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, foreach=False, fused=False
    )
    return parameters, adamw


def compare(config: AdamWConfig, trained: list[tuple[int, ...]], absent: str) -> None:
    """`trained`: each step's layers. `absent`: the gradient that torch sees for the others, "zero" or "none"."""
    ours = AdamW(start(), SLICES, config)
    parameters, theirs = torch_parameters(config)
    for step, layers in enumerate(trained):
        gradients, rate = random_gradients(step, layers), RATE * (1 + step % 3)
        ours.update(gradients, rate)
        for group in theirs.param_groups:
            group["lr"] = rate
        for layer, parameter in enumerate(parameters):
            missing = torch.zeros(SIZE) if absent == "zero" else None
            parameter.grad = torch.from_numpy(gradients[layer]) if layer in gradients else missing
        theirs.step()
        assert ours.adapter.dtype == ours.first_moment.dtype == ours.second_moment.dtype == np.float32
        expected = torch.cat([p.detach() for p in parameters]).numpy()
        np.testing.assert_allclose(ours.adapter, expected, rtol=0, atol=TOLERANCE)
    compare_moments(ours, parameters, theirs)


def compare_moments(ours: AdamW, parameters: list[torch.nn.Parameter], theirs: torch.optim.AdamW) -> None:
    """A moment averages gradients that may cancel, so its rounding errors are relative to their size, not to its own."""
    for layer, parameter in enumerate(parameters):
        state: dict[str, Any] = theirs.state[parameter]
        assert ours.updates[layer] == int(state["step"])
        scale = np.logspace(-9, 1, SIZE)
        assert (np.abs(ours.first_moment[SLICES[layer]] - state["exp_avg"].numpy()) <= 1e-6 * scale).all()
        assert (np.abs(ours.second_moment[SLICES[layer]] - state["exp_avg_sq"].numpy()) <= 1e-6 * scale**2).all()


@pytest.mark.parametrize(
    "config",
    [AdamWConfig(), AdamWConfig(betas=(0.8, 0.95), eps=1e-4, weight_decay=0.3), AdamWConfig(weight_decay=0.0)],
    ids=["defaults", "others", "no decay"],
)
def test_law_5(config: AdamWConfig) -> None:
    compare(config, [(0, 1, 2)] * STEPS, absent="zero")


CYCLE = [(2,), (1, 2), (0,)]  # layers that are trained unequally often


def test_momentum_is_a_gradient_of_zero() -> None:
    compare(AdamWConfig(implicit_updates="momentum"), CYCLE * 4, absent="zero")


def test_none_is_no_gradient() -> None:
    """Bias correction counts a layer's own updates, as torch's per-parameter step does."""
    compare(AdamWConfig(implicit_updates="none"), CYCLE * 4, absent="none")


def test_implicit_updates_move_absent_layers() -> None:
    """The two modes differ by much more than the tolerance, and "none" leaves an absent layer's bits alone."""
    moved, rested = AdamW(start(), SLICES, AdamWConfig()), AdamW(start(), SLICES, AdamWConfig(implicit_updates="none"))
    for optimizer in (moved, rested):
        optimizer.update(random_gradients(0), RATE)
        before = optimizer.adapter.copy()
        optimizer.update(random_gradients(1, (2,)), RATE)
        change = np.abs(optimizer.adapter - before).reshape(LAYERS, SIZE).max(axis=1)
        assert change[2] > 1e-3
        assert (change[:2] > 1e-3).all() if optimizer is moved else not change[:2].any()
    assert moved.updates.tolist() == [2, 2, 2]
    assert rested.updates.tolist() == [1, 1, 2]


def test_a_layer_that_the_method_never_trains_stays_bit_for_bit() -> None:
    """Neither momentum nor weight decay touches it, from a trained adapter on; the others are those of torch with the other frozen."""
    config, rested = AdamWConfig(weight_decay=0.5), AdamW(start(), SLICES, AdamWConfig(weight_decay=0.5))
    alone = AdamW(start()[SLICES[1]], [slice(0, SIZE)], config)
    for step, layers in enumerate([(1,), (2,)] * 3):
        gradients = random_gradients(step, layers)
        rested.update(gradients, RATE, trainable={1, 2})
        alone.update({0: gradients[1]} if 1 in gradients else {}, RATE)
    assert rested.adapter[SLICES[0]].tobytes() == start()[SLICES[0]].tobytes()
    assert not rested.first_moment[SLICES[0]].any() and rested.updates.tolist() == [0, 6, 6]
    assert np.array_equal(rested.adapter[SLICES[1]], alone.adapter)


def test_update_is_in_place_and_leaves_gradients_alone() -> None:
    adapter, gradients = start(), random_gradients(0)
    optimizer = AdamW(adapter, SLICES, AdamWConfig())
    optimizer.update(gradients, RATE)
    assert optimizer.adapter is adapter
    assert not np.array_equal(adapter, start())
    assert all(np.array_equal(gradients[layer], random_gradients(0)[layer]) for layer in gradients)


@pytest.mark.parametrize("implicit_updates", ["momentum", "none"])
def test_layers_of_other_sizes(implicit_updates: ImplicitUpdates) -> None:
    """A layer's update depends on nothing but its own vector: each is that of an optimizer of this layer alone, bit for bit."""
    sizes, config = (100, SIZE, 3), AdamWConfig(implicit_updates=implicit_updates)
    edges = np.cumsum((0, *sizes)).tolist()
    slices = [slice(first, last) for first, last in pairwise(edges)]
    together = AdamW(start()[: sum(sizes)], slices, config)
    alone = [AdamW(start()[part], [slice(0, size)], config) for part, size in zip(slices, sizes)]
    for step, layers in enumerate(CYCLE * 3):
        gradients = {layer: gradient[: sizes[layer]] for layer, gradient in random_gradients(step, layers).items()}
        together.update(gradients, RATE)
        for layer, optimizer in enumerate(alone):
            optimizer.update({0: gradients[layer]} if layer in gradients else {}, RATE)
    for name in ("adapter", "first_moment", "second_moment"):
        assert np.array_equal(getattr(together, name), np.concatenate([getattr(optimizer, name) for optimizer in alone]))
    assert together.updates.tolist() == [int(optimizer.updates[0]) for optimizer in alone]


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 30.0, 1e9])
def test_clip_equals_torch(clip_norm: float) -> None:
    gradients = random_gradients(0, (0, 2))
    parameters = [torch.nn.Parameter(torch.zeros(SIZE)) for _ in gradients]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = torch.from_numpy(gradient.copy())
    expected_norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip_norm))
    norm = gradient_norm(gradients)
    clipped = {layer: gradient.copy() for layer, gradient in gradients.items()}
    clip_gradients(clipped, norm, clip_norm)
    assert norm == pytest.approx(expected_norm, rel=1e-6)  # a float32 sum of 514 squares
    for parameter, gradient in zip(parameters, clipped.values(), strict=True):
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, parameter.grad, rtol=1e-6, atol=0)  # the factor is as exact as the norm
    if clip_norm == 1e9:
        assert all(np.array_equal(clipped[layer], gradients[layer]) for layer in gradients)


def test_norm() -> None:
    assert gradient_norm({0: np.array([3.0], np.float32), 5: np.array([0.0, 4.0], np.float32)}) == 5.0
    assert gradient_norm({}) == 0.0


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 0.25),
        ("constant", 3, 1.0),
        ("constant", 4, 1.0),
        ("constant", 1000, 1.0),
        ("cosine", 0, 0.25),
        ("cosine", 3, 1.0),
        ("cosine", 4, 1.0),
        ("cosine", 8, 0.5 * (1 + math.cos(math.pi / 4))),
        ("cosine", 12, 0.5),
        ("cosine", 20, 0.0),
        ("linear", 1, 0.5),
        ("linear", 4, 1.0),
        ("linear", 12, 0.5),
        ("linear", 19, 1 / 16),
        ("linear", 20, 0.0),
    ],
)
def test_learning_rate(schedule: Any, step: int, expected: float) -> None:
    """4 steps of warm-up, then 16 of the schedule."""
    assert learning_rate(3e-4, schedule, step, steps=20, warmup=4) == pytest.approx(3e-4 * expected, rel=1e-12, abs=1e-18)


def test_learning_rate_without_warmup() -> None:
    assert learning_rate(1.0, "linear", 0, steps=2, warmup=0) == 1.0
    assert learning_rate(1.0, "cosine", 0, steps=1, warmup=0) == 1.0
    assert learning_rate(1.0, "linear", 1, steps=1, warmup=1) == 1.0  # no step is left after the warm-up


def test_unknown_schedule() -> None:
    with pytest.raises(OptionError, match="lr-schedule: expected constant, cosine or linear, found 'step'"):
        learning_rate(1.0, "step", 5, steps=20, warmup=0)  # type: ignore[arg-type]
