"""LFM2 against transformers' model, peft's LoRA and autograd: tiny random models of odd sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import transformers
from helpers.families import Family, assert_decodes_alike, assert_matters, assert_sequences_apart, assert_steps_alike, ids, relative
from helpers.kinds_loop import Tokens
from helpers.traced import assert_traceable

from lcsb_mobile.bench.shapes import SHAPES
from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.export.models import architecture, checkpoint_weights, model_of

T = 52
PACKED = Tokens.packed([ids(1, 23), ids(2, 1), ids(3, 2), ids(4, 26)])
ONE = Tokens.packed([ids(5, T)])
# Rounding alone: float32 sums in another order. Largest of the cases below: logits 2.0e-6, gradients 2.5e-6, decoding 9e-7.
TOLERANCE = 1e-5

CASES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": False},
    "a convolution of 2": {"conv_L_cache": 2},
    "a convolution of 5": {"conv_L_cache": 5},
    "attention alone": {"full_attn_idxs": None, "num_hidden_layers": 2},
    "convolutions alone": {"layer_types": ["conv"] * 2, "num_hidden_layers": 2},
    "adjusted width": {"block_auto_adjust_ff_dim": True, "intermediate_size": 70, "block_multiple_of": 16, "block_ffn_dim_multiplier": 1.3},
    "linear RoPE": {"rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}},
}


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str, double: bool) -> None:
    family = Family("lfm2", double, **CASES[case])
    tolerance = 1e-8 if double else TOLERANCE  # 5e-15
    for tokens in (ONE, PACKED):
        assert relative(family.loop.logits(tokens), family.logits(tokens)) < tolerance


def test_checkpoint_weights_are_all_there_are() -> None:
    for tied in (True, False):
        family = Family("lfm2", False, tied=tied)
        state = {name: tuple(tensor.shape) for name, tensor in family.base_state.items()}
        assert checkpoint_weights(family.config) == {n: s for n, s in state.items() if not (tied and n == "lm_head.weight")}


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [ONE, PACKED], ids=["one", "packed"])
def test_steps_equal_peft(tokens: Tokens, double: bool) -> None:
    assert_steps_alike(Family("lfm2", double), tokens, 1e-8 if double else TOLERANCE)


@pytest.mark.parametrize("prompt", [1, 2, 17, 30])
def test_decoding_equals_transformers_cache(prompt: int) -> None:
    """Prompts shorter than the convolution's memory too, and texts that go on beyond the padded prompt."""
    assert_decodes_alike(Family("lfm2", True), ids(6, 40), prompt, 1e-8, length=40)
    assert_decodes_alike(Family("lfm2", False), ids(6, 40), prompt, TOLERANCE, length=40)


def test_sequences_do_not_see_each_other() -> None:
    assert_sequences_apart(Family("lfm2", True).loop, 20)


def test_rope_matters() -> None:
    assert_matters("lfm2", CASES["linear RoPE"], ONE)


@pytest.mark.parametrize("kind", ["conv", "full"])
def test_blocks_are_traceable(kind: str) -> None:
    assert_traceable(Family("lfm2", False).loop, kind, seq_len=16, nodes=400)


# config.json

MINIMAL = {"vocab_size": 9, "hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 8}


def read(**fields: Any) -> ModelConfig:
    return architecture("lfm2").read_config(MINIMAL | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"block_ff_dim": 100, "block_multiple_of": 8},
        {"block_auto_adjust_ff_dim": False},
        {"block_ffn_dim_multiplier": 0.7, "block_multiple_of": 1},
        {"full_attn_idxs": [1, 7]},  # a layer that there is not, as when a model was cut
        {"full_attn_idxs": [0], "layer_types": ["conv", "full_attention", "conv"]},
        {"tie_embedding": False},
        {"tie_embedding": False, "tie_word_embeddings": True},
        {"rope_theta": 77.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 55.0}},
        {"rope_theta": 77.0, "rope_parameters": {"rope_type": "default", "rope_theta": 55.0}},
        {"head_dim": 20},
    ],
)
def test_reads_what_transformers_reads(fields: dict[str, Any]) -> None:
    """As published, and as transformers writes it out again."""
    theirs = transformers.AutoConfig.for_model("lfm2", **(MINIMAL | fields))
    config = read(**fields)
    assert config == architecture("lfm2").read_config(theirs.to_dict())
    model = transformers.AutoModelForCausalLM.from_config(theirs)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: shapes[name] for name in checkpoint_weights(config)} == checkpoint_weights(config)
    assert config.layer_types == tuple(theirs.layer_types)
    assert config.tie_word_embeddings == theirs.tie_word_embeddings
    assert [kind.rope_theta for kind in config.attention_kinds.values()] in ([theirs.rope_parameters["rope_theta"]], [])


@pytest.mark.parametrize(
    ("shape", "layers", "inner", "parameters"),
    [("lfm2-350m", 16, 4_608, 354_483_968), ("lfm2-1.2b", 16, 8_192, 1_170_340_608)],
)
def test_published_sizes(shape: str, layers: int, inner: int, parameters: int) -> None:
    """The numbers of parameters are those on the models' pages."""
    config = architecture("lfm2").read_config(SHAPES[shape])
    assert (config.num_hidden_layers, config.intermediate_size, config.head_dim) == (layers, inner, 64)
    assert [layer for layer, name in enumerate(config.layer_types) if name == "full_attention"] == [2, 5, 8, 10, 12, 14]
    assert sum(math.prod(size) for size in checkpoint_weights(config).values()) == parameters


def test_kinds_are_those_that_are_used() -> None:
    assert list(model_of(read(full_attn_idxs=[0])).kinds) == ["full", "conv"]
    assert list(model_of(read(full_attn_idxs=[])).kinds) == ["conv"]
    config = read()
    assert (list(model_of(config).kinds), config.conv_kernel) == (["full"], 0)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"conv_bias": True}, ["lfm2", "conv_bias: found True, supported False"]),
        ({"layer_types": ["conv", "mamba", "conv"]}, ["layer_types: found mamba, supported full_attention, conv"]),
        ({"layer_types": ["conv", "sliding_attention", "conv"]}, ["found sliding_attention"]),
        ({"rope_scaling": {"type": "mrope"}}, ["rope_scaling", "'mrope'"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5"]),
    ],
)
def test_unsupported_options_are_named(change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**change)
    assert all(text in str(caught.value) for text in texts), caught.value


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"layer_types": ["conv"]}, ["layer_types has 1 entries, num_hidden_layers is 3"]),
        ({"conv_L_cache": 1}, ["conv_L_cache", ">= 2"]),
        ({"num_attention_heads": 12}, ["num_attention_heads (12)", "num_key_value_heads (8)", "head_dim (5) is odd"]),
        ({"full_attn_idxs": ["2"]}, ["full_attn_idxs"]),
        ({"block_ff_dim": 1}, ["intermediate_size is too small for block_auto_adjust_ff_dim"]),
        ({"block_ffn_dim_multiplier": -1.0}, ["block_ffn_dim_multiplier"]),
    ],
)
def test_malformed_fields_are_named(change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(**change)
    assert all(text in str(caught.value) for text in texts), caught.value


def test_experts_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="'lfm2_moe' is not supported; supported: .*gemma3_text, granite, lfm2, llama"):
        architecture("lfm2_moe")
