"""A made-up architecture with values that cross layers: some layers attend to keys and values that a layer below has given.

It stands where an architecture's module stands: `read_config`, `kinds`, `layers`, `final_norm`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lcsb_mobile.config import AttentionKind, ModelConfig, default_query_scale
from lcsb_mobile.export.models.decoder import attention_states, attention_width
from lcsb_mobile.export.models.kinds import BlockKind, Memory, Place, Values, Vector, extended
from lcsb_mobile.export.models.layers import Linear, apply_rope, attention_of_rotated, gated_mlp, rms_norm, silu, split_heads
from lcsb_mobile.export.models.tables import TYPED, typed_reads

MODEL_TYPE = "crossing"
FULL, SHARED = "full_attention", "shared_attention"
LAYER_TYPES = (FULL, SHARED, FULL, SHARED, FULL, SHARED)
# Layer -> the layer whose keys and values it takes. Layer 0 has two takers, layer 4 none.
TAKEN = {1: 0, 3: 2, 5: 0}
GIVES, TAKES = ("all_keys", "all_values"), ("keys", "values")  # what is given stands beside the states `keys` and `values`
RAW: dict[str, Any] = {
    "model_type": MODEL_TYPE,
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
}


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(
        **{name: raw[name] for name in RAW},
        num_hidden_layers=len(LAYER_TYPES),
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        layer_types=LAYER_TYPES,
        attention_kinds={FULL: AttentionKind(10_000.0)},
        rotary_dim=raw["head_dim"],
        query_scale=default_query_scale(raw["head_dim"]),
    )


def kinds(config: ModelConfig) -> tuple[BlockKind, ...]:
    hidden, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_attention_heads * d, config.num_key_value_heads * d

    def finish(h: Tensor, w: Values, linear: Linear) -> Tensor:
        return h + gated_mlp(rms_norm(h, w["ffn_norm.weight"], config.rms_norm_eps), linear, silu)

    def attend(h: Tensor, y: Tensor, k: Tensor, v: Tensor, x: Values, w: Values, linear: Linear) -> Tensor:
        queries = split_heads(linear("self_attn.q_proj", y), d)
        mix = linear.within_sequences(
            lambda q, k, v: attention_of_rotated(apply_rope(q, x["cos"], x["sin"], config.query_scale), k, v, x["mask"])
        )
        return finish(h + linear("self_attn.o_proj", mix(queries, k, v)), w, linear)

    def giving(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        y = rms_norm(x["h"], w["norm.weight"], config.rms_norm_eps)
        k, v = (split_heads(linear(f"self_attn.{name}_proj", y), d) for name in "kv")
        k = extended(memory, "keys", linear.within_sequences(lambda k: apply_rope(k, x["cos"], x["sin"]))(k))
        v = extended(memory, "values", v)
        return attend(x["h"], y, k, v, x, w, linear), k, v

    def taking(x: Values, w: Values, linear: Linear, memory: Memory | None = None) -> tuple[Tensor, ...]:
        y = rms_norm(x["h"], w["norm.weight"], config.rms_norm_eps)
        return (attend(x["h"], y, x["keys"], x["values"], x, w, linear),)

    matrices = {"self_attn.q_proj": (q, hidden), "self_attn.o_proj": (hidden, q)}
    matrices |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    keys_and_values = {"self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden)}
    norms = {name: Vector((hidden,)) for name in ("norm.weight", "ffn_norm.weight")}
    width = attention_width(config)
    return (
        BlockKind(
            "full",
            giving,
            matrices | keys_and_values,
            norms,
            TYPED,
            attention_states(config),
            gives=GIVES,
            attention_width=width,
        ),
        BlockKind("shared", taking, matrices, norms, TYPED, {}, takes=TAKES, attention_width=width),
    )


def layers(config: ModelConfig) -> tuple[Place, ...]:
    def bound(names: tuple[str, ...], giver: int) -> dict[str, str]:
        return {name: f"{name.removeprefix('all_')}.{giver}" for name in names}

    return tuple(
        Place("shared", typed_reads(FULL), takes=bound(TAKES, TAKEN[number]))
        if name == SHARED
        else Place("full", typed_reads(FULL), gives=bound(GIVES, number) if number in TAKEN.values() else {})
        for number, name in enumerate(config.layer_types)
    )


def final_norm(h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
    return rms_norm(h, weight, config.rms_norm_eps)


def random_tensors(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> Callable[[str], Tensor]:
    """A checkpoint's tensors by name, of the shapes that `models.checkpoint_weights` lists; each depends on its name alone."""

    def read(name: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        x = torch.randn(shapes[name], generator=generator, dtype=dtype)
        return 1.0 + 0.3 * x if x.dim() == 1 else x * x.shape[1] ** -0.5

    return read
