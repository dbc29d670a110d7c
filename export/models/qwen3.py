"""Qwen3's dense models (arXiv 2505.09388): Qwen2's block with queries and keys normed head by head in place of the biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models.decoder import decoder_kinds, decoder_layers
from lcsb_mobile.export.models.hf_config import (
    LayerCount,
    LayerTypes,
    PositiveInt,
    Raw,
    decoder_config,
    late_windows,
    read_fields,
    read_flat_rope,
    refuse_unless,
)
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.models.layers import (
    Attend,
    Linear,
    gated_mlp,
    head_norm_weights,
    normed_attention,
    projection_weights,
    rms_norm,
    silu,
)


class Qwen3Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Qwen3Config."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = 32
    head_dim: PositiveInt = 128
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = 4096
    max_window_layers: int = 28
    layer_types: LayerTypes | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, Qwen3Fields)
    refuse_unless("qwen3", {"hidden_act": (fields.hidden_act, ("silu",))})
    window = fields.sliding_window if fields.use_sliding_window else None
    layer_types, attention_kinds = late_windows(
        fields.num_hidden_layers, fields.layer_types, window, fields.max_window_layers, read_flat_rope(raw)
    )
    return decoder_config(
        "qwen3",
        fields,
        fields.head_dim,
        layer_types,
        attention_kinds,
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
    )


def layer_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name within a layer -> shape; matrices are [out, in], norms and biases vectors."""
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
    return projection_weights(config) | head_norm_weights(config) | dict.fromkeys(norms, (config.hidden_size,))


def norm(x: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(x, weight, config.rms_norm_eps)


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    x = norm(h, vectors["input_layernorm.weight"], config)
    h = h + normed_attention(x, vectors, linear, attend, config, norm)
    x = norm(h, vectors["post_attention_layernorm.weight"], config)
    return h + gated_mlp(x, linear, silu)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, layer_weights(config), block)


layers = decoder_layers


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return norm(h, weight, config)
