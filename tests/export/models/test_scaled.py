"""Granite's multipliers, Gemma 2's caps and SmolLM3's layers without RoPE beside transformers with peft's LoRA, where both are the same
function but for the end of a series: in float64. Float32, options and refusals are in test_models.py."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.families import Family, assert_decodes_alike, assert_steps_alike, ids, relative
from helpers.kinds_loop import Tokens

# Gemma's embeddings are multiplied by a root that transformers holds in float32: of 64 it is exact. Two layers without RoPE, one windowed.
CASES: dict[str, dict[str, Any]] = {
    "gemma2": {"hidden_size": 64, "num_attention_heads": 4},
    "granite": {"attention_bias": True, "mlp_bias": True},
    "smollm3": {
        "no_rope_layers": [0, 1, 0],
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
}
TOLERANCE = 1e-13  # measured: 4e-15


@pytest.mark.parametrize("model_type", CASES)
def test_logits_steps_and_text(model_type: str) -> None:
    """Packed examples, longer than the windows; all layers, a band with the exact gradient, single layers with identities; decoding beyond
    a padded prompt."""
    family = Family(model_type, double=True, **CASES[model_type])
    tokens = Tokens.packed([ids(1, 11), ids(2, 1), ids(3, 8)])
    assert relative(family.loop.logits(tokens), family.logits(tokens)) < TOLERANCE
    assert_steps_alike(family, tokens, TOLERANCE)
    assert_decodes_alike(family, ids(4, 15), 6, TOLERANCE, 16)
