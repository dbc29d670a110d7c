"""Granite 3.x, dense: Llama's block, with four multipliers: of embeddings, attention scores, what each half adds, and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models import llama
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
from lcsb_mobile.export.models.layers import Attend, Linear, gated_mlp, rms_norm, silu

Multiplier = Annotated[float, msgspec.Meta(gt=0)]


class GraniteFields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' GraniteConfig."""

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
    embedding_multiplier: Multiplier = 1.0
    attention_multiplier: Multiplier = 1.0
    residual_multiplier: Multiplier = 1.0
    logits_scaling: Multiplier = 1.0


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, GraniteFields)
    refuse_unless("granite", {"hidden_act": (fields.hidden_act, ("silu",))})
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    layer_types = [FULL] * fields.num_hidden_layers
    return decoder_config(
        "granite",
        fields,
        head_dim,
        layer_types,
        resolve_attention(layer_types, {FULL: read_flat_rope(raw)}, None),
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        mlp_bias=fields.mlp_bias,
        query_scale=fields.attention_multiplier,
        embedding_scale=fields.embedding_multiplier,
        residual_multiplier=fields.residual_multiplier,
        logits_scaling=fields.logits_scaling,
    )


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    x = rms_norm(h, vectors["input_layernorm.weight"], config.rms_norm_eps)
    h = h + llama.self_attention(x, linear, attend, config) * config.residual_multiplier
    x = rms_norm(h, vectors["post_attention_layernorm.weight"], config.rms_norm_eps)
    return h + gated_mlp(x, linear, silu) * config.residual_multiplier


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, llama.layer_weights(config), block)


layers = decoder_layers


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    """Divided by `logits_scaling`, which the head, being linear, passes on to the logits: so no head has to know of it."""
    return rms_norm(h, weight, config.rms_norm_eps) / config.logits_scaling
