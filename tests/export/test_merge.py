"""Merged checkpoints: what transformers makes of them equals base and adapter apart; whose base it is; what is refused."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.checkpoints import CHAT_TEMPLATE, write_checkpoint
from helpers.peft_models import TOLERANCE, bundle_of, dequantized, load_peft, logits, runner_logits, stored
from helpers.tiny_models import MODELS, MakeTiny, TinyModel, matrices_of
from safetensors.torch import load_file, save_file

from lcsb_mobile.adapters.merge_options import MergeOptions
from lcsb_mobile.adapters.peft import export_peft
from lcsb_mobile.bundle.adapter import save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import AdapterError, CheckpointError, OutputExistsError, StorageError, TokenizerError
from lcsb_mobile.export import merge as merging
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.checkpoints.stored import SINGLE
from lcsb_mobile.export.merge import MergedModel, merge
from lcsb_mobile.export.models import HEAD, checkpoint_weights

ROUNDING = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}  # half a unit in the last place, relative


@pytest.fixture(scope="module")
def model(tiny: MakeTiny) -> TinyModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def bundle(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(model, tmp_path_factory.mktemp("merge") / "bundle")


def merged(model: TinyModel, bundle: Bundle, directory: Path, /, **options: Any) -> MergedModel:
    save_adapter(directory / "adapter.safetensors", model.layout, model.adapter())
    chosen: dict[str, Any] = {"model": str(model.directory / "huggingface"), "output": directory / "merged"} | options
    return merge(bundle, MergeOptions(source=directory / "adapter.safetensors", **chosen))


def load(directory: Path, **options: Any) -> Any:
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", output_loading_info=True, **options
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return loaded.eval()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_base_and_adapter(name: str, tiny: MakeTiny, tmp_path: Path) -> None:
    """On the model's own weights peft's; on the bundle's, peft's and the toolkit's. Law 3's tolerance: W + s B A rounds once more."""
    model = tiny(name)
    bundle, tolerance = bundle_of(model, tmp_path / "bundle"), TOLERANCE[model.config.model_type]
    original = model.directory / "huggingface"
    result = merged(model, bundle, tmp_path, dtype="float32")
    export_peft(tmp_path / "adapter.safetensors", bundle, tmp_path / "peft")
    expected = logits(load_peft(load(original, dtype=torch.float32), tmp_path / "peft"))
    np.testing.assert_allclose(logits(load(tmp_path / "merged")), expected, rtol=0, atol=tolerance)
    assert result.merged_matrices == matrices_of(model.config)
    assert result.base_difference == pytest.approx(np.sqrt(np.mean(np.square(list(adapted_errors(model))))), rel=0.1)

    merged(model, bundle, tmp_path, dtype="float32", dequantized=True, force=True)
    found = logits(load(tmp_path / "merged"))
    np.testing.assert_allclose(found, logits(load_peft(dequantized(model), tmp_path / "peft")), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found, runner_logits(model, model.adapter()), rtol=0, atol=tolerance)
    assert np.abs(found - expected).max() > 0.05  # another base


def adapted_errors(model: TinyModel) -> list[float]:
    return [error for name, error in model.errors.items() if "proj" in name]


@pytest.mark.parametrize("dequantized", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_every_tensor(dtype: str, dequantized: bool, model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """Against float64: one rounding to the dtype, and where a matrix is adapted those of float32 before it."""
    result = merged(model, bundle, tmp_path, dtype=dtype, dequantized=dequantized)
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    assert tensors.keys() == checkpoint_weights(model.config).keys()  # the head is tied, so it is not there
    adapter = model.adapter()
    with open_checkpoint(model.directory / "huggingface") as checkpoint:
        for name, found in tensors.items():
            base = stored(model, name) if dequantized else checkpoint.read(name)
            expected, before = reference(model, adapter, name, base.double())
            bound = ROUNDING[dtype] * expected.abs() + before + 2.0**-25  # the last: float16's subnormals
            assert found.dtype == getattr(torch, dtype)
            assert ((found.double() - expected).abs() <= bound).all(), name
    assert (result.dtype, result.files) == (dtype, ("model.safetensors",))
    assert result.size == sum(tensor.nbytes for tensor in tensors.values())


def reference(model: TinyModel, adapter: np.ndarray, name: str, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
    """W + s B A in float64, and the bound of what float32 makes of it: rank 4 products, their sums, the scaling, the sum."""
    module = name.removeprefix("model.layers.").removesuffix(".weight")
    number, _, module = module.partition(".")
    vectors = model.layout.vectors(torch.from_numpy(adapter))
    views = model.layout.views(int(number), vectors[int(number)]) if number.isdigit() else {}
    if f"{module}.lora_A" not in views:
        return base, 0.0
    a, b = views[f"{module}.lora_A"].double(), views[f"{module}.lora_B"].double()
    scaling = model.layout.lora.scaling
    return base + scaling * b @ a, 8 * 2.0**-24 * (base.abs() + scaling * b.abs() @ a.abs())


@pytest.mark.parametrize("name", ["llama", "qwen2-untied"])
def test_shards_and_parts_hold_the_same(name: str, tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(name)
    bundle = bundle_of(model, tmp_path / "bundle")
    merged(model, bundle, tmp_path, dtype="float16")
    whole = load_file(tmp_path / "merged" / "model.safetensors")
    monkeypatch.setattr(merging, "SHARD_BYTES", 40_000)
    monkeypatch.setattr(merging, "ROWS_AT_ONCE", 7)
    result = merged(model, bundle, tmp_path, dtype="float16", force=True)
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    count = len(result.files)
    assert count > 2 and result.files == tuple(f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1))
    parts = {file: load_file(tmp_path / "merged" / file) for file in result.files}
    assert index["weight_map"] == {name: file for file, tensors in parts.items() for name in tensors}
    assert index["metadata"]["total_size"] == result.size == sum(tensor.nbytes for tensor in whole.values())
    assert all(sum(tensor.nbytes for tensor in tensors.values()) <= 40_000 for tensors in parts.values())
    rejoined = dict(itertools.chain.from_iterable(tensors.items() for tensors in parts.values()))
    assert rejoined.keys() == whole.keys()
    assert all(
        (rejoined[name].float() - whole[name].float()).abs().max() <= 2**-10 for name in whole
    )  # a product of fewer rows may round otherwise
    load(tmp_path / "merged")


def test_the_directory(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """Everything that transformers needs to chat: template, end tokens; nothing else. In bfloat16 unless asked otherwise."""
    original = tmp_path / "original"
    write_checkpoint(original, "llama", tied=True, **MODELS["llama"][2])
    config = json.loads((original / "config.json").read_text())
    (original / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32", "mine": 3}))
    (original / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    result = merged(model, bundle, tmp_path, model=str(original))
    files = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(os.listdir(tmp_path / "merged")) == files
    assert result.source == "original: llama, 3 layers, 0.1 M parameters, float32"
    written = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert written == config | {"dtype": "bfloat16", "mine": 3}
    loaded = load(tmp_path / "merged")
    assert loaded.dtype == torch.bfloat16 and loaded.generation_config.eos_token_id == [2, 7]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == CHAT_TEMPLATE and tokenizer.eos_token == "</s>"
    with open_checkpoint(tmp_path / "merged") as checkpoint:  # and can be exported again
        assert checkpoint.config == model.config


def test_side_files_are_carried_along(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """Byte by byte, so that converters, which read `tokenizer.model`, and AutoTokenizer find what the model came with."""
    original = write_checkpoint(tmp_path / "original", "llama", tied=True, **MODELS["llama"][2])
    more = ("tokenizer.model", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "additional_chat_templates/rag.jinja")
    for name, content in zip(more, ("sentencepiece", '{"pad_token": "<pad>"}', '{"<tool>": 131}', "{{ 'é' }}", "{{ 'r' }}"), strict=True):
        (original / name).parent.mkdir(exist_ok=True)
        (original / name).write_text(content)
    merged(model, bundle, tmp_path, model=str(original))
    for name in (*more, "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (original / name).read_bytes()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "merged").encode("<tool>") == [131]


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_head_that_the_configuration_denies(tiny: MakeTiny, tmp_path: Path, prefix: str) -> None:
    """It is merged like any other tensor, and the configuration that is written says so."""
    model = tiny("llama-untied")
    bundle = bundle_of(model, tmp_path / "bundle")
    original = tmp_path / "original"
    shutil.copytree(model.directory / "huggingface", original)
    tensors = load_file(original / "model.safetensors")
    save_file(
        {prefix + name.removeprefix("model.") if name != HEAD else name: tensor for name, tensor in tensors.items()}, original / SINGLE
    )
    config = json.loads((original / "config.json").read_text())
    (original / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    merged(model, bundle, tmp_path, model=str(original), dtype="float32")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(load_file(tmp_path / "merged" / SINGLE)[HEAD], tensors[HEAD])
    merged(model, bundle, tmp_path, dtype="float32", output=tmp_path / "plain")
    np.testing.assert_array_equal(logits(load(tmp_path / "merged")), logits(load(tmp_path / "plain")))


# Refusals


def refused(error: type[Exception], text: str, model: TinyModel, bundle: Bundle, tmp_path: Path, /, **options: Any) -> None:
    with pytest.raises(error, match=text):
        merged(model, bundle, tmp_path, **options)
    assert not [name for name in os.listdir(tmp_path) if "merged" in name]


def test_another_model(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """By its configuration, all of it named; by its weights."""
    write_checkpoint(tmp_path / "wide", "llama", tied=False, intermediate_size=88, attention_bias=True, mlp_bias=True)
    faults = "not the model that the bundle was exported from: intermediate_size: expected 80, found 88; tie_word_embeddings: expected True"
    refused(CheckpointError, faults, model, bundle, tmp_path, model=str(tmp_path / "wide"))
    write_checkpoint(tmp_path / "seed", "llama", tied=True, seed=1, **MODELS["llama"][2])
    refused(
        CheckpointError,
        r"q_proj.weight: expected within 70% of the bundle's, found 1\d\d%",
        model,
        bundle,
        tmp_path,
        model=str(tmp_path / "seed"),
    )
    merged(model, bundle, tmp_path, model=str(tmp_path / "seed"), dequantized=True)  # none of its weights is taken


def test_numbers_of_a_gguf_are_float32(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    overrides = MODELS["llama"][2] | {"rms_norm_eps": float(np.float32(1e-6))}
    write_checkpoint(tmp_path / "close", "llama", tied=True, **overrides)
    merged(model, bundle, tmp_path, model=str(tmp_path / "close"))
    write_checkpoint(tmp_path / "far", "llama", tied=True, **(overrides | {"rms_norm_eps": 1.1e-6}))
    with pytest.raises(CheckpointError, match="rms_norm_eps: expected 1e-06, found 1.1e-06"):
        merged(model, bundle, tmp_path, model=str(tmp_path / "far"), force=True)


def test_values_that_float16_cannot_hold(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path / "original", "llama", tied=True, **MODELS["llama"][2])
    tensors = load_file(original / "model.safetensors")
    tensors["model.norm.weight"][3] = 70_000
    save_file(tensors, original / "model.safetensors", {"format": "pt"})
    refused(
        CheckpointError,
        "model.norm.weight: has values that float16 cannot hold",
        model,
        bundle,
        tmp_path,
        model=str(original),
        dtype="float16",
    )
    merged(model, bundle, tmp_path, model=str(original))


def test_what_is_missing(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    refused(CheckpointError, "no such file or directory", model, bundle, tmp_path, model=str(tmp_path / "absent"))
    original = write_checkpoint(tmp_path / "original", "llama", tied=True, **MODELS["llama"][2])
    (original / "tokenizer.json").unlink()
    refused(TokenizerError, "no tokenizer.json", model, bundle, tmp_path, model=str(original))
    with pytest.raises(AdapterError, match="not a readable safetensors file"):
        merge(bundle, MergeOptions(tmp_path / "none", str(model.directory / "huggingface"), tmp_path / "out"))


def test_a_full_disk(model: TinyModel, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "write_safetensors", full)
    refused(StorageError, "No space left", model, bundle, tmp_path)


def test_the_model_itself_is_never_replaced(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path / "original", "llama", tied=True, **MODELS["llama"][2])
    (tmp_path / "link").symlink_to(original)
    for output in ("original", "link"):
        with pytest.raises(OutputExistsError, match="holds what is read"):
            merged(model, bundle, tmp_path, model=str(original), output=tmp_path / output, force=True)
    with pytest.raises(OutputExistsError, match="holds no config.json"):
        merged(model, bundle, tmp_path, model=str(original), output=bundle.path, force=True)
    with pytest.raises(OutputExistsError, match="--force"):
        merged(model, bundle, tmp_path, model=str(original), output=tmp_path / "original")
    assert (original / "model.safetensors").is_file()
