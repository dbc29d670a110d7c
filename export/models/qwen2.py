"""Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama's block with biases on q, k and v; some layers may have a sliding window."""

from __future__ import annotations

import msgspec

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models import llama
from lcsb_mobile.export.models.decoder import decoder_layers
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


class Qwen2Fields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' Qwen2Config."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = 32
    head_dim: PositiveInt | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = 4096
    max_window_layers: int = 28
    layer_types: LayerTypes | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, Qwen2Fields)
    refuse_unless("qwen2", {"hidden_act": (fields.hidden_act, ("silu",))})
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    window = fields.sliding_window if fields.use_sliding_window else None
    layer_types, attention_kinds = late_windows(
        fields.num_hidden_layers, fields.layer_types, window, fields.max_window_layers, read_flat_rope(raw)
    )
    return decoder_config(
        "qwen2",
        fields,
        head_dim,
        layer_types,
        attention_kinds,
        qkv_bias=True,
    )


kinds = llama.kinds
layers = decoder_layers
final_norm = llama.final_norm
