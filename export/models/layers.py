"""What the architectures share: plain functions of tensors, without a batch dimension.

T tokens, D hidden size, H query heads, K key-value heads, G = H / K query heads to one of them, d head dimension. Everything
is traced, forward and backward, and lowered to ONNX and Core ML, hence the spelling: no in-place operation, no fused
attention, activations out of `sigmoid`, whose derivative is cheap and lowers everywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lcsb_mobile.config import AttentionKind, ModelConfig
from lcsb_mobile.export.models.rope import inverse_frequencies

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q (T, H, d), k and v (T, K, d) before RoPE -> (T, H * d)
Norm = Callable[[Tensor, Tensor, ModelConfig], Tensor]  # (x, weight, config), over x's last dimension
Mix = Callable[..., Tensor]
Cache = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (keys after RoPE, values), (T, K, d) each -> those to attend to


class Linear(Protocol):
    """A layer's projections by name: matrix, bias and LoRA. `rows` and `columns` are the same product in tiles of the matrix,
    so that no more than a tile of it, and of what lies between two projections, exists at a time."""

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """(T, in) -> (T, out)."""
        ...

    def rows(self, name: str, x: Tensor, sizes: Sequence[int] | None = None) -> Iterator[Tensor]:
        """(T, in) -> the output's columns, tile by tile, or in parts of these `sizes`."""
        ...

    def halves(self, name: str, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(T, in) -> the columns of the output's first half and those of its second, tile by tile of both."""
        ...

    def columns(self, name: str, tiles: Iterable[Tensor]) -> Tensor:
        """The input's columns, tile by tile -> (T, out)."""
        ...

    def within_sequences(self, mix: Mix) -> Mix:
        """`mix` of tensors whose first dimension is tokens, applied to each sequence alone where there are several."""
        ...


class WholeLinear:
    """A `Linear` without tiles, out of a function of name and input."""

    def __init__(self, function: Callable[[str, Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, name: str, x: Tensor) -> Tensor:
        return self.function(name, x)

    def rows(self, name: str, x: Tensor, sizes: Sequence[int] | None = None) -> Iterator[Tensor]:
        y = self.function(name, x)
        yield from (y,) if sizes is None else torch.split(y, list(sizes), 1)

    def halves(self, name: str, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        first, second = self.function(name, x).chunk(2, 1)
        yield first, second

    def columns(self, name: str, tiles: Iterable[Tensor]) -> Tensor:
        (x,) = tiles
        return self.function(name, x)

    def within_sequences(self, mix: Mix) -> Mix:
        return mix


MASKED = -1e9  # finite, so that no runtime makes NaN of it; exp(score + MASKED - max) is exactly 0 in float32


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x²) + eps) * weight` over the last dimension (Zhang and Sennrich, arXiv 1910.07467)."""
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


class _SiluProduct(torch.autograd.Function):
    """y = x s with s = sigmoid(x), and d y / d x = s + y (1 - s): four operations on the MLP's width, where autograd makes six."""

    @staticmethod
    def forward(x: Tensor, s: Tensor) -> Tensor:
        return x * s

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        s, y = ctx.saved_tensors
        return gradients[0] * (s + y * (1.0 - s)), None


def silu(x: Tensor) -> Tensor:
    y: Tensor = _SiluProduct.apply(x, torch.sigmoid(x).detach())  # type: ignore[no-untyped-call]
    return y


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's tanh form, `x/2 (1 + tanh z)` with `z = sqrt(2/π) (x + 0.044715 x³)`, written as the equal `x sigmoid(2z)`."""
    return x * torch.sigmoid(x * (1.0 + 0.044715 * (x * x)) * (2.0 * math.sqrt(2.0 / math.pi)))


MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def gated_mlp(x: Tensor, linear: Linear, activation: Callable[[Tensor], Tensor], names: tuple[str, str, str] = MLP) -> Tensor:
    """`down(activation(gate(x)) * up(x))`, (T, D) -> (T, D). `names`: of gate, up and down."""
    gate_name, up_name, down_name = names
    tiles = zip(linear.rows(gate_name, x), linear.rows(up_name, x))
    return linear.columns(down_name, (activation(gate) * up for gate, up in tiles))


FUSED_MLP = ("mlp.gate_up_proj", "mlp.down_proj")


def fused_gated_mlp(x: Tensor, linear: Linear, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """As `gated_mlp`, where gate and up are the halves of one matrix (FUSED_MLP)."""
    gate_up_name, down_name = FUSED_MLP
    return linear.columns(down_name, (activation(gate) * up for gate, up in linear.halves(gate_up_name, x)))


def in_tiles(linear: Linear, name: str, x: Tensor) -> Tensor:
    """`linear(name, x)` of a matrix that is wider than an MLP's tile: never whole in floats, and not held from the forward to the
    gradient."""
    return torch.cat(tuple(linear.rows(name, x)), 1)


def rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)  # a split: its derivative is one concatenation, a slice's is a scatter
    return torch.cat((-second, first), dim=-1)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor, scale: float | None = None) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) of x (T, heads, d), times `scale`. cos, sin (T, r) turn the first r of d."""
    if scale is not None:
        cos, sin = cos * scale, sin * scale  # scaling the tables costs T*d products, scaling the scores H*T*T
    r, d = cos.shape[1], x.shape[2]
    if r == d:
        return x * cos[:, None] + rotate_half(x) * sin[:, None]
    turned, rest = torch.split(x, [r, d - r], -1)
    return torch.cat((apply_rope(turned, cos, sin), rest if scale is None else rest * scale), -1)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    return x.reshape(x.shape[0], -1, head_dim)  # (T, heads * d) -> (T, heads, d)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    scale: float,
    cap: float | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Grouped-query attention with RoPE: q (T, H, d), k and v (T, K, d), additive mask (T, T) -> (T, H * d).

    With a `cap` scores are `cap tanh(score / cap)`. A `cache` may put the S keys and values of other tokens in their place; then mask is
    (T, S).
    """
    q, k = apply_rope(q, cos, sin, scale if cap is None else scale / cap), apply_rope(k, cos, sin)
    if cache is not None:
        k, v = cache(k, v)
    return attention_of_rotated(q, k, v, mask, cap)


def attention_of_rotated(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, cap: float | None = None) -> Tensor:
    """Grouped-query attention of q (T, H, d), scaled, k and v (S, K, d), all after RoPE, and an additive mask (T, S) -> (T, H * d).
    With a `cap` scores are `cap tanh(q k)`, and q is divided by it.

    The G query heads of one key-value head are stacked into the rows of one product, so keys and values are not repeated.
    """
    T, H, d = q.shape
    S, K, _ = k.shape
    q = q.reshape(T, K, H // K, d).permute(1, 2, 0, 3).reshape(K, H // K * T, d)
    scores = torch.bmm(q, k.permute(1, 2, 0)).reshape(H, T, S)
    scores = scores if cap is None else torch.tanh(scores) * cap
    weights = torch.softmax(scores + mask, dim=-1).reshape(K, H // K * T, S)
    out = torch.bmm(weights, v.permute(1, 0, 2))  # (K, G * T, d)
    return out.reshape(H, T, d).permute(1, 0, 2).reshape(T, H * d)


HEAD_NORMS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")


def normed_attention(x: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig, norm: Norm) -> Tensor:
    """Attention whose queries and keys are normed head by head before RoPE, (T, D) -> (T, D); HEAD_NORMS are the weights, (d,) each."""
    q, k, v = (split_heads(linear(f"self_attn.{name}_proj", x), config.head_dim) for name in "qkv")  # (T, heads, d)
    q, k = (norm(heads, vectors[name], config) for heads, name in zip((q, k), HEAD_NORMS))
    return linear("self_attn.o_proj", attend(q, k, v))  # (T, D)


def head_norm_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Those of `normed_attention`: name -> shape."""
    return dict.fromkeys(HEAD_NORMS, (config.head_dim,))


def projection_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The seven matrices of a layer and their biases: name -> shape, matrices as [out, in]."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    projections = {
        "self_attn.q_proj": (q, hidden, config.qkv_bias),
        "self_attn.k_proj": (kv, hidden, config.qkv_bias),
        "self_attn.v_proj": (kv, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, q, config.output_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns, bias) in projections.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    return shapes


def rope_table(kind: AttentionKind, rotary_dim: int, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 (length, rotary_dim), for positions 0 to length - 1.

    Frequencies and angles are float32 throughout, as in transformers: at position 10,000 a float64 angle would differ by 1e-4. Without RoPE
    all angles are 0.
    """
    if not kind.rotary:
        return torch.ones(length, rotary_dim), torch.zeros(length, rotary_dim)
    positions = torch.arange(length, dtype=torch.float32)
    angles = positions[:, None] * inverse_frequencies(kind, rotary_dim)[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    scale = 1.0 if kind.rope_scaling is None else kind.rope_scaling.attention_factor
    return angles.cos() * scale, angles.sin() * scale


def attention_over(cos: Tensor, sin: Tensor, mask: Tensor, scale: float, cap: float | None = None, cache: Cache | None = None) -> Attend:
    """`attention` of q, k and v alone."""
    return functools.partial(attention, cos=cos, sin=sin, mask=mask, scale=scale, cap=cap, cache=cache)
