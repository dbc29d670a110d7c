"""The typed records that describe a model, an adapter and a quantisation; they stand in the manifest as they are.

Field names are those of Hugging Face's `config.json` where such a field exists. RoPE and attention windows are resolved
when a checkpoint is read (`attention_kinds`, by layer type), so that nothing after it knows the dialects of `config.json`. What a layer
is to everything that walks layers stands beside it in the manifest: `bundle.layers`.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen record; decoding one with an unknown or mistyped field is an error."""


Quantizer = Literal["search", "gptq"]
# By the numbers of com.microsoft::MatMulNBits: 0 float32 throughout; 2 products in float16; 4 the forward's activations rounded to int8.
AccuracyLevel = Literal[0, 2, 4]
HALF_PRODUCTS: AccuracyLevel = 2
INT8_ACTIVATIONS: AccuracyLevel = 4
Programs = Literal["cpu", "gpu"]  # what a target's programs are written for


class RopeScaling(Record, frozen=True):
    """How RoPE's inverse frequencies are stretched: `linear` divides them by `factor`; `llama3` is Llama 3.1's rule; `yarn` divides slow
    ones, keeps fast ones and interpolates between (arXiv 2309.00071); `longrope` divides each by its own `short_factor` (arXiv 2402.13753);
    `dynamic` does nothing to sequences of up to `original_max_position_embeddings`. cos and sin are multiplied by `attention_factor`."""

    rope_type: Literal["linear", "llama3", "dynamic", "yarn", "longrope"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()

    @property
    def numbers(self) -> tuple[float, ...]:
        """Those that are positive."""
        factors = self.factor, self.low_freq_factor, self.high_freq_factor, self.attention_factor
        return *factors, self.beta_fast, self.beta_slow, *self.short_factor

    @property
    def longest(self) -> int | None:
        """Tokens of the longest sequence whose angles depend on a token's position alone. Those of a longer one depend on how long it is,
        so that a text that grows past it would need its earlier keys anew (None: they never do)."""
        return self.original_max_position_embeddings if self.rope_type in ("dynamic", "longrope") else None


class AttentionKind(Record, frozen=True):
    """What distinguishes one layer's attention from another's: the RoPE base, the window (None: the whole prefix), and whether RoPE turns
    its queries and keys at all (`rotary`)."""

    rope_theta: float
    rope_scaling: RopeScaling | None = None
    window: int | None = None
    rotary: bool = True


class LinearAttention(Record, frozen=True, kw_only=True):
    """The heads of a gated delta rule (arXiv 2412.06464). `chunk`: tokens that are computed at once, of which T is a multiple."""

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    chunk: int


class ModelConfig(Record, frozen=True, kw_only=True):
    """The shape of a decoder. `layer_types`: of each layer, as `config.json` calls them. `attention_kinds`: of the layer types that
    attend, how they do. `rotary_dim`: of `head_dim`, the part that RoPE turns. `conv_kernel`: the tokens that a convolution sees, 0 where
    there is none. `tensor_prefix`: what the names of the text model's tensors begin with in a checkpoint."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    layer_types: tuple[str, ...]
    attention_kinds: dict[str, AttentionKind]
    rotary_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_scale: float  # what attention scores are multiplied by; 1/sqrt(head_dim) in most families
    embedding_scale: float = 1.0  # what embeddings are multiplied by; sqrt(hidden_size) in Gemma
    residual_multiplier: float = 1.0  # what each half of a layer is multiplied by before it is added to h
    logits_scaling: float = 1.0  # what logits are divided by
    attn_logit_softcapping: float | None = None  # c: attention scores are c tanh(score / c) (arXiv 2408.00118, section 2)
    final_logit_softcapping: float | None = None  # of the logits, likewise
    conv_kernel: int = 0
    linear_attention: LinearAttention | None = None
    tensor_prefix: str = "model."


class LoraConfig(Record, frozen=True):
    """LoRA on the matrices of a layer: `y += alpha/rank * (x Aᵀ) Bᵀ` (Hu et al., arXiv 2106.09685)."""

    rank: int = 8
    alpha: float = 16.0

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


class QuantizationConfig(Record, frozen=True):
    """Symmetric, group-wise along the input dimension. `bits` for the blocks, `embedding_bits` for embedding and head.

    `quantizer`: how the blocks are rounded; "gptq" does it against a text, which `calibration` describes once it has been read.
    """

    bits: Literal[4, 8] = 4
    embedding_bits: Literal[4, 8] = 8
    group_size: int = 32
    quantizer: Quantizer = "search"
    calibration: str | None = None


def default_query_scale(head_dim: int) -> float:
    return 1.0 / math.sqrt(head_dim)


ImplicitUpdates = Literal["momentum", "none"]


class AdamWConfig(Record, frozen=True):
    """`clip_norm`: the gradient of a step is scaled down to this norm (an export takes 0 for none). `implicit_updates`: what happens to
    a layer that a step does not train: with "momentum" AdamW sees a zero gradient, so its moments go on moving it; with "none" it rests."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    implicit_updates: ImplicitUpdates = "momentum"
