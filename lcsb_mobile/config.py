"""The typed records that describe a model, an adapter and a quantisation; they stand in the manifest as they are.

Field names are those of Hugging Face's `config.json` where such a field exists. RoPE and attention windows are resolved
when a checkpoint is read (`attention_kinds`, `layer_kinds`), so that nothing after it knows the dialects of `config.json`.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen record; decoding one with an unknown or mistyped field is an error."""


Quantizer = Literal["search", "gptq"]
AccuracyLevel = Literal[0, 4]  # of com.microsoft::MatMulNBits: 0 float32 activations, 4 activations rounded to int8


class RopeScaling(Record, frozen=True):
    """How RoPE's inverse frequencies are stretched: `linear` divides them by `factor`; `llama3` is Llama 3.1's rule."""

    rope_type: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


class AttentionKind(Record, frozen=True):
    """What distinguishes one layer's attention from another's: the RoPE base and the window (None: the whole prefix)."""

    rope_theta: float
    rope_scaling: RopeScaling | None = None
    window: int | None = None


class ModelConfig(Record, frozen=True, kw_only=True):
    """The shape of a decoder. `attention_kinds[layer_kinds[l]]` is layer l's attention."""

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
    attention_kinds: tuple[AttentionKind, ...]
    layer_kinds: tuple[int, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_scale: float  # what attention scores are multiplied by; 1/sqrt(head_dim) in most families
    embedding_scale: float = 1.0  # what embeddings are multiplied by; sqrt(hidden_size) in Gemma


class LoraConfig(Record, frozen=True):
    """LoRA on q, k, v, o, gate, up and down: `y += alpha/rank * (x Aᵀ) Bᵀ` (Hu et al., arXiv 2106.09685)."""

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
    """`clip_norm`: the gradient of a step is scaled down to this norm. `implicit_updates`: what happens to a layer that a step
    does not train: with "momentum" AdamW sees a zero gradient, so its moments go on moving it; with "none" it rests."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    implicit_updates: ImplicitUpdates = "momentum"
