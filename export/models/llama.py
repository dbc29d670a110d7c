"""Llama (arXiv 2302.13971; Llama 3's RoPE scaling), also SmolLM2 and others of `model_type` "llama"."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models.decoder import decoder_kinds, decoder_layers
from lcsb_mobile.export.models.hf_config import (
    FULL,
    LayerCount,
    PositiveInt,
    Raw,
    decoder_config,
    read_fields,
    read_flat_rope,
    refuse_unless,
    resolve_attention,
)
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.models.layers import Attend, Linear, gated_mlp, projection_weights, rms_norm, silu, split_heads


class LlamaFields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' LlamaConfig."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, LlamaFields)
    refuse_unless("llama", {"hidden_act": (fields.hidden_act, ("silu",))})
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    layer_types = [FULL] * fields.num_hidden_layers
    attention_kinds = resolve_attention(layer_types, {FULL: read_flat_rope(raw)}, None)
    return decoder_config(
        "llama",
        fields,
        head_dim,
        layer_types,
        attention_kinds,
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        mlp_bias=fields.mlp_bias,
    )


def layer_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name within a layer -> shape; matrices are [out, in], norms and biases vectors."""
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
    return projection_weights(config) | dict.fromkeys(norms, (config.hidden_size,))


def self_attention(x: Tensor, linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    q, k, v = (split_heads(linear(f"self_attn.{name}_proj", x), config.head_dim) for name in "qkv")  # (T, heads, d)
    return linear("self_attn.o_proj", attend(q, k, v))  # (T, D)


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    x = rms_norm(h, vectors["input_layernorm.weight"], config.rms_norm_eps)
    h = h + self_attention(x, linear, attend, config)
    x = rms_norm(h, vectors["post_attention_layernorm.weight"], config.rms_norm_eps)
    return h + gated_mlp(x, linear, silu)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, layer_weights(config), block)


layers = decoder_layers


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(h, weight, config.rms_norm_eps)
