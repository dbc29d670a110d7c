"""Qwen3.5's dense language models: three layers of a gated delta rule to one of gated attention, with RoPE on a part of each head.

`model_type` "qwen3_5_text", and the text model within checkpoints of "qwen3_5", which have a vision tower besides.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
import torch
from torch import Tensor, sigmoid, split

from lcsb_mobile.config import LinearAttention, ModelConfig
from lcsb_mobile.export.models import convolution
from lcsb_mobile.export.models.convolution import causal_conv, conv_state, conv_weight
from lcsb_mobile.export.models.decoder import attending, attention_states, attention_width
from lcsb_mobile.export.models.delta_rule import CHUNK, Chunks, constants, delta_rule, delta_step, l2_norm, softplus
from lcsb_mobile.export.models.hf_config import (
    FULL,
    LINEAR,
    LayerCount,
    LayerTypes,
    PositiveInt,
    Raw,
    decoder_config,
    read_fields,
    read_partial_rope,
    read_text_config,
    refuse_unless,
    resolve_attention,
    resolve_layer_types,
)
from lcsb_mobile.export.models.kinds import BlockKind, Memory, Place, State, Values, Vector
from lcsb_mobile.export.models.layers import HEAD_NORMS, Linear, gated_mlp, in_tiles, rms_norm, silu, split_heads
from lcsb_mobile.export.models.recompute import recomputed
from lcsb_mobile.export.models.tables import TYPED, typed_reads

TENSOR_PREFIXES = ("model.", "model.language_model.")  # of the text model; transformers may save either with either model_type
MULTIMODAL = "qwen3_5"
TEXT = "qwen3_5_text"
READS = ("within", "carried", "real", *convolution.READS)
STATE = "state"
GROUPS = 2  # of heads that are mixed one after the other, at most
MROPE = ("mrope_section", "mrope_interleaved")  # a text's positions are the same on all three axes


class Qwen3_5Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Qwen3_5TextConfig."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt = 4
    head_dim: PositiveInt = 256
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    attn_output_gate: bool = True
    num_experts: int | None = None
    linear_conv_kernel_dim: Annotated[int, msgspec.Meta(ge=2, le=64)] = 4
    linear_key_head_dim: PositiveInt = 128
    linear_value_head_dim: PositiveInt = 128
    linear_num_key_heads: PositiveInt = 16
    linear_num_value_heads: PositiveInt = 32
    full_attention_interval: PositiveInt = 4
    layer_types: LayerTypes | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    multimodal = raw.get("model_type") == MULTIMODAL
    if multimodal:
        raw = read_text_config(raw, tied=False)
    fields = read_fields(raw, Qwen3_5Fields)
    options: dict[str, tuple[object, tuple[object, ...]]] = {
        "hidden_act": (fields.hidden_act, ("silu",)),
        "attn_output_gate": (fields.attn_output_gate, (True,)),
        "num_experts": (fields.num_experts, (None, 0)),
    }
    refuse_unless(TEXT, options)
    default_types = [LINEAR if (layer + 1) % fields.full_attention_interval else FULL for layer in range(fields.num_hidden_layers)]
    layer_types = resolve_layer_types(fields.layer_types, default_types, (LINEAR, FULL))
    rope, rotary_dim = read_partial_rope(raw, fields.head_dim, 0.25, ignored=MROPE)
    return decoder_config(
        TEXT,
        fields,
        fields.head_dim,
        layer_types,
        resolve_attention(layer_types, {FULL: rope}, None),
        rotary_dim=rotary_dim,
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        conv_kernel=fields.linear_conv_kernel_dim if LINEAR in layer_types else 0,
        linear_attention=_linear_attention(fields) if LINEAR in layer_types else None,
        tensor_prefix=TENSOR_PREFIXES[multimodal],
    )


def _linear_attention(fields: Qwen3_5Fields) -> LinearAttention:
    return LinearAttention(
        num_key_heads=fields.linear_num_key_heads,
        num_value_heads=fields.linear_num_value_heads,
        key_head_dim=fields.linear_key_head_dim,
        value_head_dim=fields.linear_value_head_dim,
        chunk=CHUNK,
    )


def norm(x: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(x, 1.0 + weight, config.rms_norm_eps)


def finish(h: Tensor, w: Values, linear: Linear, config: ModelConfig) -> tuple[Tensor]:
    """The second half of every layer."""
    return (h + gated_mlp(norm(h, w["post_attention_layernorm.weight"], config), linear, silu),)


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    made = {LINEAR: _linear_kind, FULL: _full_kind}
    return tuple(made[name](config) for name in dict.fromkeys(config.layer_types))


def layers(config: ModelConfig) -> tuple[Place, ...]:
    places = {LINEAR: Place("linear", {name: name for name in READS}), FULL: Place("full", typed_reads(FULL))}
    return tuple(places[name] for name in config.layer_types)


def _linear_kind(config: ModelConfig) -> BlockKind:
    rule = config.linear_attention
    assert rule is not None
    key, value = rule.num_key_heads * rule.key_head_dim, rule.num_value_heads * rule.value_head_dim
    hidden, heads, kernel, channels = config.hidden_size, rule.num_value_heads, config.conv_kernel, 2 * key + value

    def block(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        y = norm(x["h"], w["input_layernorm.weight"], config)
        q, k, v = linear.rows("linear_attn.in_proj_qkv", y, (key, key, value))
        z = in_tiles(linear, "linear_attn.in_proj_z", y)
        a, b = (y @ w[f"linear_attn.in_proj_{name}.weight"].t() for name in "ab")
        g = softplus(a + w["linear_attn.dt_bias"]) * w["linear_attn.decay"]
        mix = linear.within_sequences(partial(_mixed, x=x, conv=w["linear_attn.conv1d.weight"], rule=rule, memory=memory))
        y = rms_norm(mix(q, k, v, g, sigmoid(b)), w["linear_attn.norm.weight"], config.rms_norm_eps)  # of weight w, not 1 + w
        y = (y * silu(split_heads(z, rule.value_head_dim))).reshape(-1, value)
        return finish(x["h"] + in_tiles(linear, "linear_attn.out_proj", y), w, linear, config)

    projections = {"in_proj_qkv": (channels, hidden), "in_proj_z": (value, hidden), "out_proj": (hidden, value)}
    vectors = {
        "in_proj_a.weight": Vector((heads, hidden)),  # too small to quantise or to adapt
        "in_proj_b.weight": Vector((heads, hidden)),
        "conv1d.weight": conv_weight(kernel, channels),
        "dt_bias": Vector((heads,)),
        "decay": Vector((heads,), source="linear_attn.A_log", convert=lambda a_log: -a_log.exp()),
        "norm.weight": Vector((rule.value_head_dim,)),
    }
    states = {
        convolution.STATE: conv_state(kernel, channels),
        STATE: State((heads, rule.key_head_dim, rule.value_head_dim), by_position=False),
    }
    return BlockKind(
        "linear",
        block,
        {f"linear_attn.{name}": shape for name, shape in projections.items()} | _mlp(config),
        {f"linear_attn.{name}": vector for name, vector in vectors.items()} | _norms(config),
        READS,
        states,
        consts=constants(rule.chunk),
    )


def _mixed(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, x: Values, conv: Tensor, rule: LinearAttention, memory: Memory | None
) -> Tensor:
    """q, k (T, key), v (T, value), g and beta (T, heads) -> what the delta rule reads, (T, heads, value_head_dim)."""
    if memory is not None:
        sizes = [part.shape[1] for part in (q, k, v)]  # what is remembered is of all channels
        q, k, v = split(silu(causal_conv(torch.cat((q, k, v), 1), conv, x, memory)), sizes, 1)
        return _read(q, k, v, g, beta, x, rule, memory)
    # A few heads at a time, each group computed again for its gradient: between forward and backward there are forty tensors as wide as q.
    # What is computed of a group leads to one tensor, so a runtime that walks back from the results ends it before it begins the next.
    count = max(number for number in range(1, GROUPS + 1) if rule.num_key_heads % number == 0)
    parts = [split(part, part.shape[1] // count, 1) for part in (q, k, v, g, beta)]
    of_weights = [split(weight, weight.shape[1] // count, 1) for weight in split(conv, [part.shape[1] for part in (q, k, v)], 1)]
    outputs = []
    for group, weights in zip((torch.cat(group, 1) for group in zip(*parts)), zip(*of_weights)):
        outputs.append(recomputed(partial(_mixed_group, [part[0].shape[1] for part in parts], x, rule), group, *weights))
    return torch.cat(outputs, 1)


def _mixed_group(sizes: list[int], x: Values, rule: LinearAttention, group: Tensor, *weights: Tensor) -> Tensor:
    """q, k, v, g and beta in one tensor, of these sizes."""
    *channels, g, beta = split(group, sizes, 1)
    q, k, v = (silu(causal_conv(part, weight, x)) for part, weight in zip(channels, weights))
    return _read(q, k, v, g, beta, x, rule, None)


def _read(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, x: Values, rule: LinearAttention, memory: Memory | None) -> Tensor:
    """Of some heads, after the convolution."""
    q, k = (split_heads(part, rule.key_head_dim) for part in (q, k))
    q, k = l2_norm(q) * rule.key_head_dim**-0.5, l2_norm(k)
    q, k = (_repeat_heads(part, rule.num_value_heads // rule.num_key_heads) for part in (q, k))
    v = split_heads(v, rule.value_head_dim)
    if memory is not None and memory.decoding:
        out, state = delta_step(q, k, v, g, beta, memory.past(STATE))
        memory.keep(STATE, state)
        return out
    chunks = Chunks(*(x[name] for name in ("within", "carried", "eye", "halves")))
    if memory is None:
        return delta_rule(q, k, v, g, beta, chunks)[0]
    # The state after the prompt goes through its padding unchanged.
    out, state = delta_rule(q, k, v, g * x["real"], beta * x["real"], chunks.as_one_segment())
    memory.keep(STATE, state)
    return out


def _repeat_heads(x: Tensor, times: int) -> Tensor:
    """(T, K, d) -> (T, K * times, d), each head `times` in a row."""
    if times == 1:
        return x
    t, heads, d = x.shape
    return x.reshape(t, heads, 1, d).expand(t, heads, times, d).reshape(t, heads * times, d)


def _full_kind(config: ModelConfig) -> BlockKind:
    hidden, d = config.hidden_size, config.head_dim
    q, kv = config.num_attention_heads * d, config.num_key_value_heads * d

    def block(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        y = norm(x["h"], w["input_layernorm.weight"], config)
        q, gate = split(split_heads(in_tiles(linear, "self_attn.q_proj", y), 2 * d), [d, d], -1)  # head by head
        k, v = (split_heads(linear(f"self_attn.{name}_proj", y), d) for name in "kv")  # (T, heads, d)
        q, k = (norm(heads, w[name], config) for heads, name in zip((q, k), HEAD_NORMS))
        y = attending(x, linear, config, memory)(q, k, v) * sigmoid(gate.reshape(gate.shape[0], -1))
        return finish(x["h"] + in_tiles(linear, "self_attn.o_proj", y), w, linear, config)

    attention = {"q_proj": (2 * q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
    matrices = {f"self_attn.{name}": shape for name, shape in attention.items()}
    biases = {f"{name}.bias": Vector((shape[0],)) for name, shape in matrices.items()} if config.qkv_bias else {}
    vectors = _norms(config) | {name: Vector((d,)) for name in HEAD_NORMS} | biases
    return BlockKind(
        "full", block, matrices | _mlp(config), vectors, TYPED, attention_states(config), attention_width=attention_width(config)
    )


def _mlp(config: ModelConfig) -> dict[str, tuple[int, int]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    return {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}


def _norms(config: ModelConfig) -> dict[str, Vector]:
    return {f"{name}.weight": Vector((config.hidden_size,)) for name in ("input_layernorm", "post_attention_layernorm")}


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return norm(h, weight, config)
