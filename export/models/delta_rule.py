"""The gated delta rule (Yang et al., arXiv 2412.06464) over whole sequences, exactly, as products of small matrices.

    S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}ᵀ k_t)ᵀ,   o_t = S_tᵀ q_t,   a_t = exp(g_t)

T tokens in N = T / C chunks of C, H heads with keys of d and values of e. A chunk is solved at once for u_i = b_i (v_i - a_i S_{i-1}ᵀ k_i),
which token i adds to the state as k_i u_iᵀ: with S the state before the chunk, A_ij = b_i (k_i · k_j) a_{j+1} … a_i for j < i, and
X = (I + A)⁻¹, these are u = X (b v) - X (b a_1 … a_i k) S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 32  # costs what 64 does, and rounds half as much


@dataclass(frozen=True)
class Chunks:
    """`within` (N, C, C) and `carried` (N, C), as `models.tables` has them; `eye` (C, C) and `halves` (log2 C, C, C) of `constants`."""

    within: Tensor
    carried: Tensor
    eye: Tensor
    halves: Tensor

    def as_one_segment(self) -> Chunks:
        n, c, _ = self.within.shape
        earlier = self.eye + self.halves.sum(0)
        within = earlier.reshape(1, c, c).expand(n, c, c)
        carried = self.eye.sum(0, keepdim=True).expand(n, c)
        return Chunks(within, carried, self.eye, self.halves)


def constants(chunk: int = CHUNK) -> dict[str, Tensor]:
    """`eye` (C, C), and `halves` (log2 C, C, C): the lower left quarters of the diagonal blocks of size 2, 4, … C, which together are all
    that is below the diagonal. C is a power of two."""
    row, column = torch.arange(chunk)[:, None], torch.arange(chunk)[None]
    sizes = [2**level for level in range(chunk.bit_length() - 1)]
    quarters = [(row // (2 * s) == column // (2 * s)) & (row // s % 2 == 1) & (column // s % 2 == 0) for s in sizes]
    return {"eye": torch.eye(chunk), "halves": torch.stack(quarters).float()}


class _Inverse(torch.autograd.Function):
    """X = (I + A)⁻¹ of strictly lower triangular A (B, C, C), by halves: with X that of the diagonal blocks of size s, and A_s the lower
    left quarters of those of size 2s, X - X A_s X is that of the latter. d A = -Xᵀ (d X) Xᵀ.

    Not by the powers of A, (I - A)(I + A²)(I + A⁴)…: they grow beyond any precision where keys repeat.
    """

    @staticmethod
    def forward(a: Tensor, eye: Tensor, halves: Tensor) -> Tensor:
        x = eye - a * halves[:1]
        for s in range(1, halves.shape[0]):
            x = x - torch.bmm(torch.bmm(x, a * halves[s : s + 1]), x)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        transposed = x.permute(0, 2, 1)
        return -torch.bmm(torch.bmm(transposed, gradients[0]), transposed), None, None


class _Softplus(torch.autograd.Function):
    """log(1 + eˣ) = max(x, 0) + log(1 + y) with y = e^-|x|, and log(1 + y) = 2 artanh(z) with z = y / (2 + y) <= 1/3, by its series."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y = (-x.abs()).exp()
        z = y / (2.0 + y)
        square = z * z
        series = square * (1.0 / 19) + 1.0 / 17
        for n in range(15, 0, -2):
            series = series * square + 1.0 / n
        return torch.relu(x) + 2.0 * z * series

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.sigmoid(ctx.saved_tensors[0])


def softplus(x: Tensor) -> Tensor:
    """Exact at small results too. A logarithm of a sigmoid, or ONNX's own Softplus, loses half the digits of a slow decay."""
    y: Tensor = _Softplus.apply(x)  # type: ignore[no-untyped-call]
    return y


def l2_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + eps)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: Chunks) -> tuple[Tensor, Tensor]:
    """q, k (T, H, d), v (T, H, e), g (logarithm of the decay, <= 0) and beta (T, H) -> (T, H, e), and the state after the last token
    (H, d, e), of its segment. A token with g = 0 and beta = 0 leaves the state as it is.
    """
    within, carried, eye = chunks.within, chunks.carried, chunks.eye
    N, C, _ = within.shape
    H = q.shape[1]
    B = N * H
    q, k, v = (x.reshape(N, C, H, -1).permute(0, 2, 1, 3).reshape(B, C, -1) for x in (q, k, v))
    g, beta = (x.reshape(N, C, H).permute(0, 2, 1) for x in (g, beta))  # (N, H, C)
    beta = beta.reshape(B, C, 1)
    # Decays are sums of logarithms since the segment's start, or the chunk's. Their differences are masked before exp, else its overflow
    # would make NaN of 0, and after it.
    since_start = torch.bmm(g, within.permute(0, 2, 1))  # (N, H, C)
    differences = (since_start.reshape(N, H, C, 1) - since_start.reshape(N, H, 1, C)) * within.reshape(N, 1, C, C)
    decay = (differences.exp() * within.reshape(N, 1, C, C)).reshape(B, C, C)
    # Of the chunk's last token: its own decay by a product, as a slice's derivative is a scatter; each token's until then.
    of_last = (since_start.reshape(B, C) @ eye[:, C - 1 :]).reshape(N, H, 1)
    segment_of_last = within[:, C - 1 :]  # (N, 1, C)
    until_last = (((of_last - since_start) * segment_of_last).exp() * segment_of_last).reshape(B, C, 1)
    from_before = (since_start.exp() * carried.reshape(N, 1, C)).reshape(B, C, 1)
    kept = (of_last.exp() * carried[:, C - 1 :].reshape(N, 1, 1)).reshape(B, 1, 1)

    transposed = k.permute(0, 2, 1)
    a = torch.bmm(k * beta, transposed) * decay * (1.0 - eye)
    x: Tensor = _Inverse.apply(a, eye, chunks.halves)  # type: ignore[no-untyped-call]
    values = torch.bmm(x, v * beta)
    reads = torch.bmm(x, k * (beta * from_before))
    scores = torch.bmm(q, transposed) * decay
    parts = [torch.split(x, H) for x in (values, reads, scores, q * from_before, (k * until_last).permute(0, 2, 1), kept)]
    state: Tensor | None = None
    outputs = []
    for value, read, score, query, key, kept_part in zip(*parts):
        if state is None:
            outputs.append(torch.bmm(score, value))
            state = torch.bmm(key, value)
        else:
            value = value - torch.bmm(read, state)
            outputs.append(torch.bmm(score, value) + torch.bmm(query, state))
            state = state * kept_part + torch.bmm(key, value)
    assert state is not None
    return torch.cat(outputs).reshape(N, H, C, -1).permute(0, 2, 1, 3).reshape(N * C, H, -1), state


def delta_step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token, shaped as in `delta_rule` with T = 1, after the state (H, d, e) -> (1, H, e), and the state after it."""
    q, k, v = (x.permute(1, 0, 2) for x in (q, k, v))  # (H, 1, d)
    g, beta = (x.reshape(-1, 1, 1) for x in (g, beta))
    state = state * g.exp()
    state = state + torch.bmm(k.permute(0, 2, 1), (v - torch.bmm(k, state)) * beta)
    return torch.bmm(q, state).permute(1, 0, 2), state
