"""Heads and names as files have them: what AutoModelForCausalLM makes of a directory, logits and ties, is what is read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.checkpoints import OWN_SIZES, write_checkpoint, write_multimodal
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lcsb_mobile.errors import CheckpointError
from lcsb_mobile.export.checkpoints import stored
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import architecture, checkpoint_weights
from lcsb_mobile.export.reference.float_model import model_logits

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
HEADS = ("none", "equal", "different", "alone")  # what is stored of the head
TOKENS = torch.arange(64)  # a multiple of every architecture's chunk
TOLERANCE = 2e-4  # logits are about 1; float32 sums in another order (tests/export/models)


def write(directory: Path, model_type: str, tied: bool, head: str, prefix: bool, split: bool) -> Path:
    """`split`: over two files and an index."""
    write_checkpoint(directory, model_type, tied=tied)
    tensors = load_file(directory / "model.safetensors")
    tensors.pop(HEAD, None)
    if head != "none":
        scale = 0.5 if head == "different" else 1.0
        tensors[HEAD] = tensors[EMBEDDING] * scale
    if head == "alone":
        tensors.pop(EMBEDDING)
    if not prefix:
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if not split:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    (directory / "model.safetensors").unlink()
    weight_map = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        save_file(part, directory / file, metadata={"format": "pt"})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


def load(directory: Path) -> tuple[Any, Any]:
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )


def check(directory: Path) -> None:
    """Both read it, to the same ties and logits; or transformers makes up a tensor, which is named here."""
    model, info = load(directory)
    if info["missing_keys"]:
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(directory)
        assert all(f"{name}: missing" in str(caught.value) for name in info["missing_keys"])
        return
    with open_checkpoint(directory) as checkpoint, torch.no_grad():
        assert checkpoint.config.tie_word_embeddings == (model.lm_head.weight is model.get_input_embeddings().weight)
        assert (
            architecture(checkpoint.config.model_type).read_config(checkpoint.raw).tie_word_embeddings
            == checkpoint.config.tie_word_embeddings
        )
        expected = model.eval()(TOKENS[None]).logits[0]
        found = model_logits(checkpoint.config, checkpoint.read, TOKENS)
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("tied", "head", "prefix"), itertools.product((True, False), HEADS, (True, False)))
def test_every_head(tmp_path: Path, tied: bool, head: str, prefix: bool) -> None:
    check(write(tmp_path / "model", "llama", tied, head, prefix, split=False))


@settings(max_examples=25, deadline=None)
@given(
    model_type=st.sampled_from(sorted(OWN_SIZES)),
    tied=st.booleans(),
    head=st.sampled_from(HEADS),
    prefix=st.booleans(),
    split=st.booleans(),
)
def test_every_architecture(
    tmp_path_factory: pytest.TempPathFactory, model_type: str, tied: bool, head: str, prefix: bool, split: bool
) -> None:
    check(write(tmp_path_factory.mktemp("heads") / "model", model_type, tied, head, prefix, split))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_head_is_compared_to_the_last_row(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts."""
    directory = write_checkpoint(tmp_path / "model", "llama", tied=True, dtype=dtype)
    monkeypatch.setattr(stored, "ROWS_AT_ONCE", 50)
    tensors = load_file(directory / "model.safetensors")
    for change in (0.0, 1.0):
        head = tensors[EMBEDDING].clone()
        head[-1, -1] += change
        save_file(tensors | {HEAD: head}, directory / "model.safetensors", metadata={"format": "pt"})
        with open_checkpoint(directory) as checkpoint:
            assert checkpoint.config.tie_word_embeddings == (not change)


@pytest.mark.parametrize("tied", [True, False])
def test_a_multimodal_model_without_its_head(tmp_path: Path, tied: bool) -> None:
    """As `model.model.save_pretrained` writes one: no name begins with "model.", the tower's neither."""
    write_multimodal(tmp_path, tied=tied)
    with open_checkpoint(tmp_path) as checkpoint:
        expected = {name: checkpoint.read(name) for name in (*checkpoint_weights(checkpoint.config), *checkpoint.left_out)}
        description = checkpoint.description
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = transformers.Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.description == description
        assert {*checkpoint_weights(checkpoint.config), *checkpoint.left_out} == expected.keys()
        assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in expected.items())
