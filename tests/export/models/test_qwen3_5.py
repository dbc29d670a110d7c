"""Qwen3.5 against transformers' model, peft's LoRA and autograd: tiny random models of odd sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from helpers.families import Family, assert_decodes_alike, assert_matters, assert_sequences_apart, assert_steps_alike, ids, relative
from helpers.kinds_loop import Tokens
from helpers.traced import assert_traceable

from lcsb_mobile.bench.shapes import SHAPES
from lcsb_mobile.config import LinearAttention, ModelConfig
from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.export.models import architecture, checkpoint_weights, model_of

T = 96  # three chunks of 32
PACKED = Tokens.packed([ids(1, 37), ids(2, 1), ids(3, 2), ids(4, 43), ids(5, 13)])
ONE = Tokens.packed([ids(6, T)])
REPEATED = Tokens.packed([torch.full((T,), 7)])
# Rounding alone: the norm after the delta rule divides by outputs that may be near zero, and transformers' own logits and gradients of
# eight layers are as far from float64 as ours. Largest of the cases below: logits 4.4e-6, gradients 1.4e-5, decoding 2.5e-6.
LOGITS, GRADIENTS = 2e-5, 6e-5
# In float64 what is left is softplus's series, cut at 1e-11.
EXACT = 1e-8

EIGHT = {"num_hidden_layers": 8, "layer_types": None}
ROPE = {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.34}
CASES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": False},
    "eight layers, three of four linear": EIGHT,
    "as many key heads as value heads": {"linear_num_key_heads": 6},
    "a convolution of 3": {"linear_conv_kernel_dim": 3},
    "biases": {"attention_bias": True},
    "RoPE on whole heads": {"rope_parameters": ROPE | {"partial_rotary_factor": 1.0}},
    "RoPE on three axes": {"rope_parameters": ROPE | {"mrope_section": [1, 1, 0], "mrope_interleaved": True}},
    "linear RoPE": {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 3.0}},
    "the published eps": {"rms_norm_eps": 1e-6},
    "attention alone": {"layer_types": ["full_attention"] * 2, "num_hidden_layers": 2},
    "the delta rule alone": {"layer_types": ["linear_attention"] * 2, "num_hidden_layers": 2},
}


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str, double: bool) -> None:
    family = Family("qwen3_5_text", double, **CASES[case])
    for tokens in (ONE, PACKED, REPEATED):
        assert relative(family.loop.logits(tokens), family.logits(tokens)) < (EXACT if double else LOGITS)


def test_checkpoint_weights_are_all_there_are() -> None:
    for tied in (True, False):
        family = Family("qwen3_5_text", False, tied=tied)
        state = {name: tuple(tensor.shape) for name, tensor in family.base_state.items()}
        assert checkpoint_weights(family.config) == {n: s for n, s in state.items() if not (tied and n == "lm_head.weight")}


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("tokens", [ONE, PACKED], ids=["one", "packed"])
def test_steps_equal_peft(tokens: Tokens, double: bool) -> None:
    assert_steps_alike(Family("qwen3_5_text", double, **EIGHT), tokens, EXACT if double else GRADIENTS)


@pytest.mark.parametrize("prompt", [1, 3, 32, 50])
def test_decoding_equals_transformers_cache(prompt: int) -> None:
    """Prompts that end within a chunk and with it, shorter than the convolution's memory too, and texts that go on beyond the prompt."""
    assert_decodes_alike(Family("qwen3_5_text", True), ids(7, 60), prompt, EXACT, length=64)
    assert_decodes_alike(Family("qwen3_5_text", False), ids(7, 60), prompt, LOGITS, length=64)


def test_sequences_do_not_see_each_other() -> None:
    assert_sequences_apart(Family("qwen3_5_text", True).loop, 64)


@pytest.mark.parametrize("case", ["RoPE on whole heads", "linear RoPE"])
def test_rope_matters(case: str) -> None:
    assert_matters("qwen3_5_text", CASES[case], ONE)


@pytest.mark.parametrize(("kind", "nodes"), [("linear", 2200), ("full", 450)])
def test_blocks_are_traceable(kind: str, nodes: int) -> None:
    assert_traceable(Family("qwen3_5_text", False).loop, kind, seq_len=64, nodes=nodes)


def test_vectors_that_are_made_of_others() -> None:
    """The checkpoint's tensors once more, converted by hand."""
    family = Family("qwen3_5_text", False)
    vectors, prefix = family.loop.layers[0].vectors, "model.layers.0.linear_attn."
    assert torch.equal(vectors["linear_attn.decay"], -torch.exp(family.base_state[f"{prefix}A_log"]))
    conv = family.base_state[f"{prefix}conv1d.weight"]  # [channels, 1, 4]
    assert all(torch.equal(vectors["linear_attn.conv1d.weight"][tap], conv[:, 0, tap]) for tap in range(4))
    assert not {"linear_attn.in_proj_a", "linear_attn.in_proj_b"} & family.model.kinds["linear"].matrices.keys()


# config.json

MINIMAL = {"vocab_size": 9, "hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 5, "num_attention_heads": 8}


def read(**fields: Any) -> ModelConfig:
    return architecture("qwen3_5_text").read_config(MINIMAL | fields)


@pytest.mark.parametrize(
    ("fields", "rotary_dim"),
    [
        ({}, 64),
        ({"full_attention_interval": 2}, 64),
        ({"head_dim": 20}, None),
        ({"partial_rotary_factor": 0.5}, 128),
        ({"partial_rotary_factor": 0.5, "rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.125}}, 32),
        ({"rope_theta": 77.0}, 64),
        ({"rope_theta": 77.0, "rope_parameters": {"rope_type": "default", "rope_theta": 55.0}}, 64),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": [11, 11, 10]}, "rope_theta": 9.0}, 64),
        ({"linear_num_value_heads": 16, "linear_key_head_dim": 4, "attention_bias": True}, 64),
    ],
)
def test_reads_what_transformers_reads(fields: dict[str, Any], rotary_dim: int | None) -> None:
    """As published, and as transformers writes it out again."""
    theirs = transformers.AutoConfig.for_model("qwen3_5_text", **(MINIMAL | fields))
    if rotary_dim is None:
        with pytest.raises(CheckpointError, match=r"partial_rotary_factor: RoPE turns 5 of head_dim \(20\), and needs pairs"):
            read(**fields)
        return
    config = read(**fields)
    assert config == architecture("qwen3_5_text").read_config(theirs.to_dict())
    model = transformers.AutoModelForCausalLM.from_config(theirs)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: shapes[name] for name in checkpoint_weights(config)} == checkpoint_weights(config)
    assert config.layer_types == tuple(theirs.layer_types)
    assert config.rotary_dim == rotary_dim == 2 * len(model.model.rotary_emb.inv_freq)
    assert config.attention_kinds["full_attention"].rope_theta == theirs.rope_parameters["rope_theta"]


def test_a_published_size() -> None:
    config = architecture("qwen3_5_text").read_config(SHAPES["qwen3.5-0.8b"])
    assert config.linear_attention == LinearAttention(num_key_heads=16, num_value_heads=16, key_head_dim=128, value_head_dim=128, chunk=32)
    assert (config.rotary_dim, config.conv_kernel, config.layer_types.count("linear_attention")) == (64, 4, 18)
    assert sum(math.prod(size) for size in checkpoint_weights(config).values()) == 752_393_024


def test_of_a_multimodal_checkpoint_the_text_model_is_read() -> None:
    text = MINIMAL | {"tie_word_embeddings": True}
    raw = {"model_type": "qwen3_5", "text_config": text, "vision_config": {"depth": 2}, "tie_word_embeddings": True}
    config = architecture("qwen3_5").read_config(raw)
    assert (config.model_type, config.tensor_prefix) == ("qwen3_5_text", "model.language_model.")
    assert {name.partition("layers.")[0] for name in checkpoint_weights(config) if "layers." in name} == {"model.language_model."}
    for raw in ({"model_type": "qwen3_5", "text_config": MINIMAL}, {"model_type": "qwen3_5", **MINIMAL}):
        theirs = transformers.AutoConfig.for_model(**raw).to_dict()
        if "text_config" in raw:
            assert architecture("qwen3_5").read_config(raw) == architecture("qwen3_5").read_config(theirs)
        else:
            with pytest.raises(CheckpointError, match="text_config: expected an object, found None"):
                architecture("qwen3_5").read_config(raw)


def test_kinds_are_those_that_are_used() -> None:
    assert list(model_of(read()).kinds) == ["linear", "full"]
    config = read(full_attention_interval=1)
    assert (list(model_of(config).kinds), config.conv_kernel, config.linear_attention) == (["full"], 0, None)
    config = read(num_hidden_layers=2)
    assert (list(model_of(config).kinds), config.attention_kinds) == (["linear"], {})


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"hidden_act": "gelu"}, ["qwen3_5_text", "hidden_act: found 'gelu', supported 'silu'"]),
        ({"attn_output_gate": False}, ["attn_output_gate: found False, supported True"]),
        ({"num_experts": 8}, ["num_experts: found 8, supported None, 0"]),
        ({"layer_types": ["full_attention"] * 4 + ["sliding_attention"]}, ["found sliding_attention, supported linear_attention, full_"]),
        ({"rope_parameters": {"rope_type": "su", "factor": 4.0}}, ["rope_parameters", "'su'", "'default', 'linear', 'llama3'"]),
        ({"rope_parameters": {"rope_theta": 5.0, "mscale": 4.0}}, ["rope_parameters", "mscale"]),
    ],
)
def test_unsupported_options_are_named(change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(**change)
    assert all(text in str(caught.value) for text in texts), caught.value


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"layer_types": ["linear_attention"]}, ["layer_types has 1 entries, num_hidden_layers is 5"]),
        ({"linear_num_key_heads": 5}, ["linear_num_value_heads (32) is not a multiple of linear_num_key_heads (5)"]),
        ({"linear_conv_kernel_dim": 1}, ["linear_conv_kernel_dim", ">= 2"]),
        ({"partial_rotary_factor": 1.5}, ["partial_rotary_factor", "1.5"]),
        ({"partial_rotary_factor": "half"}, ["partial_rotary_factor", "'half'"]),
        ({"partial_rotary_factor": 0.001}, ["RoPE turns 0 of head_dim (256)"]),
        ({"rope_parameters": "default"}, ["rope_parameters", "'default'"]),
    ],
)
def test_malformed_fields_are_named(change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(**change)
    assert all(text in str(caught.value) for text in texts), caught.value


def test_experts_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="'qwen3_5_moe' is not supported; supported: .*qwen3_5, qwen3_5_text"):
        architecture("qwen3_5_moe")
