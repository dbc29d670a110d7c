"""The delta rule in chunks against its definition, token by token in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from helpers.families import relative
from torch import Tensor

from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.delta_rule import CHUNK, Chunks, _Inverse, constants, delta_rule, delta_step, l2_norm, softplus
from lcsb_mobile.export.models.tables import step_tables

T, HEADS, KEY, VALUE = 3 * CHUNK, 3, 10, 14
SEGMENTS = torch.tensor([0] * 37 + [1] * 1 + [2] * 45 + [3] * 13)
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
ONE = torch.zeros(T, dtype=torch.int64)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(repeated: bool = False, dtype: torch.dtype = torch.float64) -> Inputs:
    """q, k, v, g, beta. `repeated`: one token again and again, hardly forgotten."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    spread = 0.01 if repeated else 1.0
    k = l2_norm(normal(1, HEADS, KEY) * repeated + spread * normal(T, HEADS, KEY))
    q, v = l2_norm(normal(T, HEADS, KEY)) * KEY**-0.5, normal(T, HEADS, VALUE)
    g = -torch.rand(T, HEADS, generator=generator, dtype=torch.float64) * (1e-3 if repeated else 1.0)
    beta = torch.rand(T, HEADS, generator=generator, dtype=torch.float64)
    beta = 0.98 + 0.02 * beta if repeated else beta
    return q.to(dtype), k.to(dtype), v.to(dtype), g.to(dtype), beta.to(dtype)


def chunks(segments: Tensor, dtype: torch.dtype = torch.float64) -> Chunks:
    config = architecture("qwen3_5_text").read_config(dict.fromkeys(SIZES, 8) | {"num_key_value_heads": 2, "head_dim": 8})
    tables = step_tables(config, T)(position_ids=torch.arange(T), segment_ids=segments) | constants()
    return Chunks(*(tables[name].to(dtype) for name in ("within", "carried", "eye", "halves")))


def recurrence(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """The definition."""
    state = q.new_zeros(HEADS, KEY, VALUE)
    out = []
    for t in range(len(q)):
        state = state * g[t].exp()[:, None, None] if t and segments[t] == segments[t - 1] else torch.zeros_like(state)
        delta = (v[t] - torch.einsum("hde,hd->he", state, k[t])) * beta[t][:, None]
        state = state + k[t][:, :, None] * delta[:, None]
        out.append(torch.einsum("hde,hd->he", state, q[t]))
    return torch.stack(out), state


@pytest.mark.parametrize("repeated", [False, True], ids=["random", "repeated"])
@pytest.mark.parametrize("segments", [ONE, SEGMENTS], ids=["one segment", "packed"])
def test_equals_the_recurrence(segments: Tensor, repeated: bool) -> None:
    """Outputs, the last state, and the gradients of both."""
    tensors = [x.requires_grad_() for x in inputs(repeated)]
    found, expected = delta_rule(*tensors, chunks(segments)), recurrence(*tensors, segments)
    weights = [torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape) for x in expected]

    def gradients(results: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum((r * w).sum() for r, w in zip(results, weights)), tensors)

    for name, a, b in zip(("out", "state", *"qkvgb"), (*found, *gradients(found)), (*expected, *gradients(expected))):
        assert relative(a, b) < 1e-11, name


@pytest.mark.parametrize("repeated", [False, True], ids=["random", "repeated"])
def test_in_float32(repeated: bool) -> None:
    exact, _ = recurrence(*inputs(repeated), SEGMENTS)
    found, _ = delta_rule(*inputs(repeated, torch.float32), chunks(SEGMENTS, torch.float32))
    assert relative(found.double(), exact) < 2e-6  # 8e-7 and 3e-7; the recurrence in float32 is as far


def test_powers_of_the_matrix_lose_repeated_tokens() -> None:
    """Why the inverse is by halves: (I - A)(I + A²)(I + A⁴)… are as many products."""
    _, k, _, _, beta = inputs(repeated=True)
    k, beta = (x[:CHUNK, 0] for x in (k, beta))
    a = ((k * beta[:, None]) @ k.t()).tril(-1).float()[None]
    eye, halves = constants().values()
    exact = torch.linalg.inv((torch.eye(CHUNK) + a).double())
    product, power = eye - a, a @ a
    for _ in range(halves.shape[0] - 1):
        product, power = product + product @ power, power @ power
    assert relative(_Inverse.apply(a, eye, halves).double(), exact) < 1e-6
    assert relative(product.double(), exact) > 1.0


def test_constants() -> None:
    eye, halves = constants(8).values()
    assert torch.equal(eye + halves.sum(0), torch.ones(8, 8).tril())
    assert halves.sum((1, 2)).tolist() == [4, 8, 16]


@pytest.mark.parametrize("prompt", [1, CHUNK - 1, CHUNK, 70, T])
def test_padding_leaves_the_state_and_tokens_go_on(prompt: int) -> None:
    q, k, v, g, beta = inputs()
    real = (torch.arange(T) < prompt).double()[:, None]
    padded = chunks((real == 0).long()[:, 0])  # the padding is another segment
    out, state = delta_rule(q, k, v, g * real, beta * real, padded.as_one_segment())
    expected, _ = recurrence(q, k, v, g, beta, ONE)
    assert relative(out[:prompt], expected[:prompt]) < 1e-11
    assert relative(state, recurrence(*(x[:prompt] for x in (q, k, v, g, beta)), ONE)[1]) < 1e-11
    for t in range(prompt, T):
        token, state = delta_step(*(x[t : t + 1] for x in (q, k, v, g, beta)), state)
        assert relative(token[0], expected[t]) < 1e-11


def test_softplus_and_its_derivative() -> None:
    x = torch.linspace(-40, 40, 4001).requires_grad_()
    exact = torch.nn.functional.softplus(x.double(), threshold=100)
    torch.testing.assert_close(softplus(x).double(), exact, rtol=4e-7, atol=0)  # 2e-7: relative, at the smallest too
    (slope,) = torch.autograd.grad(softplus(x).sum(), x)
    torch.testing.assert_close(slope, torch.sigmoid(x), rtol=1e-6, atol=0)
    assert softplus(torch.tensor([-math.inf, 200.0])).tolist() == [0.0, 200.0]


@pytest.mark.parametrize("function", [softplus, l2_norm])
def test_derivatives_in_float64(function: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(function, torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(3, 4).requires_grad_(), atol=1e-8)
