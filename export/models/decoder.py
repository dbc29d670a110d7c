"""Decoders whose layers are all of one kind: attention and an MLP, as Llama, Qwen2, Qwen3 and Gemma 3 have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models.kinds import BlockKind, Memory, Place, State, Values, Vector, extended
from lcsb_mobile.export.models.layers import Attend, Linear, attention_over
from lcsb_mobile.export.models.tables import TYPED, typed_reads

KIND = "block"


class DecoderBlock(Protocol):
    """One layer, h (T, D) -> (T, D). `linear` is matrix, bias and LoRA of a projection by name, `attend` attention with RoPE and mask."""

    def __call__(self, h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor: ...


def decoder_kinds(config: ModelConfig, weights: Mapping[str, tuple[int, ...]], block: DecoderBlock) -> tuple[BlockKind, ...]:
    """`weights`: name within a layer -> shape; those of two dimensions are the matrices [out, in]."""

    def run(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        return (block(x["h"], w, linear, attending(x, linear, config, memory), config),)

    matrices = {name.removesuffix(".weight"): (shape[0], shape[1]) for name, shape in weights.items() if len(shape) == 2}
    vectors = {name: Vector(shape) for name, shape in weights.items() if len(shape) == 1}
    return (BlockKind(KIND, run, matrices, vectors, TYPED, attention_states(config), attention_width=attention_width(config)),)


def decoder_layers(config: ModelConfig) -> tuple[Place, ...]:
    return tuple(Place(KIND, typed_reads(name)) for name in config.layer_types)


def attending(x: Values, linear: Linear, config: ModelConfig, memory: Memory | None) -> Attend:
    """Attention of q, k and v alone: with the layer's tables, and with what is remembered of the tokens before."""

    def cache(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return extended(memory, "keys", keys), extended(memory, "values", values)

    remembered, cap = None if memory is None else cache, config.attn_logit_softcapping
    attend = attention_over(x["cos"], x["sin"], x["mask"], config.query_scale, cap, remembered)
    return linear.within_sequences(attend)


def attention_states(config: ModelConfig) -> dict[str, State]:
    """Keys (after RoPE) and values of every token."""
    return dict.fromkeys(("keys", "values"), State((config.num_key_value_heads, config.head_dim), by_position=True))


def attention_width(config: ModelConfig) -> int:
    return config.num_attention_heads * config.head_dim
