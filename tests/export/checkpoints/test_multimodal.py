"""Checkpoints of a text model within a multimodal one: the text model is read, the rest is left out and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers.checkpoints import write_multimodal
from safetensors.torch import load_file, save_file

from lcsb_mobile.errors import CheckpointError
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import checkpoint_weights, layer_prefix


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
