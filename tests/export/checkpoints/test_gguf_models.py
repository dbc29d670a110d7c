"""Models in GGUF against transformers' own on the weights that were written: biases, RoPE's scaling, sizes of heads, quantisations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from helpers.checkpoints import random_model
from helpers.gguf_files import ARCHITECTURES, SCALES, rope_factors, write_model
from torch import Tensor

from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.export.reference.float_model import model_logits

IDS = torch.arange(4, 84)
TOLERANCE = 2e-5  # float32 on both sides, as in tests/export/models/test_models.py
GEMMA_TOLERANCE = 8e-5  # its file holds 1 + w, which is rounded on the way there and back; seen: 2.9e-5 on logits up to 12
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
UNUSUAL = {"factor": 5.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0, "original_max_position_embeddings": 40}
BIASED = {"attention_bias": True}
GEMMA: dict[str, Any] = {"query_pre_attn_scalar": 12}  # the head's size, as llama.cpp has it
GEMMA2_KEYS = ("attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window")  # which have llama.cpp's defaults
PLAIN_GEMMA2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096}
THIRD_FULL = {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
NO_SCALES = {"embedding_scale": 0.0, "logit_scale": 0.0, "residual_scale": None, "attention.scale": None}  # 0 is none, as llama.cpp has it
PLAIN_GRANITE = dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logits_scaling"), 1.0) | {"attention_multiplier": 12**-0.5}
THETA, UNUSUAL_THETA = 500_000.0, 500.0  # so that a head of 24 has frequencies at both ends of a scaling and between


def rope_of(scaling: dict[str, Any], theta: float) -> dict[str, Any]:
    return {"head_dim": 24, "rope_parameters": {"rope_type": "llama3", "rope_theta": theta, **scaling}}


def factors_of(scaling: dict[str, Any], theta: float, head_dim: int = 24) -> dict[str, Tensor]:
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return {"rope_freqs.weight": rope_factors(head_dim, theta, *(scaling[name] for name in names))}


def gemma_linear() -> dict[str, Any]:
    local = {"rope_type": "default", "rope_theta": 700.0}
    return {"rope_parameters": {"full_attention": LINEAR | {"rope_theta": 1e6}, "sliding_attention": local}}


# As the converter writes a Phi-3 with longrope: a head's size is not said, and windows are, as 0 where there are none.
PHI3_KEYS = {
    "attention.key_length": None, "attention.value_length": None, "rope.dimension_count": 6, "attention.sliding_window": 5,
    "rope.scaling.original_context_length": 128, "rope.scaling.attn_factor": 1.1338934,
}  # fmt: skip
PHI3_FACTORS = {
    "rope_factors_short.weight": torch.tensor([1.0, 1.25, 2.5]),
    "rope_factors_long.weight": torch.tensor([1.0, 3.0, 40.0]),
}
PHI3_PLAIN = PHI3_KEYS | {"rope.dimension_count": 8, "rope.scaling.attn_factor": None, "attention.sliding_window": 0}
PHI3_DEFAULT = {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]]] = {
    "llama": ("llama", {}, {}, {}),
    "llama biases": ("llama", BIASED | {"mlp_bias": True}, {}, {}),
    "llama mlp biases": ("llama", {"mlp_bias": True}, {}, {}),
    "llama linear by type": ("llama", {"rope_parameters": LINEAR}, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {}),
    "llama linear without type": ("llama", {"rope_parameters": LINEAR}, {"rope.scaling.factor": 4.0}, {}),
    "llama linear by its old name": ("llama", {"rope_parameters": LINEAR}, {"rope.scale_linear": 4.0}, {}),
    "llama scaled by none": ("llama", {}, {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {}),
    "llama scaled by 0": ("llama", {}, {"rope.scaling.factor": 0.0}, {}),
    "llama 3.2": ("llama", rope_of(LLAMA3, THETA), {}, factors_of(LLAMA3, THETA)),
    "llama 3 otherwise": ("llama", rope_of(UNUSUAL, UNUSUAL_THETA), {}, factors_of(UNUSUAL, UNUSUAL_THETA)),
    "llama factors of 1": ("llama", {}, {}, {"rope_freqs.weight": torch.ones(6)}),
    "llama lists by layer": ("llama", {}, {"attention.head_count_kv": [2] * 3, "feed_forward_length": [80] * 3}, {}),
    "llama neutral keys": ("llama", {}, {"expert_count": 0, "logit_scale": 1.0, "attention.causal": True, "pooling_type": 3}, {}),
    "qwen2": ("qwen2", {"head_dim": 8}, {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}, {}),
    "qwen3": ("qwen3", {}, {}, {}),
    "qwen3 biases": ("qwen3", BIASED, {}, {}),
    "qwen3 linear": ("qwen3", {"rope_parameters": LINEAR}, {"rope.scaling.factor": 4.0}, {}),
    "phi3 longrope": ("phi3", {"original_max_position_embeddings": 128}, PHI3_KEYS, PHI3_FACTORS),
    "phi3": ("phi3", PHI3_DEFAULT, PHI3_PLAIN, {}),
    "gemma3": ("gemma3_text", GEMMA, {}, {}),
    "gemma3 biases": ("gemma3_text", GEMMA | BIASED, {}, {}),
    "gemma3 pattern as a number": ("gemma3_text", GEMMA, {"attention.sliding_window_pattern": 2}, {}),
    "gemma3 linear": ("gemma3_text", GEMMA | gemma_linear(), {"rope.scaling.factor": 4.0, "rope.freq_base_swa": 700.0}, {}),
    "gemma2": ("gemma2", GEMMA, {}, {}),
    "gemma2 without caps and window": ("gemma2", GEMMA | PLAIN_GEMMA2, dict.fromkeys(GEMMA2_KEYS), {}),
    "gemma2 otherwise": ("gemma2", GEMMA | THIRD_FULL, {"attention.sliding_window_pattern": 3}, {}),
    "granite": ("granite", {}, {}, {}),
    "granite biases, linear": ("granite", BIASED | {"mlp_bias": True, "rope_parameters": LINEAR}, {"rope.scaling.factor": 4.0}, {}),
    "granite without multipliers": ("granite", PLAIN_GRANITE, NO_SCALES, {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5, "no_rope_layer_interval": 4}, {}, {}),
}  # fmt: skip


def with_space(model: Any, keys: dict[str, Any]) -> dict[str, Any]:
    return {f"{ARCHITECTURES[model.config.model_type]}.{name}": value for name, value in keys.items()}


# Gemma 2's format has no head: it is tied.
@pytest.mark.parametrize(("case", "tied"), [(case, tied) for case in CASES for tied in (True, False) if tied or "gemma2" not in case])
def test_it_is_the_model_that_was_written(tmp_path: Path, case: str, tied: bool) -> None:
    model_type, options, keys, tensors = CASES[case]
    model = random_model(model_type, tied=tied, **options)
    path = write_model(tmp_path / "model.gguf", model, with_space(model, keys), tensors)
    with open_checkpoint(path) as checkpoint, torch.no_grad():
        found = model_logits(checkpoint.config, checkpoint.read, IDS)
        raw = dict(checkpoint.raw)
        state = model.state_dict()
        for name in checkpoint_weights(checkpoint.config):  # Gemma's norms have lost a bit to 1 + w
            torch.testing.assert_close(checkpoint.read(name), state[name], rtol=0, atol=2e-7 if model_type.startswith("gemma") else 0)
            torch.testing.assert_close(checkpoint.read_rows(name, 3, 9), checkpoint.read(name)[3:9], rtol=0, atol=0)
    expected = model(IDS[None]).logits[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=GEMMA_TOLERANCE if model_type.startswith("gemma") else TOLERANCE)
    # What `merge` writes as config.json is that model to transformers, too.
    again = transformers.AutoConfig.for_model(**{"pad_token_id": None, **raw})  # SmolLM3's own is beyond so small a vocabulary
    peer = transformers.AutoModelForCausalLM.from_config(again, attn_implementation="eager", dtype=torch.float32).eval()
    peer.load_state_dict(model.state_dict())
    torch.testing.assert_close(peer(IDS[None]).logits[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("keys", "tensors", "reason"),
    [
        ({}, {"rope_factors_long.weight": torch.ones(3)}, r"rope_factors_short\.weight: expected shape \[3\], found no such tensor"),
        ({"rope.scaling.attn_factor": None}, {name: torch.ones(4) for name in PHI3_FACTORS}, r"expected shape \[3\], found \[4\]"),
        ({"rope.scaling.factor": 4.0}, PHI3_FACTORS, r"rope_factors_short\.weight: expected no other scaling of RoPE, found linear"),
        ({"rope.scaling.original_context_length": None}, PHI3_FACTORS, r"phi3\.rope\.scaling\.original_context_length: missing"),
        ({}, {}, r"phi3\.rope\.scaling\.attn_factor: found .* without rope_factors_short\.weight"),
        ({"rope.scaling.type": "longrope"}, {}, r"phi3\.rope\.scaling\.type: found 'longrope', supported none, linear"),
        ({}, PHI3_FACTORS | {"rope_freqs.weight": torch.ones(3)}, r"tensors that are not read .*: rope_freqs\.weight"),
        ({}, PHI3_FACTORS | {"blk.0.attn_qkv.bias": torch.ones(80)}, r"tensors that are not read .*: blk\.0\.attn_qkv\.bias"),
    ],
)
def test_a_phi3_that_is_refused(tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Tensor], reason: str) -> None:
    model = random_model("phi3", tied=True)
    path = write_model(tmp_path / "model.gguf", model, with_space(model, PHI3_KEYS | keys), tensors)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=reason):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("scaling", "theta", "head_dim"),
    [
        (LLAMA3 | {"factor": 8.0}, 5e5, 128),  # Llama 3.1 8B
        (LLAMA3, 5e5, 64),  # Llama 3.2 1B
        (LLAMA3, 5e5, 128),  # Llama 3.2 3B
        (LLAMA3 | {"high_freq_factor": 6.0, "original_max_position_embeddings": 4096}, 1e5, 96),
        (LLAMA3 | {"high_freq_factor": 2.0, "original_max_position_embeddings": 700, "factor": 3.5}, 1e4, 256),
    ],
)
def test_llama_3s_scaling_is_found_again(tmp_path: Path, scaling: dict[str, Any], theta: float, head_dim: int) -> None:
    rope = {"rope_parameters": {"rope_type": "llama3", "rope_theta": theta, **scaling}}
    model = random_model("llama", tied=True, head_dim=head_dim, **rope)
    path = write_model(tmp_path / "model.gguf", model, tensors=factors_of(scaling, theta, head_dim))
    with open_checkpoint(path) as checkpoint:
        found = checkpoint.raw["rope_parameters"]
    expected = {"rope_type": "llama3", "rope_theta": theta, **scaling}
    assert found.keys() == expected.keys() and found["rope_type"] == "llama3"
    for name in scaling:
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
    inverse = [transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config_of(model, each))[0] for each in (found, expected)]
    torch.testing.assert_close(*inverse, rtol=1e-4, atol=0)


def config_of(model: Any, rope: dict[str, Any]) -> Any:
    return transformers.LlamaConfig(**model.config.to_dict() | {"rope_parameters": rope})


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *SCALES])
def test_quantised_matrices_are_what_gguf_decodes(tmp_path: Path, kind: str) -> None:
    quantization = gguf.GGMLQuantizationType[kind]
    options = {"hidden_size": 256, "head_dim": 32, "num_attention_heads": 8, "intermediate_size": 512}
    model = random_model("llama", tied=False, **options)
    path = write_model(tmp_path / "model.gguf", model, kind=quantization)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    with open_checkpoint(path) as checkpoint:
        for name, tensor in peer.state_dict().items():
            torch.testing.assert_close(checkpoint.read(name), tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model_type", "extra", "reason"),
    [
        ("llama", {"blk.0.ffn_gate_exps.weight": torch.ones(2, 80, 48)}, r"tensors that are not read .*: blk\.0\.ffn_gate_exps\.weight"),
        ("llama", {"blk.3.attn_norm.weight": torch.ones(48)}, r"blk\.3\.attn_norm\.weight"),
        ("llama", {"blk.1.attn_q_norm.weight": torch.ones(12)}, r"blk\.1\.attn_q_norm\.weight"),
        ("llama", {"output.bias": torch.ones(131)}, r"output\.bias"),
        ("llama", {"rope_factors_long.weight": torch.ones(6)}, r"rope_factors_long\.weight"),
        ("qwen2", {"blk.0.attn_output.bias": torch.ones(48)}, r"blk\.0\.attn_output\.bias"),
        ("qwen3", {"blk.0.ffn_up.bias": torch.ones(80)}, r"blk\.0\.ffn_up\.bias"),
        ("gemma2", {"blk.0.attn_q_norm.weight": torch.ones(12)}, r"blk\.0\.attn_q_norm\.weight"),
        ("smollm3", {"blk.0.attn_q.bias": torch.ones(72)}, r"blk\.0\.attn_q\.bias"),
        ("llama", {"rope_freqs.weight": torch.tensor([1.0, 3, 1, 3, 1, 3])}, r"rope_freqs\.weight: these are not the factors of Llama 3's"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_read_are_refused(tmp_path: Path, model_type: str, extra: dict[str, Tensor], reason: str) -> None:
    options = {"head_dim": 8} if model_type == "qwen2" else {}
    path = write_model(tmp_path / "model.gguf", random_model(model_type, tied=True, **options), tensors=extra)
    with pytest.raises(UnsupportedModelError, match=reason):
        open_checkpoint(path)


def test_an_angle_table_is_passed_over(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", random_model("llama", tied=True), tensors={"blk.0.attn_rot_embd.weight": torch.ones(6)})
    open_checkpoint(path).close()


def test_biases_that_are_left_out_are_zeros(tmp_path: Path) -> None:
    """A Qwen2 as an older converter wrote it, in llama's name: biases on queries, keys and values alone."""
    model = random_model("llama", tied=True, attention_bias=True)
    left_out = {f"blk.{layer}.attn_output.bias": None for layer in range(3)}
    path = write_model(tmp_path / "model.gguf", model, tensors=left_out)  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias.zero_()
    with open_checkpoint(path) as checkpoint, torch.no_grad():
        found = model_logits(checkpoint.config, checkpoint.read, IDS)
        torch.testing.assert_close(found, model(IDS[None]).logits[0], rtol=0, atol=TOLERANCE)


def test_a_missing_bias_of_qwen2_is_a_fault(tmp_path: Path) -> None:
    left_out = {"blk.1.attn_k.bias": None}
    path = write_model(tmp_path / "model.gguf", random_model("qwen2", tied=True, head_dim=8), tensors=left_out)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.self_attn\.k_proj\.bias: missing"):
        open_checkpoint(path)


def test_neighbours_do_not_matter(tmp_path: Path) -> None:
    """Another model's tokenizer and PEFT's files beside the file."""
    path = write_model(tmp_path / "model.gguf", random_model("llama", tied=True))
    with open_checkpoint(path) as checkpoint:
        alone = {name: checkpoint.read(name) for name in checkpoint_weights(checkpoint.config)}
        raw = checkpoint.raw
    for name in ("adapter_config.json", "config.json", "tokenizer.json", "generation_config.json", "model.safetensors"):
        (tmp_path / name).write_text('{"base_model_name_or_path": "nobody/nothing", "model_type": "mamba"}')
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.raw == raw
        assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in alone.items())
    shutil.rmtree(tmp_path)
