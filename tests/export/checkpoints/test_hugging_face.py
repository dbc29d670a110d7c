"""Opening a checkpoint: what is read, and that every refusal names the thing that is wrong."""

from __future__ import annotations

import builtins
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from helpers.checkpoints import CHAT_TEMPLATE, OWN_SIZES, SIZES, VOCABULARY, random_model, write_checkpoint
from safetensors.torch import load_file, save_file

from lcsb_mobile.errors import CheckpointError, TokenizerError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.hugging_face import model_name, open_checkpoint
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.export.reference.float_model import model_logits


def edit_json(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON object; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def edit_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "llama", "llama", tied=False)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "sharded", "qwen2", tied=True, shards=3)


# What is read


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("model_type", OWN_SIZES)
def test_every_tensor_reads_as_written(tmp_path: Path, model_type: str, shards: int, tied: bool) -> None:
    directory = write_checkpoint(tmp_path / "model", model_type, tied=tied, shards=shards)
    assert len(list(directory.glob("*.safetensors"))) >= shards
    state = random_model(model_type, tied=tied).state_dict()
    with open_checkpoint(directory) as checkpoint:
        weights = checkpoint_weights(checkpoint.config)
        assert set(weights) == set(state) - ({"lm_head.weight"} if tied else set())
        for name, shape in weights.items():
            tensor = checkpoint.read(name)
            assert tuple(tensor.shape) == shape
            assert torch.equal(tensor, state[name])
        sizes, config = SIZES | OWN_SIZES[model_type], checkpoint.config
        assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (6, 2, sizes["head_dim"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_are_read_as_float32(tmp_path: Path, dtype: str) -> None:
    directory = write_checkpoint(tmp_path / "model", "llama", tied=True, dtype=dtype)
    state = random_model("llama", tied=True).state_dict()
    with open_checkpoint(directory) as checkpoint:
        assert checkpoint.description == f"llama, 3 layers, 0.1 M parameters, {dtype}"
        for name in checkpoint_weights(checkpoint.config):
            tensor = checkpoint.read(name)
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, state[name].to(getattr(torch, dtype)).float())
        input_ids = torch.arange(20)
        assert model_logits(checkpoint.config, checkpoint.read, input_ids).shape == (20, VOCABULARY)


@pytest.mark.parametrize(("head", "fault"), [(torch.zeros(3), "[3]"), (torch.zeros(VOCABULARY + 1, 48), "[132, 48]")])
def test_a_stored_head_of_another_shape(tmp_path: Path, head: torch.Tensor, fault: str) -> None:
    directory = write_checkpoint(tmp_path / "model", "llama", tied=True)
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors.update({"lm_head.weight": head}))
    with pytest.raises(CheckpointError, match=re.escape(f"lm_head.weight: expected shape [131, 48], found {fault}")):
        open_checkpoint(directory)


# The tokenizer


def written_tokenizer(directory: Path, target: Path) -> dict[str, Any]:
    with open_checkpoint(directory) as checkpoint:
        checkpoint.write_tokenizer(target)
    assert sorted(path.name for path in target.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert (target / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()
    settings: dict[str, Any] = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
    return settings


def test_tokenizer_is_copied(llama: Path, tmp_path: Path) -> None:
    settings = written_tokenizer(llama, tmp_path / "out")
    assert (settings["chat_template"], settings["eos_token"]) == (CHAT_TEMPLATE, "</s>")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "The moon:\n<s>42 then it's~</s>"
    assert tokenizer.get_vocab_size() == VOCABULARY
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_separate_chat_template_is_folded_in(llama: Path, tmp_path: Path) -> None:
    edit_json(llama / "tokenizer_config.json", chat_template=None)
    (llama / "chat_template.jinja").write_text("{{ 'é' }}\n", encoding="utf-8")
    settings = written_tokenizer(llama, tmp_path / "out")
    assert (settings["chat_template"], settings["eos_token"]) == ("{{ 'é' }}\n", "</s>")


def test_special_tokens_map_goes_over_the_settings(llama: Path, tmp_path: Path) -> None:
    edit_json(llama / "tokenizer_config.json", eos_token=None)
    (llama / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<pad>", "bos_token": "<unk>"}))
    settings = written_tokenizer(llama, tmp_path / "out")
    assert (settings["eos_token"], settings["bos_token"]) == ("<pad>", "<unk>")  # as transformers has it, the map goes over the settings


def test_tokenizer_alone_is_enough(llama: Path, tmp_path: Path) -> None:
    (llama / "tokenizer_config.json").unlink()
    assert written_tokenizer(llama, tmp_path / "out") == {"eos_token_id": 2, "add_bos_token": False}  # the former of generation_config.json


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer"),
        ("tokenizer_config.json", "[", "tokenizer_config.json: not readable as JSON"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json: expected a JSON object, found list"),
    ],
)
def test_bad_tokenizers(llama: Path, tmp_path: Path, file: str, content: str | None, text: str) -> None:
    (llama / file).unlink() if content is None else (llama / file).write_text(content)
    with open_checkpoint(llama) as checkpoint, pytest.raises(TokenizerError, match=text):
        checkpoint.write_tokenizer(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Refusals of tensors and files


def test_all_bad_tensors_are_named_at_once(llama: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.mlp.up_proj.weight"], tensors["model.norm.weight"]
        tensors["model.layers.2.self_attn.k_proj.weight"] = torch.zeros(24, 47)
        tensors["model.layers.0.input_layernorm.weight"] = torch.zeros(48, dtype=torch.float64)

    edit_tensors(llama / "model.safetensors", edit)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(llama)
    message = str(caught.value)
    assert message.startswith(f"{llama}: ")
    assert message.count(";") == 3
    assert "model.layers.1.mlp.up_proj.weight: missing" in message
    assert "model.norm.weight: missing" in message
    assert "model.layers.2.self_attn.k_proj.weight: expected shape [24, 48], found [24, 47]" in message
    assert "model.layers.0.input_layernorm.weight: expected dtype BF16, F16, F32, found F64" in message


def test_untied_without_head(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model", "llama", tied=True)
    edit_json(directory / "config.json", tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: missing$"):
        open_checkpoint(directory)


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_truncated_file(llama: Path, keep: int) -> None:
    file = llama / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read, or is truncated .*download it again$"):
        open_checkpoint(llama)


def test_missing_and_truncated_shards_and_missing_tensors(sharded: Path) -> None:
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) >= 3
    (sharded / shards[0]).unlink()
    (sharded / shards[1]).write_bytes((sharded / shards[1]).read_bytes()[:-5])
    lost = next(name for name, shard in index["weight_map"].items() if shard == shards[2])
    unlisted = next(name for name, shard in reversed(index["weight_map"].items()) if shard == shards[2])
    edit_tensors(sharded / shards[2], lambda tensors: tensors.__delitem__(lost))
    index["weight_map"].pop(unlisted)
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(sharded)
    message = str(caught.value)
    assert f"{shards[0]} cannot be read, or is truncated (no such file)" in message
    assert f"{shards[1]} cannot be read, or is truncated (Error while deserializing header" in message
    assert f"{lost}: missing" in message
    assert f"{unlisted}: missing" in message
    assert message.count(";") == 3  # tensors of a file that is named are not named one by one


@pytest.mark.parametrize("weight_map", [None, "x", {"model.norm.weight": "../secret.safetensors"}, {"model.norm.weight": 3}])
def test_bad_index(sharded: Path, weight_map: object) -> None:
    edit_json(sharded / "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: weight_map: expected an object"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_only_pickled_weights(llama: Path, pickled: str) -> None:
    (llama / "model.safetensors").rename(llama / pickled)
    with pytest.raises(CheckpointError, match=rf"only pickled weights \({pickled}\).*convert them to safetensors"):
        open_checkpoint(llama)


def test_no_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        open_checkpoint(llama)


def test_a_list_of_faults_is_bounded(tmp_path: Path) -> None:
    """Of a file that holds another model's tensors, all are missing."""
    directory = write_checkpoint(tmp_path / "model", "llama", tied=True, num_hidden_layers=60, hidden_size=12)
    edit_tensors(
        directory / "model.safetensors", lambda tensors: [tensors.pop(name) for name in list(tensors)] and tensors.update(x=torch.ones(1))
    )
    with pytest.raises(CheckpointError, match=r"missing \(and 534 more\)$") as caught:
        open_checkpoint(directory)
    assert len(str(caught.value)) < 800


# Refusals of the configuration and of the path


def test_quantised_weights(llama: Path) -> None:
    edit_json(llama / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModelError, match=r"quant_method 'gptq'\); supported: bfloat16, float16, float32, or a \.gguf file"):
        open_checkpoint(llama)


@pytest.mark.parametrize("keys", [("quantization",), ("quantization_config",), ("quantization", "quantization_config")])
def test_quantised_by_mlx(llama: Path, keys: tuple[str, ...]) -> None:
    """mlx_lm writes the former key, and since 2025 both."""
    groups: dict[str, Any] = {"group_size": 64, "bits": 4, "mode": "affine"}
    edit_json(llama / "config.json", **dict.fromkeys(keys, groups))
    with pytest.raises(UnsupportedModelError, match=r"quantised \(by MLX, 4 bits in groups of 64\); .*`mlx_lm.convert --dequantize`"):
        open_checkpoint(llama)


def test_unknown_model_type(llama: Path) -> None:
    edit_json(llama / "config.json", model_type="mamba")
    with pytest.raises(UnsupportedModelError, match="config.json: .*'mamba'.*supported: gemma2, .*llama, .*qwen3_5_text, smollm3"):
        open_checkpoint(llama)


def test_unsupported_option_names_the_file(llama: Path) -> None:
    edit_json(llama / "config.json", hidden_act="gelu")
    with pytest.raises(UnsupportedModelError, match="llama/config.json: .*hidden_act: found 'gelu', supported 'silu'"):
        open_checkpoint(llama)


@pytest.mark.parametrize("field", ["model_type", "hidden_size", "num_hidden_layers"])
def test_missing_field(llama: Path, field: str) -> None:
    edit_json(llama / "config.json", **{field: None})
    with pytest.raises(CheckpointError, match=rf"llama/config\.json: .*{field}"):
        open_checkpoint(llama)


@pytest.mark.parametrize(
    ("content", "text"), [("{", "not readable as JSON"), ("3", "expected a JSON object, found int"), (None, "no such file")]
)
def test_bad_config_file(llama: Path, content: str | None, text: str) -> None:
    (llama / "config.json").unlink() if content is None else (llama / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"llama/config\.json: {text}"):
        open_checkpoint(llama)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such file or directory"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "model.bin").touch()
    with pytest.raises(CheckpointError, match="model.bin: expected a Hugging Face checkpoint directory or a .gguf file"):
        open_checkpoint(tmp_path / "model.bin")


COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/SmolLM2", "SmolLM2"),
        ("models/SmolLM2/", "SmolLM2"),
        ("SmolLM2.gguf", "SmolLM2.gguf"),
        (f"hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/{COMMIT}", "HuggingFaceTB/SmolLM2-135M"),
        (f"hub/models--gpt2/snapshots/{COMMIT}/", "gpt2"),
        (f"hub/models--a--b--c/snapshots/{COMMIT}/float", "a/b--c/float"),
        (f"hub/models--a--b/snapshots/{COMMIT}/b-Q8_0.gguf", "b-Q8_0.gguf"),
        (f"other/snapshots/{COMMIT}", COMMIT),
        ("tiny", "tiny"),
    ],
)
def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    """Alike from without, and from within the directory itself."""
    assert model_name(Path(path)) == name
    if not path.endswith(".gguf"):
        (tmp_path / path).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / path)
        assert model_name(Path(".")) == name
        assert model_name(Path(os.pardir) / Path(path).name) == name


def test_directories_need_neither_transformers_nor_gguf(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        assert name.split(".")[0] not in ("transformers", "gguf"), name
        return real_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with open_checkpoint(llama) as checkpoint:
        checkpoint.read("model.norm.weight")
