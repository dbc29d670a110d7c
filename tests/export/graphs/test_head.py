"""The online cross-entropy equals torch's and its autograd, whatever the chunks; the final norm's graphs equal the norm."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import ARCHITECTURES, MakeTiny
from torch import Tensor
from torch.nn import functional

from lcsb_mobile.bundle.weights import HEAD_CHUNK_BYTES, head_rows
from lcsb_mobile.export.graphs import head
from lcsb_mobile.export.graphs.head import capture_final_norm, chunk_bounds, cross_entropy
from lcsb_mobile.export.models import architecture, model_of

VOCABULARY, HIDDEN = 131, 48


def problem(scale: float, count: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    """x [C, D], labels [C], head [V, D]; logits have the standard deviation `scale`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, HIDDEN, generator=generator) * scale
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator) * HIDDEN**-0.5
    return x, torch.randint(0, VOCABULARY, (count,), generator=generator), weight


def expected(x: Tensor, labels: Tensor, weight: Tensor, cap: float | None = None) -> tuple[Tensor, Tensor]:
    """In float64."""
    x = x.double().requires_grad_()
    logits = x @ weight.double().T
    loss = functional.cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), labels)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("chunk_rows", [1, 7, 50, 130, 131, 132, 4096])
@pytest.mark.parametrize("scale", [1.0, 0.0, 30.0, 1e4])
def test_equals_cross_entropy(monkeypatch: pytest.MonkeyPatch, chunk_rows: int, scale: float) -> None:
    monkeypatch.setattr(head, "head_rows", lambda hidden_size: chunk_rows)
    x, labels, weight = problem(scale)
    loss, dx = cross_entropy(x, weight[labels], (weight[start:stop] for start, stop in chunk_bounds(VOCABULARY, HIDDEN)))
    expected_loss, expected_dx = expected(x, labels, weight)
    # A logit is a float32 sum of 48 products, exact to some 2e-7 of its size; the loss is a difference of two logits, and a
    # probability has the logits' absolute error as its relative one. Measured: 0.45 of it.
    logit_error = 2e-7 * max(1.0, float((x @ weight.T).abs().max()))
    assert loss.dtype == torch.float32
    assert abs(loss.double() - expected_loss) <= logit_error + 5e-7  # float32's spacing at log(131), the loss without any logits
    if scale < 1e4:  # beyond, e^error is no small number: the softmax is a choice between few logits, see below
        torch.testing.assert_close(dx.double(), expected_dx, rtol=0, atol=logit_error * float(expected_dx.abs().max()))


@pytest.mark.parametrize("cap", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_soft_capped_logits(scale: float, cap: float) -> None:
    """Loss and gradient of c tanh(x Wᵀ / c), in any chunks, up to logits of which all but the slope's rounding error is lost."""
    x, labels, weight = problem(scale)
    expected_loss, expected_dx = expected(x, labels, weight, cap)
    uncapped, _ = expected(x, labels, weight)
    assert scale == 0 or abs(uncapped / expected_loss - 1) > 1e-4
    for rows in (7, 131):
        loss, dx = cross_entropy(x, weight[labels], weight.split(rows), cap)
        # As above; and a slope 1 - t² is off by a rounding of 1, whatever its size.
        logit_error = 2e-7 * max(1.0, float((x @ weight.T).abs().max()))
        assert abs(loss.double() - expected_loss) <= logit_error + 5e-7
        torch.testing.assert_close(dx.double(), expected_dx, rtol=0, atol=logit_error * float(expected_dx.abs().max()) + 1e-7)


def test_extreme_logits() -> None:
    """Nothing overflows; a softmax that is one-hot in float32 gives exactly the difference of two rows."""
    weight = torch.eye(VOCABULARY, HIDDEN)
    x = torch.zeros(2, HIDDEN)
    x[0, 5], x[1, 5] = 1e30, 1e4
    loss, dx = cross_entropy(x, weight[[5, 7]], weight.split(50))
    assert loss == 5e3  # the first label is certain, the second's logit lies 1e4 below
    assert not dx[0].any()
    assert torch.equal(dx[1], (weight[5] - weight[7]) / 2)


@pytest.mark.parametrize("hidden_size", [48, 576, 2048, 8192])
@pytest.mark.parametrize("vocab_size", [1, 4095, 4096, 4097, 262144])
def test_chunks_cover_the_vocabulary(vocab_size: int, hidden_size: int) -> None:
    bounds, rows = chunk_bounds(vocab_size, hidden_size), head_rows(hidden_size)
    assert [start for start, _ in bounds] == list(range(0, vocab_size, rows))
    assert [stop for _, stop in bounds] == [*(start for start, _ in bounds[1:]), vocab_size]


def test_rows_of_a_chunk() -> None:
    """A power of two; as many as HEAD_CHUNK_BYTES of floats hold, not half as many; but 256 at least."""
    assert [head_rows(size) for size in (48, 576, 896, 1152, 2048, 8192, 2**20)] == [32768, 2048, 2048, 1024, 1024, 256, 256]
    for hidden_size in range(1, 8193, 7):
        rows = head_rows(hidden_size)
        assert rows & (rows - 1) == 0 and rows * hidden_size * 4 <= HEAD_CHUNK_BYTES < 2 * rows * hidden_size * 4


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_final_norm_graphs(tiny: MakeTiny, model: str) -> None:
    config = tiny(model).config
    forward, backward = capture_final_norm(model_of(config), 9)
    norm = architecture(config.model_type).final_norm
    x, g, weight = torch.randn(9, HIDDEN, requires_grad=True), torch.randn(9, HIDDEN), torch.randn(HIDDEN)
    y = norm(x, weight, config)
    assert (forward.inputs, forward.outputs) == (("x", "weight"), ("y",))
    assert (backward.inputs, backward.outputs) == (("x", "g", "weight"), ("dx",))
    # The same float32 operations, but that the graph's derivative is decomposed otherwise: some roundings of numbers below 5.
    torch.testing.assert_close(forward.module(x.detach(), weight)[0], y.detach(), rtol=0, atol=1e-6)
    (expected_dx,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close(backward.module(x.detach(), g, weight)[0], expected_dx, rtol=0, atol=2e-6)
