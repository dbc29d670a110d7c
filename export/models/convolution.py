"""Causal depthwise convolutions over a few tokens, as sums of shifted products."""

from __future__ import annotations

import torch
from torch import Tensor

from lcsb_mobile.export.models.kinds import Memory, State, Values, Vector

READS = ("taps", "last")
STATE = "conv"


def conv_weight(kernel: int, channels: int) -> Vector:
    """As a block wants it: a row for each token that is seen, the newest last."""
    return Vector((kernel, channels), source_shape=(channels, 1, kernel), convert=lambda w: w.squeeze(1).t().contiguous())


def conv_state(kernel: int, channels: int) -> State:
    """The inputs of the last tokens, the newest last."""
    return State((kernel - 1, channels), by_position=False)


def causal_conv(x: Tensor, weight: Tensor, tables: Values, memory: Memory | None = None) -> Tensor:
    """x (T, C) convolved with weight (k, C) within segments: `taps` (T, k), and `last` (k-1, T) of a prompt that is to be remembered."""
    if memory is not None and memory.decoding:
        seen = torch.cat((memory.past(STATE), x))  # (k, C)
        memory.keep(STATE, torch.split(seen, [1, seen.shape[0] - 1])[1])
        return (seen * weight).sum(0, keepdim=True)
    if memory is not None:
        memory.keep(STATE, tables["last"] @ x)
    k = weight.shape[0]
    y = x * weight[k - 1 :]
    for j in range(1, k):
        y = y + _shift(x, j) * (tables["taps"][:, j : j + 1] * weight[k - 1 - j : k - j])
    return y


def _shift(x: Tensor, j: int) -> Tensor:
    """Rows moved j down. The last ones come in at the top, where `taps` is 0: a split and a concatenation, and so is the derivative."""
    head, tail = torch.split(x, [x.shape[0] - j, j])
    return torch.cat((tail, head))
