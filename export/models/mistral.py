"""Mistral 7B (arXiv 2310.06825) and Ministral: Llama's block, with a sliding window in every layer or in those that `layer_types` names."""

from __future__ import annotations

import msgspec

from lcsb_mobile.config import ModelConfig, default_query_scale
from lcsb_mobile.export.models import llama
from lcsb_mobile.export.models.decoder import decoder_layers
from lcsb_mobile.export.models.hf_config import (
    LayerCount,
    LayerTypes,
    PositiveInt,
    Raw,
    check_shape,
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
    config = ModelConfig(
        model_type="mistral" if fields.layer_types is None else "ministral",  # as AutoConfig takes it, whatever model_type says
        vocab_size=fields.vocab_size,
        hidden_size=fields.hidden_size,
        intermediate_size=fields.intermediate_size,
        num_hidden_layers=fields.num_hidden_layers,
        num_attention_heads=fields.num_attention_heads,
        num_key_value_heads=fields.num_key_value_heads or fields.num_attention_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.rms_norm_eps,
        tie_word_embeddings=fields.tie_word_embeddings,
        layer_types=tuple(layer_types),
        attention_kinds=attention_kinds,
        rotary_dim=head_dim,
        query_scale=default_query_scale(head_dim),
    )
    return check_shape(config)


kinds = llama.kinds
layers = decoder_layers
final_norm = llama.final_norm
