"""PEFT directories that are not the bundle's plain LoRA, or no adapter: one AdapterError that says everything, and nothing written."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bundles import left_behind
from helpers.onnxruntime_bundles import DEFAULTS, manifest_of
from helpers.tiny_models import MakeTiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig as TheirConfig
from safetensors.numpy import load_file, save_file

from lcsb_mobile.adapters.peft import export_peft, import_peft
from lcsb_mobile.adapters.peft_config import PLAIN, read_config
from lcsb_mobile.bundle.adapter import save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import ADAPTER_FILE
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import AdapterError

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LAST = "base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def bundle(tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Rank 4, alpha 12."""
    model = tiny("llama-untied")
    directory = tmp_path_factory.mktemp("bundle")
    save_adapter(directory / ADAPTER_FILE, model.layout, model.adapter())
    return Bundle(directory, manifest_of(model, "onnxruntime", DEFAULTS, {}))


@pytest.fixture
def directory(bundle: Bundle, tmp_path: Path) -> Path:
    """A good one, which the test may spoil."""
    export_peft(bundle.path / ADAPTER_FILE, bundle, tmp_path / "peft")
    return tmp_path / "peft"


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(directory: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(directory / TENSORS)
    change(tensors)
    save_file(tensors, directory / TENSORS)


def refused(directory: Path, bundle: Bundle, *texts: str) -> str:
    with pytest.raises(AdapterError) as caught:
        import_peft(directory, bundle, directory.parent / "imported")
    message = str(caught.value)
    assert "\n" not in message and str(directory) in message
    assert all(text in message for text in texts), message
    assert left_behind(directory.parent, "imported") == []
    return message


# Options

CHANGED: dict[str, Any] = {
    "alora_invocation_tokens": [1, 2],
    "alpha_pattern": {"q_proj": 32},
    "arrow_config": {"top_k": 2},
    "bias": "lora_only",
    "fan_in_fan_out": True,
    "init_lora_weights": "pissa_niter_4",
    "kasa_config": {"beta": 1e-4},
    "layer_replication": [[0, 2], [1, 3]],
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "monteclora_config": {"num_samples": 8},
    "rank_pattern": {"q_proj": 8},
    "target_parameters": ["mlp.experts.gate_up_proj"],
    "trainable_token_indices": {"embed_tokens": [1]},
    "use_bdlora": {"nblocks": 2},
    "use_dora": True,
    "use_qalora": True,
}


def test_every_refused_option_is_one_of_pefts() -> None:
    """And each of PEFT's own defaults is among what is accepted."""
    assert CHANGED.keys() == PLAIN.keys()
    theirs = TheirConfig().to_dict()
    assert all(theirs[name] in plain for name, plain in PLAIN.items())


@pytest.mark.parametrize("option", CHANGED)
def test_options_that_change_the_function(option: str, directory: Path, bundle: Bundle) -> None:
    edit_config(directory, **{option: CHANGED[option]})
    refused(directory, bundle, f"{option}: expected ", f"found {json.dumps(CHANGED[option])}")


def test_all_of_them_at_once(directory: Path, bundle: Bundle) -> None:
    edit_config(directory, **CHANGED, r=8)
    refused(directory, bundle, *(f"{option}: expected" for option in CHANGED), "r: expected 4, found 8")


@pytest.mark.parametrize("start", ["pissa", "olora", "OLoRA", "corda", "loftq", "lora_ga", "a later invention", 3])
def test_starts_that_take_from_the_base(start: object, directory: Path, bundle: Bundle) -> None:
    """Without that part of the base the adapter is another function."""
    edit_config(directory, init_lora_weights=start)
    refused(directory, bundle, "init_lora_weights: expected true, found")


def test_unknown_options_and_empty_ones_are_none(directory: Path, bundle: Bundle) -> None:
    edit_config(directory, an_option_of_2027={"x": 1}, modules_to_save=[], rank_pattern=None, layers_to_transform=[], peft_version="9.9")
    import_peft(directory, bundle, directory.parent / "imported")


def test_another_method(directory: Path, bundle: Bundle) -> None:
    edit_config(directory, peft_type="IA3", use_dora=True)
    assert "use_dora" not in refused(directory, bundle, "peft_type: expected LORA, found 'IA3'")


@pytest.mark.parametrize(
    ("changes", "faults", "fitting"),
    [
        ({"lora_alpha": 16}, "lora_alpha/r: expected 3, found 4", LoraConfig(4, 16.0)),
        ({"r": 8}, "r: expected 4, found 8; lora_alpha/r: expected 3, found 1.5", LoraConfig(8, 12.0)),
        ({"r": 8, "lora_alpha": 24}, "r: expected 4, found 8", LoraConfig(8, 24.0)),
        ({"use_rslora": True}, "lora_alpha/sqrt(r): expected 3, found 6", LoraConfig(4, 24.0)),
        ({"use_rslora": True, "r": 8, "lora_alpha": 16}, "expected 3, found 5.65685", LoraConfig(8, 45.25483399593904)),
    ],
)
def test_rank_and_scaling(changes: dict[str, Any], faults: str, fitting: LoraConfig, directory: Path, bundle: Bundle) -> None:
    """The error says which export would fit, and it does."""
    edit_config(directory, **changes)
    rank, alpha = fitting.rank, int(fitting.alpha) if fitting.alpha.is_integer() else fitting.alpha
    refused(directory, bundle, f"{faults} (a bundle of lcsb export --rank {rank} --alpha {alpha} would fit)")
    read_config(directory / CONFIG, dataclasses.replace(bundle.manifest.adapter, lora=fitting))


def test_scaling_that_no_bundle_has(directory: Path, bundle: Bundle) -> None:
    edit_config(directory, lora_alpha=-12)
    assert "would fit" not in refused(directory, bundle, "lora_alpha/r: expected 3, found -3")


# The configuration file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file; expected a directory that PEFT's save_pretrained wrote"),
        ("", "malformed"),
        ("[]", "malformed"),
        ("{}", "peft_type"),
        ('{"peft_type": "LORA", "r": "8"}', "Expected `int`"),
        ('{"peft_type": "LORA", "r": 0}', "r`"),
        ('{"peft_type": "LORA", "r": 100000000000000000000000}', "malformed"),
        ('{"peft_type": "LORA", "lora_alpha": 1e999}', "malformed"),
        ('{"peft_type": "LORA", "target_modules": {"q": 1}}', "target_modules"),
        ('{"peft_type": "LORA", "x": ' + "[" * 100_000, "malformed"),
        ('{"x": "' + "y" * (4 << 20) + '"}', "expected at most 4194304 bytes"),
    ],
)
def test_malformed_configurations(content: str | None, expected: str, directory: Path, bundle: Bundle) -> None:
    (directory / CONFIG).unlink() if content is None else (directory / CONFIG).write_text(content)
    refused(directory, bundle, expected)


# Which modules


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"target_modules": ["q_proj"]}, "model.layers.0.self_attn.k_proj is adapted, and adapter_config.json says it is not"),
        ({"target_modules": ["proj"]}, "model.layers.0.self_attn.q_proj is adapted"),  # no ending of a name at a dot
        ({"target_modules": r".*\.layers\.[01]\..*"}, "model.layers.2.self_attn.q_proj is adapted"),
        ({"target_modules": "q_proj"}, "model.layers.0.self_attn.q_proj is adapted"),  # a pattern must match the whole name
        ({"target_modules": r"model\.layers"}, "model.layers.0.self_attn.q_proj is adapted"),
        ({"exclude_modules": ["mlp.up_proj"]}, "model.layers.1.mlp.up_proj is adapted"),
        ({"exclude_modules": ".*up_proj"}, "model.layers.1.mlp.up_proj is adapted"),
        ({"layers_to_transform": [0, 1]}, "model.layers.2.self_attn.q_proj is adapted"),
        ({"layers_to_transform": 0}, "model.layers.1.self_attn.q_proj is adapted"),
    ],
)
def test_modules_that_peft_would_pass_over(changes: dict[str, Any], text: str, directory: Path, bundle: Bundle) -> None:
    """peft drops their tensors when it loads, so the file would not be the same function there."""
    edit_config(directory, **changes)
    refused(directory, bundle, text)


def test_layers_do_not_matter_with_a_pattern(directory: Path, bundle: Bundle) -> None:
    edit_config(directory, target_modules="all-linear", layers_to_transform=[0])
    import_peft(directory, bundle, directory.parent / "imported")


def test_patterns_that_never_end(directory: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcsb_mobile.adapters.peft_config.PATTERN_SECONDS", 1)
    started = time.perf_counter()
    for pattern in ("(([a-z_.0-9])+)+X", "("):
        edit_config(directory, target_modules=pattern)
        refused(directory, bundle, "target_modules: ", "is no regular expression, or one that takes over 1 s")
    assert time.perf_counter() - started < 30  # on a machine that others use; unstopped it would take hours


# The tensors

FAULTS: dict[str, tuple[Callable[[Tensors], object], list[str]]] = {
    "no tensors": (lambda t: t.clear(), ["holds no tensors"]),
    "half a pair": (lambda t: t.pop(FIRST), [f"{FIRST} is missing"]),
    "another module": (
        lambda t: t.update({"base_model.model.lm_head.lora_A.weight": np.zeros((4, 48), np.float32)}),
        ["'base_model.model.lm_head.lora_A.weight': the bundle adapts no such matrix"],
    ),
    "another layer": (lambda t: t.update({LAST.replace(".2.", ".3."): t[LAST]}), [".3.mlp.down_proj.lora_B.weight': the bundle adapts no"]),
    "another shape": (lambda t: t.update({LAST: np.ascontiguousarray(t[LAST].T)}), [f"{LAST}: expected [48, 4], found [4, 48]"]),
    "another dtype": (lambda t: t.update({LAST: t[LAST].astype(np.float64)}), [f"{LAST}: expected F32, F16, BF16, found 'F64'"]),
    "NaN": (lambda t: t[FIRST].__setitem__((2, 3), np.nan), ["holds NaN or infinite values"]),
    "infinite": (lambda t: t.update({LAST: np.full((48, 4), np.inf, np.float16)}), ["holds NaN or infinite values"]),
    "all at once": (lambda t: (t.pop(FIRST), t.update({"x\ny": np.zeros(1, np.int8)})), [f"{FIRST} is missing", r"'x\ny': the bundle"]),
    "many": (lambda t: [t.pop(name) for name in sorted(t) if "lora_A" in name], ["is missing", "(and 15 more)"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tensors_that_do_not_fit(fault: str, directory: Path, bundle: Bundle) -> None:
    change, texts = FAULTS[fault]
    edit_tensors(directory, change)
    refused(directory, bundle, *texts)


def test_pickled_weights(directory: Path, bundle: Bundle) -> None:
    torch.save({}, directory / "adapter_model.bin")
    import_peft(directory, bundle, directory.parent / "beside")  # not looked at
    (directory / TENSORS).unlink()
    refused(directory, bundle, "only pickled weights (adapter_model.bin), which are not read")
    (directory / "adapter_model.bin").unlink()
    refused(directory, bundle, f"{TENSORS}: no such file")


# Anything at all


def outcome(directory: Path, bundle: Bundle) -> None:
    """An adapter or an AdapterError."""
    try:
        import_peft(directory, bundle, directory.parent / "imported", force=True)
    except AdapterError as error:
        assert "\n" not in str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(sorted({*CHANGED, "peft_type", "r", "lora_alpha", "use_rslora", "layers_to_transform", "base_model_name_or_path"}))
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(changes=st.dictionaries(FIELDS, VALUES, max_size=3), modules=st.none() | st.lists(st.text(max_size=6), max_size=3))
def test_any_configuration(changes: dict[str, Any], modules: list[str] | None, directory: Path, bundle: Bundle) -> None:
    """A string of target_modules is a pattern and matched in a process of its own, which is tested above."""
    good = (directory / CONFIG).read_text()
    edit_config(directory, **changes, target_modules=modules)
    outcome(directory, bundle)
    (directory / CONFIG).write_text(good)


@FUZZ
@given(name=st.sampled_from([CONFIG, TENSORS]), data=st.data())
def test_any_damage(name: str, data: st.DataObject, directory: Path, bundle: Bundle) -> None:
    """Bytes changed, most of them in the header, and the file cut off or continued."""
    path = directory / name
    good = path.read_bytes()
    changed = bytearray(good)
    for position in data.draw(st.lists(st.integers(0, min(4000, len(good) - 1)), max_size=4)):
        changed[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(-40, len(good)))
    path.write_bytes(bytes(changed[: len(good) - cut]) if cut >= 0 else bytes(changed) + os.urandom(-cut))
    outcome(directory, bundle)
    path.write_bytes(good)
