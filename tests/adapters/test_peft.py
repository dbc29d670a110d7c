"""Law 8: an adapter in PEFT's layout is the same function in peft and transformers; and back. Refusals: test_peft_refusals.py."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import peft
import pytest
import torch
from helpers.peft_models import TOLERANCE, bundle_of, dequantized, load_peft, logits, runner_logits
from helpers.run_checkpoints import IDENTITY
from helpers.tiny_models import LORA, MODELS, MakeTiny, TinyModel, matrices_of
from safetensors.torch import load_file, save_file

from lcsb_mobile.adapters.peft import export_peft, import_peft, read_source
from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import AdapterError, OutputExistsError, RunCheckpointError
from lcsb_mobile.runs.checkpoint import RunCheckpoint, RunPlace, write_checkpoint
from lcsb_mobile.training.state import AdapterState

MODULES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.fixture(scope="module")
def model(tiny: MakeTiny) -> TinyModel:
    return tiny("llama-untied")


@pytest.fixture(scope="module")
def bundle(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(model, tmp_path_factory.mktemp("peft") / "bundle")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """peft asks the hub for the base model's configuration when it saves."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def exported(model: TinyModel, bundle: Bundle, directory: Path, seed: int = 0) -> Path:
    save_adapter(directory / "adapter.safetensors", model.layout, model.adapter(seed))
    export_peft(directory / "adapter.safetensors", bundle, directory / "peft", "acme/base")
    return directory / "peft"


# Export


@pytest.mark.parametrize("name", MODELS)
def test_peft_gives_the_same_logits(name: str, tiny: MakeTiny, tmp_path: Path) -> None:
    """And back again through peft's own save_pretrained: the same bits."""
    model = tiny(name)
    bundle = bundle_of(model, tmp_path / "bundle")
    directory = exported(model, bundle, tmp_path)
    base, adapter = dequantized(model), model.adapter(0)
    alone = logits(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*keys.*")  # what from_pretrained says of those that are missing
        adapted = load_peft(base, directory)
    loaded = peft.set_peft_model_state_dict(adapted, peft.load_peft_weights(str(directory), device="cpu"))
    assert not loaded.unexpected_keys and not [key for key in loaded.missing_keys if "lora_" in key]
    found, expected = logits(adapted), runner_logits(model, adapter)
    assert np.abs(expected - alone).max() > 1  # the adapter is worth something
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[model.config.model_type])
    adapted.save_pretrained(str(tmp_path / "saved"))
    result = import_peft(tmp_path / "saved", bundle, tmp_path / "back.safetensors")
    assert np.array_equal(load_adapter(tmp_path / "back.safetensors", model.layout), adapter)
    assert (result.base_model, result.dtypes, result.initial) == ("acme/base", ("F32",), {})
    assert result.matrices == 2 * matrices_of(model.config)


def test_configuration_is_a_plain_lora(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    directory = exported(model, bundle, tmp_path)
    assert sorted(os.listdir(directory)) == ["adapter_config.json", "adapter_model.safetensors"]
    found = peft.PeftConfig.from_pretrained(str(directory))
    plain = peft.LoraConfig(r=4, lora_alpha=12, target_modules=MODULES, task_type="CAUSAL_LM", inference_mode=True)
    plain.base_model_name_or_path = "acme/base"
    assert found.to_dict() == plain.to_dict()
    assert isinstance(json.loads((directory / "adapter_config.json").read_text())["lora_alpha"], int)


def test_base_is_named_after_the_bundles_source(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    save_adapter(tmp_path / "a", model.layout, model.adapter())
    for source, name in (("qwen.gguf: qwen2, 3 layers, GGUF", "qwen.gguf"), ("a: b: llama", "a: b"), ("tests", "tests")):
        named = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, source=source))
        assert export_peft(tmp_path / "a", named, tmp_path / "peft", force=True).base_model == name
        assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"] == name


def test_alpha_that_is_no_integer(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    layout = dataclasses.replace(model.layout, lora=LoraConfig(4, 5.5))
    half = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, lora=layout.lora))
    save_adapter(tmp_path / "a", layout, model.adapter())
    export_peft(tmp_path / "a", half, tmp_path / "peft")
    assert peft.PeftConfig.from_pretrained(str(tmp_path / "peft")).lora_alpha == 5.5


def run_checkpoint(model: TinyModel, bundle: Bundle, step: int, seed: int) -> RunCheckpoint:
    layers = model.config.num_hidden_layers
    state = AdapterState(model.adapter(seed), *(np.ones(model.layout.size, np.float32) for _ in range(2)))
    train = msgspec.structs.replace(IDENTITY.train, accumulation=1)
    identity = msgspec.structs.replace(IDENTITY, bundle=bundle.identity, train=train)
    place = RunPlace(identity, step, step, "eager", 0)
    return RunCheckpoint(place, state, np.full(layers, step, np.int64), np.zeros((step, 6)), np.zeros((0, 2)))


def test_sources(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """An adapter file, a checkpoint, a directory of them; a PEFT directory is not one."""
    save_adapter(tmp_path / "a.safetensors", model.layout, model.adapter(1))
    for step in (1, 3, 2):
        write_checkpoint(tmp_path / "run" / f"step-{step:08}.safetensors", run_checkpoint(model, bundle, step, seed=step))
    for source, seed in (("a.safetensors", 1), ("run/step-00000002.safetensors", 2), ("run", 3)):
        assert np.array_equal(read_source(tmp_path / source, bundle), model.adapter(seed))
    export_peft(tmp_path / "run", bundle, tmp_path / "peft")
    with pytest.raises(AdapterError, match="found a PEFT directory; lcsb adapter import reads it"):
        read_source(tmp_path / "peft", bundle)
    with pytest.raises(RunCheckpointError, match="holds no checkpoint"):
        read_source(tmp_path / "peft" / "..", bundle)
    with pytest.raises(AdapterError, match="not a readable safetensors file"):
        read_source(tmp_path / "absent", bundle)


def test_sources_of_another_base(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """Of the same shapes: nothing else would tell, and PEFT's directory would name the wrong base."""
    other = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, base="ab" * 32, identity="cd" * 32, source="acme/other: llama"))
    save_adapter(tmp_path / "a.safetensors", bundle.manifest.adapter, model.adapter(1))
    write_checkpoint(tmp_path / "run" / "step-00000001.safetensors", run_checkpoint(model, bundle, 1, 1))
    with pytest.raises(AdapterError, match="was trained on another base: expected acme/other .*, found tests "):
        export_peft(tmp_path / "a.safetensors", other, tmp_path / "peft")
    with pytest.raises(RunCheckpointError, match="is of a run on another bundle"):
        export_peft(tmp_path / "run", other, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
    export_peft(tmp_path / "a.safetensors", bundle, tmp_path / "peft")  # the way that the refusal names
    import_peft(tmp_path / "peft", other, tmp_path / "b.safetensors")
    assert np.array_equal(load_adapter(tmp_path / "b.safetensors", other.manifest.adapter), model.adapter(1))


def test_a_damaged_directory_of_ours(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """Whose values are all in their range."""
    path = exported(model, bundle, tmp_path) / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(AdapterError, match="damaged: expected SHA-256"):
        import_peft(path.parent, bundle, tmp_path / "back.safetensors")


def test_what_is_exported_is_its_owners_alone(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    directory = exported(model, bundle, tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (directory, *sorted(directory.iterdir()))] == [0o700, 0o600, 0o600]


def test_what_is_replaced(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "a.safetensors"
    save_adapter(source, model.layout, model.adapter())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "empty").mkdir()
    for output, force, message in (
        ("thesis", False, "--force"),
        ("thesis", True, "holds no adapter_config.json"),
        ("a.safetensors", True, "holds no"),
    ):
        with pytest.raises(OutputExistsError, match=message):
            export_peft(source, bundle, tmp_path / output, force=force)
    export_peft(source, bundle, tmp_path / "empty", force=True)
    export_peft(source, bundle, tmp_path / "empty", force=True)
    save_adapter(tmp_path / "empty" / "within", model.layout, model.adapter())
    with pytest.raises(OutputExistsError, match="holds what is read"):
        export_peft(tmp_path / "empty" / "within", bundle, tmp_path / "empty", force=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists() and (tmp_path / "empty" / "within").exists()
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "empty", "thesis"]


# Import of what peft wrote


def saved_by_peft(model: TinyModel, directory: Path, **options: Any) -> Any:
    """An adapter that peft made and saved, every matrix of it random; and the adapted model."""
    chosen: dict[str, Any] = {"r": LORA.rank, "lora_alpha": LORA.alpha, "target_modules": MODULES} | options
    adapted = peft.get_peft_model(dequantized(model), peft.LoraConfig(task_type="CAUSAL_LM", **chosen)).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(str(directory))
    return adapted


ALL = (0, 1, 2)
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

# Name -> (options of peft.LoraConfig, projection -> layers that are left out).
ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "everything": ({}, {}),
    "all-linear": ({"target_modules": "all-linear"}, {}),
    "rsLoRA": ({"use_rslora": True, "lora_alpha": LORA.scaling * math.sqrt(LORA.rank)}, {}),
    "q and v": (
        {"target_modules": ["q_proj", "v_proj"]},
        dict.fromkeys(("self_attn.k_proj", "self_attn.o_proj", *MLP), ALL),
    ),
    "a pattern": ({"target_modules": r".*\.self_attn\.[qkvo]_proj"}, dict.fromkeys(MLP, ALL)),
    "full names": ({"target_modules": ["model.layers.1.mlp.up_proj"]}, {**dict.fromkeys((*ATTENTION, *MLP), ALL), "mlp.up_proj": (0, 2)}),
    "some layers": ({"layers_to_transform": [0, 2]}, dict.fromkeys((*ATTENTION, *MLP), (1,))),
    "one layer": ({"layers_to_transform": 1, "layers_pattern": "layers"}, dict.fromkeys((*ATTENTION, *MLP), (0, 2))),
    "all but some": ({"target_modules": "all-linear", "exclude_modules": ["up_proj"]}, {"mlp.up_proj": ALL}),
    "all but a pattern": ({"exclude_modules": r".*\.2\..*"}, dict.fromkeys((*ATTENTION, *MLP), (2,))),
    "another start": ({"init_lora_weights": "gaussian", "lora_dropout": 0.1}, {}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_import_is_the_same_function(case: str, model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    options, left_out = ACCEPTED[case]
    adapted = saved_by_peft(model, tmp_path / "peft", **options)
    result = import_peft(tmp_path / "peft", bundle, tmp_path / "adapter.safetensors")
    assert result.initial == left_out
    adapter = load_adapter(tmp_path / "adapter.safetensors", model.layout)
    found = runner_logits(model, adapter)
    np.testing.assert_allclose(found, logits(adapted), rtol=0, atol=TOLERANCE["llama"])
    assert np.abs(found - runner_logits(model, bundle.initial_adapter())).max() > 0.05
    initial = bundle.initial_adapter()
    for module, layers in result.initial.items():
        for layer in layers:
            first, now = (model.layout.views(layer, model.layout.vectors(array)[layer]) for array in (initial, adapter))
            assert np.array_equal(now[f"{module}.lora_A"], first[f"{module}.lora_A"])
            assert now[f"{module}.lora_A"].any() and not now[f"{module}.lora_B"].any()


def test_left_out_is_zero_even_where_the_bundles_is_not(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    """As in bundles of random weights."""
    other = bundle_of(model, tmp_path / "bundle")
    save_adapter(other.path / "adapter.safetensors", model.layout, model.adapter())
    saved_by_peft(model, tmp_path / "peft", target_modules=["q_proj"])
    import_peft(tmp_path / "peft", other, tmp_path / "adapter.safetensors")
    views = model.layout.views(0, model.layout.vectors(load_adapter(tmp_path / "adapter.safetensors", model.layout))[0])
    assert not views["mlp.up_proj.lora_B"].any() and views["self_attn.q_proj.lora_B"].any()


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "F16"), (torch.bfloat16, "BF16"), (torch.float32, "F32")])
def test_dtypes(dtype: torch.dtype, name: str, model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    directory = exported(model, bundle, tmp_path)
    path = directory / "adapter_model.safetensors"
    tensors = {key: tensor.to(dtype) for key, tensor in load_file(path).items()}
    first = next(iter(tensors))
    tensors[first].view(-1)[:6] = torch.tensor([0.0, -0.0, 1e-7, -6e-8, 65504.0, -1.0]).to(dtype)  # subnormal in float16
    save_file(tensors, path)
    result = import_peft(directory, bundle, tmp_path / "back")
    assert result.dtypes == (name,)
    adapter = load_adapter(tmp_path / "back", model.layout)
    for key, view in model.layout.named(adapter):
        assert np.array_equal(view.view(np.uint32), tensors[key].float().numpy().view(np.uint32)), key


def test_import_replaces_by_force_alone(model: TinyModel, bundle: Bundle, tmp_path: Path) -> None:
    directory = exported(model, bundle, tmp_path)
    (tmp_path / "back").write_text("x")
    with pytest.raises(OutputExistsError, match="--force"):
        import_peft(directory, bundle, tmp_path / "back")
    import_peft(directory, bundle, tmp_path / "back", force=True)
    load_adapter(tmp_path / "back", model.layout)
