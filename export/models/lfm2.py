"""LFM2 (Liquid AI's 350M to 2.6B): gated convolutions over a few tokens, and attention with normed queries and keys between them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor, split

from lcsb_mobile.config import ModelConfig, default_query_scale
from lcsb_mobile.export.models.convolution import READS, STATE, causal_conv, conv_state, conv_weight
from lcsb_mobile.export.models.decoder import attending, attention_states, attention_width
from lcsb_mobile.export.models.hf_config import (
    CONV,
    FULL,
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
from lcsb_mobile.export.models.kinds import BlockKind, Memory, Place, Values, Vector
from lcsb_mobile.export.models.layers import Linear, gated_mlp, rms_norm, silu, split_heads
from lcsb_mobile.export.models.tables import TYPED, typed_reads

FINAL_NORM = "embedding_norm.weight"
MLP = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")  # gate, up, down


class Lfm2Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Lfm2Config."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt | None = None
    block_ff_dim: PositiveInt | None = None
    block_auto_adjust_ff_dim: bool = True
    block_ffn_dim_multiplier: Annotated[float, msgspec.Meta(gt=0, le=1024)] = 1.0
    block_multiple_of: PositiveInt = 256
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt = 8
    head_dim: PositiveInt | None = None
    norm_eps: float = 1e-5
    conv_bias: bool = False
    conv_L_cache: Annotated[int, msgspec.Meta(ge=2, le=64)] = 3
    tie_word_embeddings: bool = True
    tie_embedding: bool | None = None
    full_attn_idxs: list[int] | None = None
    layer_types: LayerTypes | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, Lfm2Fields)
    refuse_unless("lfm2", {"conv_bias": (fields.conv_bias, (False,))})
    attend = range(fields.num_hidden_layers) if fields.full_attn_idxs is None else fields.full_attn_idxs
    default_types = [FULL if layer in attend else CONV for layer in range(fields.num_hidden_layers)]
    layer_types = resolve_layer_types(fields.layer_types, default_types, (FULL, CONV))
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    config = ModelConfig(
        model_type="lfm2",
        vocab_size=fields.vocab_size,
        hidden_size=fields.hidden_size,
        intermediate_size=_intermediate_size(fields),
        num_hidden_layers=fields.num_hidden_layers,
        num_attention_heads=fields.num_attention_heads,
        num_key_value_heads=fields.num_key_value_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.norm_eps,
        tie_word_embeddings=fields.tie_word_embeddings if fields.tie_embedding is None else fields.tie_embedding,
        layer_types=tuple(layer_types),
        attention_kinds=resolve_attention(layer_types, {FULL: read_flat_rope(raw, default_theta=1_000_000.0)}, None),
        rotary_dim=head_dim,
        query_scale=default_query_scale(head_dim),
        conv_kernel=fields.conv_L_cache if CONV in layer_types else 0,
    )
    return check_shape(config)


def _intermediate_size(fields: Lfm2Fields) -> int:
    """`block_ff_dim` is the older name of `intermediate_size` and wins; unless it is to be left alone, two thirds of it, rounded up."""
    size = fields.block_ff_dim or fields.intermediate_size or 12_288
    if not fields.block_auto_adjust_ff_dim:
        return size
    size = int(fields.block_ffn_dim_multiplier * int(2 * size / 3))
    return -(-size // fields.block_multiple_of) * fields.block_multiple_of


def norm(x: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(x, weight, config.rms_norm_eps)


def finish(h: Tensor, w: Values, linear: Linear, config: ModelConfig) -> tuple[Tensor]:
    """The second half of every layer."""
    return (h + gated_mlp(norm(h, w["ffn_norm.weight"], config), linear, silu, MLP),)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    made = {CONV: _conv_kind, FULL: _full_kind}
    return tuple(made[name](config) for name in dict.fromkeys(config.layer_types))


def layers(config: ModelConfig) -> tuple[Place, ...]:
    places = {CONV: Place("conv", {name: name for name in READS}), FULL: Place("full", typed_reads(FULL))}
    return tuple(places[name] for name in config.layer_types)


def _conv_kind(config: ModelConfig) -> BlockKind:
    hidden, kernel = config.hidden_size, config.conv_kernel

    def block(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        y = norm(x["h"], w["operator_norm.weight"], config)
        gate_in, gate_out, y = split(linear("conv.in_proj", y), [hidden] * 3, 1)
        convolve = linear.within_sequences(lambda y: causal_conv(y, w["conv.conv.weight"], x, memory))
        return finish(x["h"] + linear("conv.out_proj", gate_out * convolve(gate_in * y)), w, linear, config)

    matrices = {"conv.in_proj": (3 * hidden, hidden), "conv.out_proj": (hidden, hidden)} | _mlp(config)
    vectors = _norms(config) | {"conv.conv.weight": conv_weight(kernel, hidden)}
    return BlockKind("conv", block, matrices, vectors, READS, {STATE: conv_state(kernel, hidden)})


def _full_kind(config: ModelConfig) -> BlockKind:
    hidden, d = config.hidden_size, config.head_dim
    q, kv = config.num_attention_heads * d, config.num_key_value_heads * d

    def block(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        y = norm(x["h"], w["operator_norm.weight"], config)
        q, k, v = (split_heads(linear(f"self_attn.{name}_proj", y), d) for name in "qkv")  # (T, heads, d)
        q, k = (norm(heads, w[f"self_attn.{name}_layernorm.weight"], config) for name, heads in (("q", q), ("k", k)))
        y = linear("self_attn.out_proj", attending(x, linear, config, memory)(q, k, v))
        return finish(x["h"] + y, w, linear, config)

    attention = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "out_proj": (hidden, q)}
    matrices = {f"self_attn.{name}": shape for name, shape in attention.items()} | _mlp(config)
    vectors = _norms(config) | {f"self_attn.{name}_layernorm.weight": Vector((d,)) for name in "qk"}
    return BlockKind("full", block, matrices, vectors, TYPED, attention_states(config), attention_width=attention_width(config))


def _mlp(config: ModelConfig) -> dict[str, tuple[int, int]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    return dict(zip(MLP, ((inner, hidden), (inner, hidden), (hidden, inner))))


def _norms(config: ModelConfig) -> dict[str, Vector]:
    return {name: Vector((config.hidden_size,)) for name in ("operator_norm.weight", "ffn_norm.weight")}


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return norm(h, weight, config)
