"""Gemma 2 (arXiv 2408.00118): norms of weight 1 + w around both halves, scaled embeddings, every other layer with a window, and attention
scores and logits that are soft-capped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models import gemma3_text, llama
from lcsb_mobile.export.models.decoder import decoder_kinds, decoder_layers
from lcsb_mobile.export.models.gemma3_text import sandwich_weights, sandwiched
from lcsb_mobile.export.models.hf_config import (
    FULL,
    SLIDING,
    LayerCount,
    LayerTypes,
    PositiveInt,
    Raw,
    decoder_config,
    read_fields,
    read_flat_rope,
    refuse_unless,
    resolve_attention,
    resolve_layer_types,
)
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.models.layers import Attend, Linear, projection_weights

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
    return decoder_config(
        "gemma2",
        fields,
        fields.head_dim,
        layer_types,
        resolve_attention(layer_types, {FULL: rope, SLIDING: rope}, fields.sliding_window),
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        query_scale=fields.query_pre_attn_scalar**-0.5,
        embedding_scale=math.sqrt(fields.hidden_size),
        attn_logit_softcapping=fields.attn_logit_softcapping,
        final_logit_softcapping=fields.final_logit_softcapping,
    )


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    return sandwiched(h, vectors, linear, lambda x: llama.self_attention(x, linear, attend, config), config)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, projection_weights(config) | sandwich_weights(config), block)


layers = decoder_layers
final_norm = gemma3_text.final_norm
