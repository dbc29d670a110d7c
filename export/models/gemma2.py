"""Gemma 2 (arXiv 2408.00118): norms of weight 1 + w around both halves, scaled embeddings, every other layer with a window, and attention
scores and logits that are soft-capped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models.decoder import decoder_kinds, decoder_layers
from lcsb_mobile.export.models.hf_config import (
    FULL,
    SLIDING,
    LayerCount,
    LayerTypes,
    PositiveInt,
    Raw,
    check_shape,
    read_fields,
    read_flat_rope,
    refuse_unless,
    resolve_attention,
    resolve_layer_types,
)
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.models.layers import Attend, Linear, gated_mlp, gelu_tanh, projection_weights, rms_norm, split_heads

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Gemma2Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Gemma2Config."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt = 4
    head_dim: PositiveInt = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: Positive = 256
    sliding_window: PositiveInt | None = 4096
    layer_types: LayerTypes | None = None
    final_logit_softcapping: Positive | None = 30.0
    attn_logit_softcapping: Positive | None = 50.0
    use_bidirectional_attention: bool | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, Gemma2Fields)
    options: dict[str, tuple[object, tuple[object, ...]]] = {
        "hidden_activation": (fields.hidden_activation, ("gelu_pytorch_tanh",)),
        "use_bidirectional_attention": (fields.use_bidirectional_attention, (False, None)),
    }
    refuse_unless("gemma2", options)
    default_types = [SLIDING if layer % 2 == 0 else FULL for layer in range(fields.num_hidden_layers)]
    layer_types = resolve_layer_types(fields.layer_types, default_types)
    rope = read_flat_rope(raw)
    config = ModelConfig(
        model_type="gemma2",
        vocab_size=fields.vocab_size,
        hidden_size=fields.hidden_size,
        intermediate_size=fields.intermediate_size,
        num_hidden_layers=fields.num_hidden_layers,
        num_attention_heads=fields.num_attention_heads,
        num_key_value_heads=fields.num_key_value_heads,
        head_dim=fields.head_dim,
        rms_norm_eps=fields.rms_norm_eps,
        tie_word_embeddings=fields.tie_word_embeddings,
        layer_types=tuple(layer_types),
        attention_kinds=resolve_attention(layer_types, {FULL: rope, SLIDING: rope}, fields.sliding_window),
        rotary_dim=fields.head_dim,
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        query_scale=fields.query_pre_attn_scalar**-0.5,
        embedding_scale=math.sqrt(fields.hidden_size),
        attn_logit_softcapping=fields.attn_logit_softcapping,
        final_logit_softcapping=fields.final_logit_softcapping,
    )
    return check_shape(config)


def layer_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name within a layer -> shape; matrices are [out, in], norms and biases vectors."""
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    return projection_weights(config) | {f"{name}.weight": (config.hidden_size,) for name in norms}


def norm(x: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(x, 1.0 + weight, config.rms_norm_eps)


def self_attention(x: Tensor, linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    q, k, v = (split_heads(linear(f"self_attn.{name}_proj", x), config.head_dim) for name in "qkv")  # (T, heads, d)
    return linear("self_attn.o_proj", attend(q, k, v))  # (T, D)


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    x = norm(h, vectors["input_layernorm.weight"], config)
    x = self_attention(x, linear, attend, config)
    h = h + norm(x, vectors["post_attention_layernorm.weight"], config)
    x = norm(h, vectors["pre_feedforward_layernorm.weight"], config)
    x = gated_mlp(x, linear, gelu_tanh)
    return h + norm(x, vectors["post_feedforward_layernorm.weight"], config)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, layer_weights(config), block)


layers = decoder_layers


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return norm(h, weight, config)
