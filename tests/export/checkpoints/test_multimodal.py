"""Checkpoints of a text model within a multimodal one: the text model is read, the rest is left out and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers.checkpoints import write_multimodal
from safetensors.torch import load_file, save_file

from lcsb_mobile.config import RopeScaling
from lcsb_mobile.errors import CheckpointError
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import architecture, checkpoint_weights, layer_prefix
from lcsb_mobile.export.reference.float_model import model_logits


@pytest.mark.parametrize(("tied", "shards"), [(True, False), (False, True)])
def test_the_text_model_is_read(tmp_path: Path, tied: bool, shards: bool) -> None:
    expected = write_multimodal(tmp_path, tied, shards).state_dict()
    with open_checkpoint(tmp_path) as checkpoint:
        config = checkpoint.config
        assert (config.model_type, config.tensor_prefix) == ("qwen3_5_text", "model.language_model.")
        assert layer_prefix(config, 2) == "model.language_model.layers.2."
        assert checkpoint.description == (
            "qwen3_5_text, 5 layers, 0.2 M parameters, float32, without its vision tower and its multi-token prediction"
        )
        names = {name: name.replace("language_model.", "") for name in checkpoint_weights(config)}
        assert set(names.values()) == set(expected) - ({"lm_head.weight"} if tied else set())
        assert all(torch.equal(checkpoint.read(name), expected[own]) for name, own in names.items())


@pytest.mark.parametrize("tied", [True, False])
def test_gemma_3_under_all_names_that_it_has_had(tmp_path: Path, tied: bool) -> None:
    """Those of transformers' modules, those that it writes and that are published, and those without a head's prefix; transformers is what
    is right. A published `text_config` leaves out what is transformers' default."""
    write_multimodal(tmp_path, tied, model_type="gemma3")
    written = load_file(tmp_path / "model.safetensors")
    assert {name.partition(".layers.0.")[0] for name in written if ".layers.0." in name} == {"language_model.model", "vision_tower.encoder"}
    present = {present_name(name): tensor for name, tensor in written.items()}
    input_ids = torch.arange(4, 40)
    for tensors in (written, present, {name.removeprefix("model."): tensor for name, tensor in present.items()}):
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        with open_checkpoint(tmp_path) as checkpoint, torch.no_grad():
            assert checkpoint.description.endswith("without its vision tower and its multi-modal projector")
            assert len(checkpoint.left_out) + len(checkpoint_weights(checkpoint.config)) == len(tensors)
            found, expected = model_logits(checkpoint.config, checkpoint.read, input_ids), model(input_ids=input_ids[None]).logits[0]
            assert (found - expected).abs().max() < 6e-5  # as tests/export/models/test_models.py has it


def present_name(name: str) -> str:
    if name.startswith("language_model."):
        return name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head.", "lm_head.")
    return name if name.startswith("lm_head.") else f"model.{name}"


def test_a_published_configuration_of_gemma_3() -> None:
    """google/gemma-3-4b-it leaves out what is transformers' default, sizes included."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}
    raw = {"model_type": "gemma3", "text_config": text, "vision_config": {"model_type": "siglip_vision_model"}}
    config = architecture("gemma3").read_config(raw)
    assert config == architecture("gemma3").read_config(transformers.AutoConfig.for_model(**raw).to_dict())
    assert (config.vocab_size, config.num_attention_heads, config.head_dim) == (262_208, 8, 256)
    assert config.attention_kinds["full_attention"].rope_scaling == RopeScaling("linear", 8.0)
    assert architecture("gemma3").read_config({"model_type": "gemma3", "text_config": {}}).hidden_size == 2304


def test_a_text_model_under_the_names_of_the_multimodal_one(tmp_path: Path) -> None:
    """So transformers saves it after loading a multimodal checkpoint."""
    write_multimodal(tmp_path / "whole", tied=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "text")
    model.config.save_pretrained(tmp_path / "text")
    assert json.loads((tmp_path / "text" / "config.json").read_text())["model_type"] == "qwen3_5_text"
    with open_checkpoint(tmp_path / "whole") as whole, open_checkpoint(tmp_path / "text") as text:
        assert text.config == whole.config
        assert text.description == whole.description.partition(", without")[0]
        assert all(torch.equal(text.read(name), whole.read(name)) for name in checkpoint_weights(text.config))


def test_parts_that_contradict_each_other(tmp_path: Path) -> None:
    write_multimodal(tmp_path, tied=True)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match="config.json: tie_word_embeddings is False, but True in text_config"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(raw | {"text_config": None}))
    with pytest.raises(CheckpointError, match="config.json: text_config: expected an object, found None"):
        open_checkpoint(tmp_path)


def test_a_missing_tensor_is_named_in_full(tmp_path: Path) -> None:
    write_multimodal(tmp_path, tied=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.language_model.layers.1.linear_attn.A_log"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.language_model\.layers\.1\.linear_attn\.A_log: missing$"):
        open_checkpoint(tmp_path)
