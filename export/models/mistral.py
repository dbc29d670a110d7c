"""Mistral 7B (arXiv 2310.06825) and Ministral: Llama's block, with a sliding window in every layer or in those that `layer_types` names."""

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


class MistralFields(msgspec.Struct, kw_only=True):
    """The fields of `config.json` that matter, with the defaults of transformers' MistralConfig."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: LayerCount
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = 8
    head_dim: PositiveInt | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    sliding_window: PositiveInt | None = 4096
    layer_types: LayerTypes | None = None


def read_config(raw: Raw) -> ModelConfig:
    """Raises CheckpointError for a missing or mistyped field, UnsupportedModelError for an option that is not supported."""
    fields = read_fields(raw, MistralFields)
    refuse_unless("mistral", {"hidden_act": (fields.hidden_act, ("silu",))})
    head_dim = fields.head_dim or max(1, fields.hidden_size // fields.num_attention_heads)
    layer_types, attention_kinds = late_windows(fields.num_hidden_layers, fields.layer_types, fields.sliding_window, 0, read_flat_rope(raw))
    return decoder_config(
        "mistral" if fields.layer_types is None else "ministral",  # as AutoConfig takes it, whatever model_type says
        fields,
        head_dim,
        layer_types,
        attention_kinds,
    )


kinds = llama.kinds
layers = decoder_layers
final_norm = llama.final_norm
