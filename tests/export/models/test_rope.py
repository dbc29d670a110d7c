"""RoPE's types, in the architectures that take them: angles, logits and gradients against transformers', and where they end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.checkpoints import random_model
from helpers.families import Family, assert_decodes_alike, assert_matters, assert_steps_alike, ids, relative
from helpers.kinds_loop import Tokens
from torch import Tensor

from lcsb_mobile.errors import CheckpointError, OptionError, UnsupportedModelError
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.layers import rope_table
from lcsb_mobile.export.option_checks import check_length

POSITIONS = 512  # max_position_embeddings of the random models
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64}
SHORT6 = {"short_factor": [1.0, 1.125, 1.7, 2.0, 3.0, 4.4], "long_factor": [1.5, 2.0, 4.0, 9.0, 30.0, 60.0]}
SHORT3 = {"short_factor": [1.0, 1.25, 2.5], "long_factor": [1.0, 3.0, 40.0]}

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.7},
    "yarn": YARN,
    "yarn of a context that is not named": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 3.0},
    "yarn, bounds": YARN | {"beta_fast": 4.0, "beta_slow": 0.5},
    "yarn, bounds of none": YARN | {"beta_fast": 0, "beta_slow": 0},
    "yarn, bounds alike": YARN | {"original_max_position_embeddings": 3},
    "yarn, not truncated": YARN | {"truncate": False},
    "yarn, attention_factor": YARN | {"attention_factor": 0.75},
    "yarn, mscale": YARN | {"mscale": 0.707, "mscale_all_dim": 1.5},
    "yarn, mscale without the other": YARN | {"mscale": 0.707},
    "yarn that shrinks": YARN | {"factor": 0.5},
    "longrope": LONG | SHORT6,
    "longrope, factor": LONG | SHORT6 | {"factor": 2.0},
    "longrope, factor below 1": LONG | SHORT6 | {"factor": 0.5},
    "longrope, attention_factor": LONG | SHORT6 | {"attention_factor": 1.5},
}  # fmt: skip
# Of other families: (model_type, overrides, layer type of a RoPE of its own or None).
OTHERS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "qwen2, yarn": ("qwen2", {"rope_parameters": YARN}, None),
    "qwen3, longrope": ("qwen3", {"rope_parameters": LONG | SHORT6}, None),
    "qwen3, the context beside the RoPE": ("qwen3", {"rope_parameters": YARN, "original_max_position_embeddings": 32}, None),
    "mistral, yarn": ("mistral", {"rope_parameters": YARN}, None),
    "ministral, dynamic": ("ministral", {"rope_parameters": ROPES["dynamic"]}, None),
    "lfm2, yarn": ("lfm2", {"rope_parameters": YARN}, None),
    "qwen3_5, yarn": ("qwen3_5_text", {"rope_parameters": YARN | {"partial_rotary_factor": 0.34}}, None),
    "gemma2, yarn": ("gemma2", {"rope_parameters": YARN}, None),
    "granite, dynamic": ("granite", {"rope_parameters": ROPES["dynamic"]}, None),
    "smollm3, yarn": ("smollm3", {"rope_parameters": YARN}, None),
    "phi3, longrope": ("phi3", {}, None),
    "phi3, default, a part of a head": ("phi3", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, None),
    "phi3, yarn of old": ("phi3", {"rope_parameters": LONG | SHORT3 | {"rope_type": "yarn", "partial_rotary_factor": 0.75}}, None),
    "gemma3, yarn in full layers": ("gemma3_text", {"rope_parameters": {"full_attention": YARN}}, "full_attention"),
    "gemma3, dynamic in full layers": ("gemma3_text", {"rope_parameters": {"full_attention": ROPES["dynamic"]}}, "full_attention"),
    "gemma3, longrope, a context beside": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": LONG | SHORT6}, "original_max_position_embeddings": 32},
        "full_attention",
    ),
}
CASES = {f"llama, {name}": ("llama", {"rope_parameters": rope}, None) for name, rope in ROPES.items()} | OTHERS


def angles(model: Any, length: int, layer_type: str | None) -> tuple[Tensor, Tensor]:
    arguments = () if layer_type is None else (layer_type,)
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(length)[None], *arguments)
    return cos[0], sin[0]


def made(case: str) -> tuple[Any, str | None, Any, int]:
    """(transformers' model, the layer type, its kind of attention, how much of a head is turned)."""
    model_type, overrides, layer_type = CASES[case]
    model = random_model(model_type, tied=True, **overrides)
    config = architecture(model_type).read_config(model.config.to_dict())
    name = layer_type or next(iter(config.attention_kinds))
    return model, layer_type, config.attention_kinds[name], config.rotary_dim


@pytest.mark.parametrize("case", CASES)
def test_angles_equal_transformers_bit_for_bit(case: str) -> None:
    """Of every position of a text as long as a bundle may have; one token more, and transformers turns the same ones otherwise."""
    model, layer_type, kind, rotary_dim = made(case)
    longest = POSITIONS if kind.rope_scaling is None else kind.rope_scaling.longest or POSITIONS
    ours = rope_table(kind, rotary_dim, longest)
    for table, expected in zip(ours, angles(model, longest, layer_type), strict=True):
        assert torch.equal(table, expected)
    longer = angles(model, longest + 1, layer_type)
    alike = all(torch.equal(table, expected[:longest]) for table, expected in zip(ours, longer, strict=True))
    assert alike == (kind.rope_scaling is None or kind.rope_scaling.longest is None)


PACKED = Tokens.packed([ids(1, 23), ids(2, 1), ids(3, 16)])
ONE = Tokens.packed([ids(5, 40)])


STEPS = (
    "llama, yarn", "llama, dynamic", "qwen3, longrope", "mistral, yarn", "ministral, dynamic", "phi3, longrope",
    "phi3, default, a part of a head",
)  # fmt: skip


@pytest.mark.parametrize("case", STEPS)
def test_steps_equal_peft(case: str) -> None:
    """Logits, loss and LoRA's gradients in float64, 40 tokens through windows of 5: what the angles' factor does to queries and keys,
    forward and backward, and LoRA on fused projections."""
    model_type, overrides, _ = CASES[case]
    family = Family(model_type, True, **overrides)
    assert relative(family.loop.logits(ONE), family.logits(ONE)) < 1e-12
    assert_steps_alike(family, PACKED, 1e-8)


@pytest.mark.parametrize("case", ["llama, longrope", "mistral, yarn", "phi3, longrope"])
def test_decoding_equals_transformers_cache(case: str) -> None:
    model_type, overrides, _ = CASES[case]
    assert_decodes_alike(Family(model_type, True, **overrides), ids(6, 40), 17, 1e-8, length=40)


@pytest.mark.parametrize("case", ["llama, yarn", "llama, longrope", "phi3, longrope"])
def test_scaling_matters(case: str) -> None:
    model_type, overrides, _ = CASES[case]
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}} if model_type == "phi3" else {}
    assert_matters(model_type, plain or overrides, ONE)


@pytest.mark.parametrize("case", ["llama, dynamic", "llama, longrope", "phi3, longrope"])
def test_longer_bundles_are_refused(case: str) -> None:
    model_type, overrides, _ = CASES[case]
    config = architecture(model_type).read_config(random_model(model_type, tied=True, **overrides).config.to_dict())
    longest = 512 if "dynamic" in case else 64
    check_length(longest, config)
    with pytest.raises(OptionError, match=f"seq-len: expected at most {longest}, found {longest + 1}: RoPE of type (dynamic|longrope)"):
        check_length(longest + 1, config)


MINIMAL = {"vocab_size": 9, "hidden_size": 24, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("rope", "texts"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, ["dynamic: missing max_position_embeddings"]),
        ({"rope_type": "yarn", "factor": 2.0}, ["yarn: missing original_max_position_embeddings"]),
        (YARN | {"factor": None}, ["yarn: missing factor"]),
        (YARN | {"rope_theta": 1.0}, ["rope_theta", "other than 1"]),
        (YARN | {"beta_fast": -1.0}, ["yarn: expected positive numbers", "-1.0"]),
        (YARN | {"factor": 0}, ["yarn: expected positive numbers"]),
        (YARN | {"attention_factor": -2.0}, ["yarn: expected positive numbers"]),
        (YARN | {"factor": math.e, "mscale": 1.0, "mscale_all_dim": -10.0}, ["yarn: expected positive numbers"]),
        (YARN | {"truncate": "no"}, ["truncate", "bool"]),
        (YARN | {"original_max_position_embeddings": 1}, ["original_max_position_embeddings", ">= 2"]),
        (LONG | SHORT6, ["longrope: missing factor"]),
        (LONG | {"factor": 2.0}, ["longrope: missing short_factor, long_factor"]),
        (LONG | SHORT3 | {"factor": 2.0}, ["short_factor has 3 numbers, RoPE turns 6 pairs"]),
        (LONG | SHORT6 | {"factor": 2.0, "short_factor": [1.0] * 5 + [0.0]}, ["longrope: expected positive numbers"]),
        ({"rope_type": "linear", "factor": -4.0}, ["linear: expected positive numbers"]),
    ],
)
def test_malformed_settings_are_named(rope: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        architecture("llama").read_config(MINIMAL | {"rope_parameters": rope})
    assert all(text in str(caught.value) for text in texts), caught.value


@pytest.mark.parametrize(
    ("model_type", "change", "texts"),
    [
        ("llama", {"rope_scaling": YARN | {"short_factor": [1.0]}}, ["of type yarn: found short_factor, supported rope_theta"]),
        ("llama", {"rope_scaling": LONG | SHORT6 | {"beta_fast": 1.0}}, ["rope_scaling of type longrope: found beta_fast"]),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "alpha": 1000.0}}, ["of type dynamic: found alpha"]),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_type: found 'linear'", "'default', 'longrope', 'su', 'yarn'"]),
        ("gemma3_text", {"rope_scaling": YARN | {"truncate": False}}, ["gemma3_text", "truncate of rope_scaling: found False"]),
    ],
)
def test_what_is_not_read_is_refused_by_name(model_type: str, change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        architecture(model_type).read_config(MINIMAL | {"max_position_embeddings": 256} | change)
    assert all(text in str(caught.value) for text in texts), caught.value
