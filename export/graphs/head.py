"""Head and cross-entropy in one pass over the vocabulary, and the final norm's graphs.

The gradient of the mean cross-entropy with respect to the head's input x is `(softmax(x Wᵀ) W - W[label]) / count`: an
attention over the vocabulary with keys and values W. So the online softmax of FlashAttention (arXiv 2205.14135) gives loss and
gradient from one visit to each chunk of W: a chunk is decompressed once, two products instead of three are computed, and no
more than a chunk of logits exists.

Where logits are soft-capped, z = c tanh(x Wᵀ / c), each has the slope dz / d(x Wᵀ) = 1 - tanh². It weighs the rows, not the softmax:
the gradient is `(Σ softmax(z) slope W - slope[label] W[label]) / count`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lcsb_mobile.bundle.weights import head_rows
from lcsb_mobile.export.graphs.captured import CapturedGraph, capture
from lcsb_mobile.export.models import Model


def soft_capped(logits: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """`cap tanh(logits / cap)` (arXiv 2408.00118, section 2) and its slope; without a cap the logits themselves, and None, which is 1."""
    if cap is None:
        return logits, None
    t = torch.tanh(logits / cap)
    return t * cap, 1.0 - t * t


def sloped(x: Tensor, slope: Tensor | None) -> Tensor:
    return x if slope is None else x * slope


def chunk_bounds(vocab_size: int, hidden_size: int) -> list[tuple[int, int]]:
    rows = head_rows(hidden_size)
    return [(start, min(start + rows, vocab_size)) for start in range(0, vocab_size, rows)]


def cross_entropy(x: Tensor, label_rows: Tensor, chunks: Iterable[Tensor], cap: float | None = None) -> tuple[Tensor, Tensor]:
    """Mean loss (scalar) and its gradient [C, D] for C counted positions.

    x [C, D]: normed hidden states; label_rows [C, D]: the head's rows of their labels; `chunks`: the head's rows in order; `cap`: of the
    logits.
    """
    peak = x.new_full((x.shape[0], 1), -torch.inf)
    total = x.new_zeros((x.shape[0], 1))
    weighted = torch.zeros_like(x)
    for rows in chunks:
        logits, slope = soft_capped(x @ rows.t(), cap)
        new_peak = torch.maximum(peak, logits.amax(-1, keepdim=True))
        exponentials = (logits - new_peak).exp()
        shrink = (peak - new_peak).exp()
        total = total * shrink + exponentials.sum(-1, keepdim=True)
        weighted = weighted * shrink + sloped(exponentials, slope) @ rows
        peak = new_peak
    target, slope = soft_capped((x * label_rows).sum(-1, keepdim=True), cap)
    losses = peak + total.log() - target
    return losses.mean(), (weighted / total - sloped(label_rows, slope)) / x.shape[0]


def capture_final_norm(model: Model, seq_len: int) -> tuple[CapturedGraph, CapturedGraph]:
    """(x, weight) -> y and (x, g, weight) -> dx, for x and g float32 [T, D], weight [D]."""
    norm, hidden = model.final_norm, model.config.hidden_size

    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor]:
        return (norm(x, weight),)

    def backward(x: Tensor, g: Tensor, weight: Tensor) -> tuple[Tensor]:
        vjp = torch.func.vjp(lambda y: norm(y, weight), x)[1]
        return (vjp(g)[0],)

    x, g, weight = torch.zeros(seq_len, hidden), torch.zeros(seq_len, hidden), torch.zeros(hidden)
    return (
        capture(forward, [x, weight], ("x", "weight"), ("y",)),
        capture(backward, [x, g, weight], ("x", "g", "weight"), ("dx",)),
    )
