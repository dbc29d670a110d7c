"""SmolLM3 (https://huggingface.co/blog/smollm3): Llama's block, and layers whose queries and keys RoPE does not turn (arXiv 2501.18795)."""

from __future__ import annotations

import msgspec

from lcsb_mobile.config import AttentionKind, ModelConfig
from lcsb_mobile.errors import CheckpointError
from lcsb_mobile.export.models import llama
from lcsb_mobile.export.models.decoder import decoder_layers
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

NO_ROPE = "_no_rope"  # a layer type of its own: its tables of angles are those of no angle


class SmolLM3Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' SmolLM3Config."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = 4
    head_dim: PositiveInt | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = None
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: PositiveInt = 4
    layer_types: LayerTypes | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, SmolLM3Fields)
    refuse_unless("smollm3", {"hidden_act": (fields.hidden_act, ("silu",))})
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    layer_types, attention_kinds = _attention(raw, fields)
    return decoder_config(
        "smollm3",
        fields,
        head_dim,
        layer_types,
        attention_kinds,
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        mlp_bias=fields.mlp_bias,
    )


def _attention(raw: Raw, fields: SmolLM3Fields) -> tuple[tuple[str, ...], dict[str, AttentionKind]]:
    """`layer_types`, which say whether there is RoPE too, and what each is. Unless `layer_types` says it, the layers without RoPE are those
    with the window."""
    rotary = _rotary(fields)
    window = fields.sliding_window if fields.use_sliding_window else None
    default = [FULL if window is None or turned else SLIDING for turned in rotary]
    types = resolve_layer_types(fields.layer_types, default)
    rope = read_flat_rope(raw, default_theta=2_000_000.0)
    kinds = resolve_attention(types, {FULL: rope, SLIDING: rope}, window)
    named = [name if turned else name + NO_ROPE for name, turned in zip(types, rotary)]
    found = dict.fromkeys(zip(named, types, rotary))
    return tuple(named), {name: msgspec.structs.replace(kinds[own], rotary=turned) for name, own, turned in found}


def _rotary(fields: SmolLM3Fields) -> list[bool]:
    """Of each layer whether it has RoPE; `no_rope_layers` has 1 where it does."""
    layers, listed = fields.num_hidden_layers, fields.no_rope_layers
    if listed is None:
        return [(layer + 1) % fields.no_rope_layer_interval != 0 for layer in range(layers)]
    if len(listed) < layers:
        raise CheckpointError(f"config.json: no_rope_layers has {len(listed)} entries, num_hidden_layers is {layers}")
    return [bool(entry) for entry in listed[:layers]]


kinds, layers, final_norm = llama.kinds, decoder_layers, llama.final_norm
