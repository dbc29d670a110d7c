"""`lcsb adapter`: to PEFT and back, merged; one line and an exit code for everything that is wrong."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.bundles import RandomBundle, lcsb, lcsb_error, lcsb_json, left_behind, python
from safetensors.numpy import load_file, save_file

from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.cli.adapter import ranges
from lcsb_mobile.installing import how_to_install

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def source(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """An adapter with a B that is not zero. Rank 4, alpha 16."""
    layout = Bundle.open(random_bundle.bundle).manifest.adapter
    values = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    save_adapter(tmp_path / "adapter.safetensors", layout, 0.05 * values)
    return tmp_path / "adapter.safetensors"


def test_to_peft_and_back(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    of_bundle = ("--bundle", random_bundle.bundle)
    text = lcsb("adapter", "export", source, *of_bundle, "--output", tmp_path / "peft")
    assert f"{tmp_path / 'peft'}: 42 matrices, rank 4, alpha 16, for checkpoint" in text and "peft.PeftModel.from_pretrained(model" in text
    text = lcsb("adapter", "import", tmp_path / "peft", *of_bundle, "--output", tmp_path / "back.safetensors")
    assert "42 matrices of F32, rank 4, scaling 4\n" in text and "as before training" not in text
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()
    assert "--force" in lcsb_error(2, "adapter", "export", source, *of_bundle, "--output", tmp_path / "peft")
    assert "--force" in lcsb_error(2, "adapter", "import", tmp_path / "peft", *of_bundle, "--output", source)
    result = lcsb_json("adapter", "export", source, *of_bundle, "--output", tmp_path / "peft", "--base-model", "acme/base", "--force")
    assert (result["base_model"], result["matrices"], result["alpha"]) == ("acme/base", 42, 16.0)
    result = lcsb_json("adapter", "import", tmp_path / "peft", *of_bundle, "--output", tmp_path / "back.safetensors", "--force")
    assert result == {
        "adapter": str(tmp_path / "back.safetensors"),
        "base_model": "acme/base",
        "rank": 4,
        "scaling": 4.0,
        "dtypes": ["F32"],
        "matrices": 42,
        "initial": {},
    }


def test_what_an_imported_adapter_leaves_out(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    lcsb("adapter", "export", source, "--bundle", random_bundle.bundle, "--output", tmp_path / "peft")
    tensors = load_file(tmp_path / "peft" / TENSORS)
    left_out = ("mlp.", "layers.1.self_attn.q_proj")
    save_file({name: array for name, array in tensors.items() if not any(part in name for part in left_out)}, tmp_path / "peft" / TENSORS)
    text = lcsb("adapter", "import", tmp_path / "peft", "--bundle", random_bundle.bundle, "--output", tmp_path / "back")
    assert "  as before training  gate_proj, up_proj, down_proj of layers 0-2\n" in text
    assert "  as before training  q_proj of layers 1\n" in text


def test_ranges() -> None:
    assert ranges((0, 1, 2, 5, 7, 8)) == "0-2, 5, 7-8"


def test_merging(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    arguments = (
        "adapter",
        "merge",
        source,
        "--bundle",
        random_bundle.bundle,
        "--model",
        random_bundle.checkpoint,
        "--output",
        tmp_path / "m",
    )
    text = lcsb(*arguments)
    assert f"{tmp_path / 'm'}: checkpoint: llama, 3 layers" in text and "merged    21 matrices; " in text and "model.safetensors" in text
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").dtype == torch.bfloat16
    assert "--force" in lcsb_error(2, *arguments)
    result = lcsb_json(*arguments, "--force", "--dtype", "float32")
    assert (result["dtype"], result["merged_matrices"], result["files"]) == ("float32", 21, ["model.safetensors"])
    assert 0.01 < result["base_difference"] < 0.1
    result = lcsb_json(*arguments, "--force", "--dequantized")
    assert (result["source"], result["base_difference"]) == ("bundle, decompressed", None)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"
    assert left_behind(tmp_path, ".m.") == []


def test_the_embedded_model_is_another(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    line = lcsb_error(2, "adapter", "merge", source, "--bundle", random_bundle.bundle, "--model", "tiny", "--output", tmp_path / "m")
    assert "model_type: expected llama, found qwen2; " in line and not (tmp_path / "m").exists()


def test_bad_input(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    bundle = ("--bundle", random_bundle.bundle)
    output = ("--output", tmp_path / "out")
    foreign = random_bundle.checkpoint / "model.safetensors"
    lcsb("adapter", "export", source, *bundle, "--output", tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / CONFIG).read_text())
    (tmp_path / "peft" / CONFIG).write_text(json.dumps(config | {"use_dora": True, "bias": "all", "lora_alpha": 8}))
    for arguments, expected in (
        (("export", foreign, *bundle), "does not fit the bundle's adapter"),
        (("export", tmp_path / "absent", *bundle), "not a readable safetensors file"),
        (("export", tmp_path / "peft", *bundle), "lcsb adapter import reads it"),
        (("export", random_bundle.checkpoint, *bundle), "holds no checkpoint"),
        (("export", source, "--bundle", tmp_path), "not a bundle"),
        (("import", tmp_path / "absent", *bundle), "no such file; expected a directory that PEFT's save_pretrained wrote"),
        (("import", tmp_path / "peft", *bundle), 'bias: expected "none", found "all"; use_dora: expected false, found true; lora_alpha/r'),
        (("merge", source, *bundle, "--model", tmp_path / "absent"), "no such file or directory"),
        (("merge", foreign, *bundle, "--model", random_bundle.checkpoint), "does not fit the bundle's adapter"),
    ):
        assert expected in lcsb_error(2, "adapter", *arguments, *output)
        assert left_behind(tmp_path, "out") == []


def test_a_directory_that_may_not_be_written(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    for verb in (("export",), ("merge", "--model", random_bundle.checkpoint)):
        arguments = ("adapter", verb[0], source, "--bundle", random_bundle.bundle, *verb[1:], "--output", source / "within")
        assert "cannot be written" in lcsb_error(1, *arguments)


@pytest.mark.parametrize("verb", ["export", "import", "merge"])
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: lcsb adapter {verb}" in lcsb("adapter", verb, "--help")
    assert "Example: lcsb adapter" in lcsb("adapter", "--help")


def test_export_and_import_need_no_torch(random_bundle: RandomBundle, source: Path, tmp_path: Path) -> None:
    program = """
import sys
from lcsb_mobile.cli import app
source, bundle, there, back = sys.argv[1:]
assert not app(["adapter", "export", source, "--bundle", bundle, "--output", there], standalone_mode=False)
assert not app(["adapter", "import", there, "--bundle", bundle, "--output", back], standalone_mode=False)
print("loaded", *sys.modules)
"""
    done = python(program, source, random_bundle.bundle, tmp_path / "peft", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert not {"torch", "peft", "transformers", "onnxruntime"} & set(done.stdout.rpartition("loaded")[2].split())
    assert load_adapter(tmp_path / "back", Bundle.open(random_bundle.bundle).manifest.adapter).any()
    assert sorted(os.listdir(tmp_path / "peft")) == [CONFIG, TENSORS]


def test_merging_without_torch(random_bundle: RandomBundle, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "lcsb_mobile.export.merge":
            raise ImportError("No module named 'torch'")
        return real_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    line = lcsb_error(2, "adapter", "merge", source, "--bundle", random_bundle.bundle, "--model", "tiny", "--output", tmp_path / "m")
    assert "merging needs torch" in line and how_to_install("export") in line
