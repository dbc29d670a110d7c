"""Gemma 3's language model (arXiv 2503.19786): norms of weight 1 + w around both halves, normed queries and keys, scaled
embeddings, and window layers with a RoPE base of their own between the full ones.

`model_type` "gemma3_text", and the text model within checkpoints of "gemma3" (the 4B and larger), which have a vision tower besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
from torch import Tensor

from lcsb_mobile.config import ModelConfig, RopeScaling
from lcsb_mobile.export.models.decoder import decoder_kinds, decoder_layers
from lcsb_mobile.export.models.hf_config import (
    FULL,
    SLIDING,
    LayerCount,
    LayerTypes,
    PositiveInt,
    Raw,
    decoder_config,
    read_fields,
    read_rope,
    read_text_config,
    refuse_unless,
    resolve_attention,
    resolve_layer_types,
)
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.models.layers import (
    Attend,
    Linear,
    gated_mlp,
    gelu_tanh,
    head_norm_weights,
    normed_attention,
    projection_weights,
    rms_norm,
)

TENSOR_PREFIXES = ("model.", "model.language_model.")  # of the text model; transformers may save either with either model_type
# As transformers renames what its versions before 4.52 have written, and what is published (`conversion_mapping`, "llava").
RENAMED = {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."}
MULTIMODAL = "gemma3"
TEXT = "gemma3_text"
# What a published `text_config` leaves out is transformers' Gemma3TextConfig, sizes included.
SIZES = {"vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8}


class Gemma3Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Gemma3TextConfig."""

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
    query_pre_attn_scalar: Annotated[float, msgspec.Meta(gt=0)] = 256
    sliding_window: PositiveInt | None = 4096
    sliding_window_pattern: PositiveInt = 6
    layer_types: LayerTypes | None = None
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = False
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rope_parameters: dict[str, dict[str, object] | None] | None = None
    rope_scaling: dict[str, object] | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    multimodal = raw.get("model_type") == MULTIMODAL
    if multimodal:
        raw = SIZES | dict(read_text_config(raw, tied=True))
    fields = read_fields(raw, Gemma3Fields)
    _refuse_unsupported(fields)
    pattern = fields.sliding_window_pattern
    default_types = [SLIDING if (layer + 1) % pattern else FULL for layer in range(fields.num_hidden_layers)]
    layer_types = resolve_layer_types(fields.layer_types, default_types)
    attention_kinds = resolve_attention(layer_types, _read_ropes(raw, fields), fields.sliding_window)
    return decoder_config(
        TEXT,
        fields,
        fields.head_dim,
        layer_types,
        attention_kinds,
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        query_scale=fields.query_pre_attn_scalar**-0.5,
        embedding_scale=math.sqrt(fields.hidden_size),
        tensor_prefix=TENSOR_PREFIXES[multimodal],
    )


def _refuse_unsupported(fields: Gemma3Fields) -> None:
    options: dict[str, tuple[object, tuple[object, ...]]] = {
        "hidden_activation": (fields.hidden_activation, ("gelu_pytorch_tanh",)),
        "final_logit_softcapping": (fields.final_logit_softcapping, (None,)),
        "attn_logit_softcapping": (fields.attn_logit_softcapping, (None,)),
        "use_bidirectional_attention": (fields.use_bidirectional_attention, (False, None)),
    }
    ropes = {name: rope or {} for name, rope in (fields.rope_parameters or {}).items()} | {"rope_scaling": fields.rope_scaling or {}}
    # transformers looks for it beside the layer types, where nobody writes it, and truncates.
    options |= {f"truncate of {name}": (rope.get("truncate", True), (True,)) for name, rope in ropes.items()}
    unknown = sorted(set(fields.rope_parameters or {}) - {FULL, SLIDING})
    options |= {f"rope_parameters, layer type {name}": (name, (FULL, SLIDING)) for name in unknown}
    refuse_unless(TEXT, options)


def _read_ropes(raw: Raw, fields: Gemma3Fields) -> dict[str, tuple[float, RopeScaling | None]]:
    """Layer type -> (theta, scaling). The classic `rope_scaling` is the full layers' alone."""
    nested = fields.rope_parameters or {}
    raw = {name: value for name, value in raw.items() if name != "original_max_position_embeddings"}  # of a layer type only its own counts
    full = {**(nested.get(FULL) or {}), **(fields.rope_scaling or {})}
    return {
        FULL: read_rope(raw, full, theta=fields.rope_theta, default_theta=1_000_000.0, where=f"RoPE of {FULL}"),
        SLIDING: read_rope(raw, nested.get(SLIDING), theta=fields.rope_local_base_freq, default_theta=10_000.0, where=f"RoPE of {SLIDING}"),
    }


def layer_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name within a layer -> shape; matrices are [out, in], norms and biases vectors."""
    return projection_weights(config) | head_norm_weights(config) | sandwich_weights(config)


def sandwich_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The norms of `sandwiched`."""
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    return {f"{name}.weight": (config.hidden_size,) for name in norms}


def norm(x: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(x, 1.0 + weight, config.rms_norm_eps)


def sandwiched(
    h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attention: Callable[[Tensor], Tensor], config: ModelConfig
) -> Tensor:
    """Gemma's block from 2 on: each half with a norm before and after it. `attention`: of normed x (T, D) -> (T, D)."""
    x = attention(norm(h, vectors["input_layernorm.weight"], config))
    h = h + norm(x, vectors["post_attention_layernorm.weight"], config)
    x = norm(h, vectors["pre_feedforward_layernorm.weight"], config)
    x = gated_mlp(x, linear, gelu_tanh)
    return h + norm(x, vectors["post_feedforward_layernorm.weight"], config)


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    return sandwiched(h, vectors, linear, lambda x: normed_attention(x, vectors, linear, attend, config, norm), config)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, layer_weights(config), block)


layers = decoder_layers


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return norm(h, weight, config)
