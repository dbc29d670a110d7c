"""Law 3: the float model equals transformers' own on the same checkpoint (float32, eager attention), before any quantisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from helpers.checkpoints import VOCABULARY, random_model
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from lcsb_mobile.config import ModelConfig, RopeScaling
from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.export.models import ARCHITECTURES, architecture, checkpoint_weights, layer_sources, model_of
from lcsb_mobile.export.models.layers import MASKED, gelu_tanh, rope_table
from lcsb_mobile.export.models.tables import step_tables
from lcsb_mobile.export.reference.float_model import float_linear, model_logits

LENGTH = 40
# Both sides are float32 and do the same operations, in another order where query heads are grouped, queries scaled with RoPE and
# GELU written with a sigmoid. Each is as far from the same model in float64 as from the other (up to 5e-6 on logits up to 4;
# Gemma, whose norms after attention and MLP scale rounding errors up, 2.5e-5 on logits up to 10; 6 seeds): rounding.
TOLERANCE = {"llama": 2e-5, "ministral": 2e-5, "mistral": 2e-5, "phi3": 2e-5, "qwen2": 2e-5, "qwen3": 2e-5, "gemma3_text": 6e-5}
TOLERANCE |= {"gemma2": 2e-5, "granite": 2e-5, "smollm3": 2e-5}
FAMILIES = tuple(TOLERANCE)  # whose layers are of one kind; of the others there are tests of their own beside this file

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}
WINDOWS = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
SLIDING_FIRST = ["sliding_attention", "sliding_attention", "full_attention"]
SMOLLM3_WINDOWS: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 7, "layer_types": SLIDING_FIRST}
GEMMA_ROPE = {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}

CASES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "llama, tied": ("llama", True, {}),
    "llama, untied": ("llama", False, {}),
    "llama, llama3 RoPE": ("llama", True, {"rope_parameters": LLAMA3}),
    "llama, linear RoPE": ("llama", True, {"rope_parameters": LINEAR}),
    "llama, biases": ("llama", True, {"attention_bias": True, "mlp_bias": True}),
    "llama, no grouping": ("llama", True, {"num_key_value_heads": 6}),
    "llama, one key-value head": ("llama", True, {"num_key_value_heads": 1}),
    "qwen2, tied": ("qwen2", True, {}),
    "qwen2, untied": ("qwen2", False, {}),
    "qwen2, windows from layer 1": ("qwen2", True, WINDOWS),
    "qwen3, tied": ("qwen3", True, {}),
    "qwen3, untied": ("qwen3", False, {}),
    "qwen3, biases": ("qwen3", True, {"attention_bias": True}),
    "qwen3, windows from layer 1, linear RoPE": ("qwen3", True, WINDOWS | {"rope_parameters": LINEAR}),
    "mistral, tied, no windows": ("mistral", True, {"sliding_window": None}),
    "mistral, windows": ("mistral", False, {}),
    "mistral, head_dim from the width": ("mistral", False, {"head_dim": None}),
    "ministral, windows in some layers": ("ministral", True, {}),
    "phi3, tied, longrope, windows": ("phi3", True, {}),
    "phi3, untied, no grouping": ("phi3", False, {"num_key_value_heads": None, "sliding_window": None}),
    "gemma3, tied": ("gemma3_text", True, {}),
    "gemma3, untied": ("gemma3_text", False, {}),
    "gemma3, biases": ("gemma3_text", True, {"attention_bias": True}),
    "gemma3, linear RoPE in full layers": ("gemma3_text", True, {"rope_parameters": GEMMA_ROPE}),
    "gemma2, tied": ("gemma2", True, {}),
    "gemma2, untied, biases": ("gemma2", False, {"attention_bias": True, "rope_parameters": LINEAR}),
    "gemma2, no caps": ("gemma2", True, {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "granite, tied": ("granite", True, {}),
    "granite, untied, biases": ("granite", False, {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "smollm3, tied": ("smollm3", True, {}),
    "smollm3, untied, biases": ("smollm3", False, {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "smollm3, windows where there is no RoPE": ("smollm3", True, {"use_sliding_window": True, "sliding_window": 7}),
    "smollm3, windows anywhere": ("smollm3", True, SMOLLM3_WINDOWS | {"no_rope_layers": [1, 0, 0, 1]}),
}


def read_config(model: Any) -> ModelConfig:
    return architecture(model.config.model_type).read_config(model.config.to_dict())


def tokens(seed: int, length: int = LENGTH) -> Tensor:
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str) -> None:
    model_type, tied, overrides = CASES[case]
    model = random_model(model_type, tied=tied, **overrides)
    state = model.state_dict()
    config = read_config(model)
    assert {name: tuple(state[name].shape) for name in checkpoint_weights(config)} == checkpoint_weights(config)
    input_ids = tokens(1)
    with torch.no_grad():
        expected = model(input_ids[None]).logits[0]
    assert expected.std() > 0.5  # logits of a size that a tolerance can be read against
    torch.testing.assert_close(model_logits(config, state.__getitem__, input_ids), expected, rtol=0, atol=TOLERANCE[model_type])


@pytest.mark.parametrize(
    ("model_type", "plain", "changed"),
    [
        ("llama", {}, {"rope_parameters": LLAMA3}),
        ("llama", {}, {"rope_parameters": LINEAR}),
        ("qwen2", {}, WINDOWS),
        ("qwen3", {}, WINDOWS),
        ("gemma3_text", {}, {"sliding_window": 9}),
        ("mistral", {}, {"sliding_window": 9}),
        ("phi3", {}, {"sliding_window": 9}),
        ("gemma2", {}, {"sliding_window": 9}),
        ("gemma2", {}, {"attn_logit_softcapping": 1.4}),
        ("gemma2", {}, {"final_logit_softcapping": 2.9}),
        *(("granite", {}, {name: 1.0}) for name in MULTIPLIERS),
        ("smollm3", {}, {"no_rope_layers": [1, 1, 1]}),
        ("smollm3", {}, {"use_sliding_window": True, "sliding_window": 7}),
    ],
)
def test_options_matter(model_type: str, plain: dict[str, Any], changed: dict[str, Any]) -> None:
    """The cases above would prove nothing about an option that does not move the logits of so short a text."""
    model = random_model(model_type, tied=True)
    read = model.state_dict().__getitem__
    configs = [read_config(random_model(model_type, tied=True, **overrides)) for overrides in (plain, changed)]
    first, second = (model_logits(config, read, tokens(1)) for config in configs)
    assert (first - second).abs().max() > 1e3 * TOLERANCE[model_type]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_segments_equal_examples_apart(model_type: str) -> None:
    """Packed examples do not see each other: logits are those of the examples one by one."""
    model = random_model(model_type, tied=True)
    config, read = read_config(model), model.state_dict().__getitem__
    examples = [tokens(seed, length) for seed, length in enumerate((13, 1, 20, 6))]
    position_ids = torch.cat([torch.arange(len(example)) for example in examples])
    segment_ids = torch.cat([torch.full_like(example, number) for number, example in enumerate(examples)])
    packed = model_logits(config, read, torch.cat(examples), position_ids, segment_ids)
    apart = torch.cat([model_logits(config, read, example) for example in examples])
    torch.testing.assert_close(packed, apart, rtol=0, atol=TOLERANCE[model_type])  # sums over masked zeros round differently


def masks(config: ModelConfig, segment_ids: Tensor) -> dict[str, Tensor]:
    """By layer type."""
    made = step_tables(config, len(segment_ids))(position_ids=torch.zeros_like(segment_ids), segment_ids=segment_ids)
    return {name: table for name, table in made.items() if name.startswith("mask.")}


def test_masks() -> None:
    config = read_config(random_model("gemma3_text", tied=True, sliding_window=2))
    sliding, full = (masks(config, torch.tensor([4, 4, 4, 7]))[f"mask.{name}_attention"] == 0 for name in ("sliding", "full"))
    assert full.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert sliding.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    for mask in masks(config, torch.zeros(3, dtype=torch.int64)).values():
        assert mask.dtype == torch.float32
        assert set(mask.unique().tolist()) == {0.0, MASKED}
    assert (torch.softmax(torch.tensor([50.0, 1e4 + MASKED]), dim=0)[1]) == 0  # a masked key has no weight at all


def test_gelu_equals_torch() -> None:
    x = torch.linspace(-12, 12, 1001)
    torch.testing.assert_close(gelu_tanh(x), torch.nn.functional.gelu(x, approximate="tanh"), rtol=1e-6, atol=1e-6)


# Both dialects of config.json


def v5(model_type: str, **overrides: Any) -> dict[str, Any]:
    raw: dict[str, Any] = random_model(model_type, tied=True, **overrides).config.to_dict()
    return raw


@pytest.mark.parametrize("scaling", [None, LLAMA3, LINEAR], ids=["default", "llama3", "linear"])
@pytest.mark.parametrize("type_key", ["rope_type", "type"])
def test_both_dialects_of_llama(scaling: dict[str, Any] | None, type_key: str) -> None:
    new = v5("llama", rope_parameters=scaling or {"rope_type": "default", "rope_theta": 77.0})
    rope = dict(new["rope_parameters"])
    classic = {name: value for name, value in new.items() if name != "rope_parameters"}
    classic |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": None}
    if scaling is not None:
        classic["rope_scaling"] = {type_key: rope.pop("rope_type"), **rope}
    read = ARCHITECTURES["llama"].read_config
    assert read(classic) == read(new)
    assert read(new).attention_kinds["full_attention"].rope_scaling == (
        None if scaling is None else RopeScaling(**{k: v for k, v in scaling.items() if k != "rope_theta"})
    )


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_both_dialects_of_qwen(model_type: str) -> None:
    new = v5(model_type, use_sliding_window=True, sliding_window=7, max_window_layers=2, rope_parameters={"rope_theta": 1e6})
    classic = {name: value for name, value in new.items() if name not in ("rope_parameters", "layer_types")} | {"rope_theta": 1_000_000}
    config = ARCHITECTURES[model_type].read_config(classic)
    assert config == ARCHITECTURES[model_type].read_config(new)
    assert config.layer_types == ("full_attention", "full_attention", "sliding_attention")
    assert kinds_of(config) == {"full_attention": (1e6, None), "sliding_attention": (1e6, 7)}


def kinds_of(config: ModelConfig) -> dict[str, tuple[float, int | None]]:
    """Of each layer type its RoPE's base and window."""
    return {name: (kind.rope_theta, kind.window) for name, kind in config.attention_kinds.items()}


def test_both_dialects_of_gemma3() -> None:
    new = v5("gemma3_text", layer_types=None, num_hidden_layers=8, rope_parameters=GEMMA_ROPE)
    classic = {name: value for name, value in new.items() if name not in ("rope_parameters", "layer_types")}
    classic |= {"rope_theta": 300, "rope_local_base_freq": 50, "rope_scaling": {"rope_type": "linear", "factor": 3}}
    classic |= {"sliding_window_pattern": 6}
    config = ARCHITECTURES["gemma3_text"].read_config(classic)
    assert config == ARCHITECTURES["gemma3_text"].read_config(new)
    assert config.layer_types == (*["sliding_attention"] * 5, "full_attention", *["sliding_attention"] * 2)
    assert kinds_of(config) == {"sliding_attention": (50.0, 5), "full_attention": (300.0, None)}
    assert (config.query_scale, config.embedding_scale) == (20**-0.5, 48**0.5)


MINIMAL = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize("model_type", [*FAMILIES, "ministral", "lfm2", "qwen3_5_text"])
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    raw = MINIMAL | {"hidden_size": 128, "num_attention_heads": 64}  # a multiple of every default of num_key_value_heads
    full = transformers.AutoConfig.for_model(model_type, **raw).to_dict()
    raw |= {"layer_types": full["layer_types"]} if model_type == "ministral" else {}  # which makes it one
    assert ARCHITECTURES[model_type].read_config(raw) == ARCHITECTURES[model_type].read_config(full)


PUBLISHED: dict[str, tuple[str, dict[str, Any], float]] = {  # millions of parameters, as on the models' pages
    "Mistral 7B": ("mistral", {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_attention_heads": 32}, 7241.7),
    "Phi-3 mini": ("phi3", {"vocab_size": 32_064, "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32}, 3821.1),
    "Phi-4 mini": (
        "phi3",
        {"vocab_size": 200_064, "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24, "num_key_value_heads": 8}
        | {"tie_word_embeddings": True, "partial_rotary_factor": 0.75},
        3836.0,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    model_type, fields, millions = PUBLISHED[name]
    config = ARCHITECTURES[model_type].read_config({"num_hidden_layers": 32, **fields})
    weights = checkpoint_weights(config)
    assert round(sum(math.prod(shape) for shape in weights.values()) / 1e6, 1) == millions


def test_a_layer_is_named_by_its_window_and_its_rope() -> None:
    config = ARCHITECTURES["smollm3"].read_config(v5("smollm3", **SMOLLM3_WINDOWS, no_rope_layers=[1, 0, 0], rope_parameters=LINEAR))
    assert config.layer_types == ("sliding_attention", "sliding_attention_no_rope", "full_attention_no_rope")
    found = {name: (kind.window, kind.rotary) for name, kind in config.attention_kinds.items()}
    assert found == {config.layer_types[0]: (7, True), config.layer_types[1]: (7, False), config.layer_types[2]: (None, False)}
    cos, sin = rope_table(config.attention_kinds["full_attention_no_rope"], 12, 9)
    assert (cos == 1).all() and (sin == 0).all()


# Refusals


@pytest.mark.parametrize(
    ("model_type", "change", "texts"),
    [
        ("llama", {"hidden_act": "gelu"}, ["hidden_act", "'gelu'", "'silu'"]),
        ("llama", {"rope_scaling": {"type": "proportional", "factor": 4.0}}, ["rope_scaling", "'proportional'", "'default', 'linear'"]),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "mscale": 1}}, ["rope_scaling", "mscale"]),
        ("llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5", "1.0"]),
        ("qwen2", {"hidden_act": "relu"}, ["hidden_act", "'relu'", "'silu'"]),
        ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, ["layer_types", "chunked_attention", "sliding_attention"]),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types", "use_sliding_window"]),
        ("qwen2", {"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, ["rope_parameters", "full_attention", "rope_theta"]),
        ("qwen3", {"hidden_act": "gelu"}, ["qwen3", "hidden_act", "'gelu'", "'silu'"]),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types", "use_sliding_window"]),
        ("qwen3", {"rope_scaling": {"type": "su", "factor": 4.0}}, ["rope_scaling", "'su'", "'default', 'linear', 'llama3'"]),
        ("mistral", {"hidden_act": "gelu"}, ["mistral", "hidden_act", "'gelu'", "'silu'"]),
        ("mistral", {"layer_types": ["full_attention", "chunked_attention"]}, ["layer_types", "chunked_attention"]),
        ("mistral", {"sliding_window": None, "layer_types": ["full_attention", "sliding_attention"]}, ["layer_types", "sliding_window"]),
        ("phi3", {"hidden_act": "gelu"}, ["phi3", "hidden_act", "'gelu'", "'silu'"]),
        ("gemma3_text", {"hidden_activation": "silu"}, ["hidden_activation", "'silu'", "'gelu_pytorch_tanh'"]),
        (
            "gemma3_text",
            {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
            ["final_logit_softcapping: found 30.0, supported None", "attn_logit_softcapping: found 50.0"],
        ),
        ("gemma3_text", {"use_bidirectional_attention": True}, ["use_bidirectional_attention", "True", "False"]),
        ("gemma3_text", {"rope_parameters": {"chunked_attention": {}}}, ["rope_parameters", "chunked_attention", "full_attention"]),
        ("gemma3_text", {"rope_scaling": {"rope_type": "proportional"}}, ["full_attention", "'proportional'", "'linear'"]),
        ("gemma3_text", {"sliding_window": None}, ["sliding_window"]),
        ("gemma2", {"hidden_activation": "silu"}, ["gemma2", "hidden_activation", "'silu'", "'gelu_pytorch_tanh'"]),
        ("gemma2", {"use_bidirectional_attention": True}, ["use_bidirectional_attention", "True", "False"]),
        ("granite", {"hidden_act": "gelu"}, ["granite", "hidden_act", "'gelu'", "'silu'"]),
        ("smollm3", {"hidden_act": "gelu"}, ["smollm3", "hidden_act", "'gelu'", "'silu'"]),
        ("smollm3", {"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types", "use_sliding_window"]),
    ],
)
def test_unsupported_options_are_named(model_type: str, change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        ARCHITECTURES[model_type].read_config(MINIMAL | {"num_key_value_heads": 2} | change)
    assert all(text in str(caught.value) for text in texts), caught.value


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"hidden_size": "wide"}, ["hidden_size", "int", "str"]),
        ({"num_attention_heads": 0}, ["num_attention_heads", ">= 1"]),
        ({"num_attention_heads": 3, "head_dim": 5}, ["num_attention_heads (3)", "num_key_value_heads (2)", "head_dim (5)"]),
        ({"rope_theta": -1.0}, ["rope_theta", "-1.0"]),
        ({"rope_scaling": "linear"}, ["rope_scaling", "'linear'"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["rope_scaling", "low_freq_factor, high_freq_factor, original_max"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling", "missing factor"]),
    ],
)
def test_malformed_fields_are_named(change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        ARCHITECTURES["llama"].read_config(MINIMAL | {"num_key_value_heads": 2} | change)
    assert all(text in str(caught.value) for text in texts), caught.value


@pytest.mark.parametrize(
    ("model_type", "change", "texts"),
    [
        ("smollm3", {"no_rope_layers": [1]}, ["no_rope_layers has 1 entries, num_hidden_layers is 2"]),
        ("granite", {"logits_scaling": 0}, ["logits_scaling", "> 0"]),
        ("gemma2", {"attn_logit_softcapping": 0.0}, ["attn_logit_softcapping", "> 0"]),
    ],
)
def test_numbers_without_a_meaning_are_named(model_type: str, change: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        ARCHITECTURES[model_type].read_config(MINIMAL | {"num_key_value_heads": 2} | change)
    assert all(text in str(caught.value) for text in texts), caught.value


@pytest.mark.parametrize("field", MINIMAL)
def test_missing_fields_are_named(field: str) -> None:
    for model_type in ARCHITECTURES:
        if (model_type, field) == ("lfm2", "intermediate_size"):
            continue  # which has another name there too
        with pytest.raises(CheckpointError, match=f"missing required field `{field}`"):
            ARCHITECTURES[model_type].read_config({name: value for name, value in MINIMAL.items() if name != field})


def test_layer_types_of_another_length() -> None:
    with pytest.raises(CheckpointError, match="layer_types has 1 entries, num_hidden_layers is 2"):
        ARCHITECTURES["qwen2"].read_config(MINIMAL | {"layer_types": ["full_attention"]})


def test_unknown_architecture() -> None:
    with pytest.raises(UnsupportedModelError, match="'mamba'.*gemma2, gemma3, gemma3_text, granite, lfm2, llama, .*qwen3, qwen3_5, "):
        architecture("mamba")


# What the capture of graphs needs


@pytest.mark.parametrize("model_type", FAMILIES)
def test_blocks_are_traceable(model_type: str) -> None:
    """A block and its vjp become small core ATen graphs, without the operations that ONNX lowers badly or not at all."""
    model = random_model(model_type, tied=True)
    config, state, prefix = read_config(model), model.state_dict(), "model.layers.0."
    (kind,), place = model_of(config).kinds.values(), model_of(config).places[0]
    names = list(layer_sources(kind))
    tables = step_tables(config, 8)(position_ids=torch.arange(8), segment_ids=torch.zeros(8, dtype=torch.int64))
    cos, sin, mask = (tables[place.reads[name]] for name in ("cos", "sin", "mask"))

    def backward(h: Tensor, g: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, *tensors: Tensor) -> Tensor:
        layer: Mapping[str, Tensor] = dict(zip((prefix + name for name in names), tensors, strict=True))
        vectors = {name: layer[prefix + name] for name in names if layer[prefix + name].dim() == 1}
        linear = float_linear(layer.__getitem__, prefix, vectors)
        values = {"cos": cos, "sin": sin, "mask": mask}
        _, pullback = torch.func.vjp(lambda h: kind.block({"h": h, **values}, vectors, linear)[0], h)
        gradient: Tensor = pullback(g)[0]
        return gradient

    arguments = (torch.randn(8, 48), torch.randn(8, 48), cos, sin, mask, *(state[prefix + name].clone() for name in names))
    graph = make_fx(backward, decomposition_table=core_aten_decompositions(), tracing_mode="fake")(*arguments)
    graph.graph.eliminate_dead_code()
    operations = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert not {name for name in operations if any(bad in name for bad in ("scatter", "empty", "index", "gather", "copy", "full"))}
    assert len(graph.graph.nodes) < 320
    torch.testing.assert_close(graph(*arguments), backward(*arguments), rtol=1e-5, atol=1e-5)
