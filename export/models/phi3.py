"""Phi-3 (arXiv 2404.14219), Phi-3.5 mini and Phi-4 mini (arXiv 2503.01743): Llama's block whose queries, keys and values are one matrix,
as gate and up are. Both stay whole, so that LoRA on them is PEFT's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from lcsb_mobile.config import ModelConfig, RopeScaling
from lcsb_mobile.export.models import llama
from lcsb_mobile.export.models.decoder import decoder_kinds, decoder_layers
from lcsb_mobile.export.models.hf_config import (
    LayerCount,
    PositiveInt,
    Raw,
    decoder_config,
    late_windows,
    read_fields,
    read_partial_rope,
    refuse_unless,
)
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.models.layers import FUSED_MLP, Attend, Linear, fused_gated_mlp, rms_norm, silu, split_heads

QKV, OUTPUT = "self_attn.qkv_proj", "self_attn.o_proj"
OLD_LONGROPE = ("su", "yarn")  # what early Phi-3 calls longrope
CONTEXT = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096}  # Phi3Config's defaults


class Phi3Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Phi3Config."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    sliding_window: PositiveInt | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, Phi3Fields)
    refuse_unless("phi3", {"hidden_act": (fields.hidden_act, ("silu",))})
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    rope, rotary_dim = _read_rope(raw, head_dim)
    layer_types, attention_kinds = late_windows(fields.num_hidden_layers, None, fields.sliding_window, 0, rope)
    return decoder_config(
        "phi3",
        fields,
        head_dim,
        layer_types,
        attention_kinds,
        rotary_dim=rotary_dim,
    )


def _read_rope(raw: Raw, head_dim: int) -> tuple[tuple[float, RopeScaling | None], int]:
    """(theta, scaling), and how much of a head it turns."""
    name = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    rope: Any = raw.get(name)
    if isinstance(rope, Mapping):  # else it is refused below
        found = rope.get("rope_type") or rope.get("type")
        refuse_unless(name, {"rope_type": (found, (None, "default", "longrope", *OLD_LONGROPE))})
        rope = {**rope, "rope_type": "longrope"} if found in OLD_LONGROPE else rope
    return read_partial_rope({**CONTEXT, **raw, name: rope}, head_dim, 1.0)


def sizes(config: ModelConfig) -> tuple[int, int, int]:
    """Rows of QKV: of queries, keys and values."""
    kv = config.num_key_value_heads * config.head_dim
    return config.num_attention_heads * config.head_dim, kv, kv


def layer_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name within a layer -> shape; matrices are [out, in], norms vectors."""
    hidden, inner = config.hidden_size, config.intermediate_size
    gate_up, down = FUSED_MLP
    matrices = {
        QKV: (sum(sizes(config)), hidden),
        OUTPUT: (hidden, config.num_attention_heads * config.head_dim),
        gate_up: (2 * inner, hidden),
        down: (hidden, inner),
    }
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
    return {f"{name}.weight": shape for name, shape in matrices.items()} | dict.fromkeys(norms, (hidden,))


def self_attention(x: Tensor, linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    q, k, v = (split_heads(part, config.head_dim) for part in torch.split(linear(QKV, x), list(sizes(config)), 1))  # (T, heads, d)
    return linear(OUTPUT, attend(q, k, v))  # (T, D)


def block(h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
    """One layer, h (T, D) -> (T, D). `linear` is matrix and LoRA of a projection by name, `attend` attention with RoPE and mask."""
    x = rms_norm(h, vectors["input_layernorm.weight"], config.rms_norm_eps)
    h = h + self_attention(x, linear, attend, config)
    x = rms_norm(h, vectors["post_attention_layernorm.weight"], config.rms_norm_eps)
    return h + fused_gated_mlp(x, linear, silu)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    return decoder_kinds(config, layer_weights(config), block)


layers = decoder_layers
final_norm = llama.final_norm
