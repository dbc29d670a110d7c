"""Checkpointing within a block: what is computed in the forward is computed once more in the backward, where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("lcsb::computed_once", mutates_args=())
def computed_once(x: Tensor) -> Tensor:
    """x itself. A block's backward that has what its forward kept does not compute this again (`graphs.kept`)."""
    return x.clone()


@computed_once.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
        result: Tensor = computed_once(function(x, *others))
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        (g,) = gradients
        # Zero times the gradient: so that no runtime finds that it has computed the same before, nor begins before the gradient is there.
        x = x + (g.reshape(-1)[:1] * 0.0).reshape([1] * x.dim())
        vjp = torch.func.vjp(lambda x: ctx.function(x, *others), x)[1]
        return None, vjp(g)[0], *(None for _ in others)


def recomputed(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """`function(x, *others)`, differentiable by x. Between forward and backward nothing of it is held but x and what it gives."""
    y: Tensor = _Recomputed.apply(function, x, *others)  # type: ignore[no-untyped-call]
    return y
