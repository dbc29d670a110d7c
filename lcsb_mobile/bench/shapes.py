"""Shapes of known models, with which `lcsb bench` makes bundles of random weights.

Each is what `config.json` of the published checkpoint says, as far as `models.read_config` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import OptionError
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.targets import Target

Fields = Mapping[str, Any]


def _qwen2(hidden: int, inner: int, layers: int, heads: int, theta: float = 1_000_000.0, **others: Any) -> Fields:
    """Two key-value heads, tied, vocabulary 151,936, unless `others` say otherwise."""
    return {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": theta,
        "tie_word_embeddings": True,
    } | others


def _lfm2(hidden: int, inner: int, heads: int) -> Fields:
    """Sixteen layers; `inner` is before its adjustment."""
    return {
        "model_type": "lfm2",
        "vocab_size": 65_536,
        "hidden_size": hidden,
        "block_ff_dim": inner,
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 256,
        "num_hidden_layers": 16,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "norm_eps": 1e-5,
        "conv_L_cache": 3,
        "conv_bias": False,
        "rope_theta": 1_000_000.0,
    }


SHAPES: dict[str, Fields] = {
    "tiny": _qwen2(160, 448, 8, 5, theta=10_000.0, vocab_size=264, num_key_value_heads=1, head_dim=32),
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": _qwen2(896, 4_864, 24, 14),
    "qwen2.5-1.5b": _qwen2(1_536, 8_960, 28, 12),
    "qwen2.5-3b": _qwen2(2_048, 11_008, 36, 16),
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1_024,
        "intermediate_size": 3_072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    "llama3.2-1b": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 2_048,
        "intermediate_size": 8_192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8_192,
        },
        "tie_word_embeddings": True,
    },
    "gemma3-1b": {
        "model_type": "gemma3_text",
        "vocab_size": 262_144,
        "hidden_size": 1_152,
        "intermediate_size": 6_912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "tie_word_embeddings": True,
    },
    "gemma2-2b": {
        "model_type": "gemma2",
        "vocab_size": 256_000,
        "hidden_size": 2_304,
        "intermediate_size": 9_216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4_096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    },
    "granite3.3-2b": {
        "model_type": "granite",
        "vocab_size": 49_159,
        "hidden_size": 2_048,
        "intermediate_size": 8_192,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.015625,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
        "rope_theta": 10_000_000.0,
        "tie_word_embeddings": True,
    },
    "smollm3-3b": {
        "model_type": "smollm3",
        "vocab_size": 128_256,
        "hidden_size": 2_048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "no_rope_layer_interval": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000.0,
        "tie_word_embeddings": True,
    },
    "lfm2-350m": _lfm2(1_024, 6_656, 16),
    "lfm2-1.2b": _lfm2(2_048, 12_288, 32),
    "qwen3.5-0.8b": {  # `text_config`
        "model_type": "qwen3_5_text",
        "vocab_size": 248_320,
        "hidden_size": 1_024,
        "intermediate_size": 3_584,
        "num_hidden_layers": 24,
        "full_attention_interval": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "linear_conv_kernel_dim": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class RandomBundleOptions:
    """A bundle of random weights. `layers`: other than the shape's own."""

    shape: str
    target: Target = "onnxruntime"
    layers: int | None = None
    seq_len: int = 256
    rank: int = LoraConfig().rank
    seed: int = 0

    @property
    def name(self) -> str:
        """What a row and a manifest call it."""
        return self.shape if self.layers is None else f"{self.shape} of {self.layers} layers"


def shape_fields(options: RandomBundleOptions) -> Fields:
    """The fields of `config.json`. Raises OptionError for a shape that is none, or fewer layers than one."""
    if options.shape not in SHAPES:
        raise OptionError(f"shape: expected one of {', '.join(SHAPES)}, found {options.shape!r}")
    if options.layers is None:
        return SHAPES[options.shape]
    check_ranges({"layers": options.layers})
    return {**SHAPES[options.shape], "num_hidden_layers": options.layers}
