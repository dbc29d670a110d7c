"""The adapter's layout, its initial values, and its file: read back as written, refused with every fault named."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from lcsb_mobile.bundle.adapter import AdapterLayout, Base, adapter_matrices, load_adapter, matrix_views, save_adapter, vector_size
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import AdapterError, StorageError

ROOT = Path(__file__).parents[2]
PROJECTIONS = {"self_attn.q_proj": (72, 48), "self_attn.k_proj": (24, 48), "mlp.down_proj": (48, 80)}
LORA = LoraConfig(rank=4, alpha=12.0)


def layout_of(projections: Mapping[str, tuple[int, int]], layers: int, lora: LoraConfig) -> AdapterLayout:
    """Of one kind of layers."""
    return AdapterLayout(lora, {"block": adapter_matrices(projections, lora.rank)}, ("block",) * layers)


LAYOUT = layout_of(PROJECTIONS, 3, LORA)
MATRICES = LAYOUT.matrices["block"]
VECTOR = vector_size(MATRICES)
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LAST = "base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"

Tensors = dict[str, np.ndarray]


def random_adapter(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32)


# The layout


def test_matrices_are_contiguous() -> None:
    end = 0
    for matrix in MATRICES:
        assert matrix.offset == end
        end += matrix.shape[0] * matrix.shape[1]
    assert VECTOR == end == sum(4 * (rows + columns) for rows, columns in PROJECTIONS.values())
    assert [matrix.shape for matrix in MATRICES] == [(4, 48), (72, 4), (4, 48), (24, 4), (4, 80), (48, 4)]
    assert [matrix.name for matrix in MATRICES[:2]] == ["self_attn.q_proj.lora_A", "self_attn.q_proj.lora_B"]
    assert LAYOUT.modules(2) == tuple(PROJECTIONS)
    assert (LAYOUT.num_layers, LAYOUT.size, LAYOUT.sizes) == (3, 3 * VECTOR, [VECTOR] * 3)
    assert LAYOUT.slices == [slice(0, VECTOR), slice(VECTOR, 2 * VECTOR), slice(2 * VECTOR, 3 * VECTOR)]
    assert LORA.scaling == 3.0


def test_views_write_through() -> None:
    """The views of a layer are its vector, cut without gap or overlap."""
    layer = np.zeros(VECTOR, np.float32)
    for number, view in enumerate(LAYOUT.views(1, layer).values()):
        view += number + 1
    expected = np.repeat(np.arange(6) + 1, [matrix.size for matrix in MATRICES])
    assert np.array_equal(layer, expected)
    adapter = np.zeros(LAYOUT.size, np.float32)
    for _, view in LAYOUT.named(adapter):
        view += 1
    assert (adapter == 1).all()
    for number, vector in enumerate(LAYOUT.vectors(adapter)):
        vector += number
    assert np.array_equal(adapter, np.repeat([1, 2, 3], VECTOR))


def test_views_of_tensors_are_differentiable() -> None:
    layer = torch.zeros(VECTOR, requires_grad=True)
    LAYOUT.views(0, layer)["mlp.down_proj.lora_A"].sum().backward()
    assert layer.grad is not None
    assert layer.grad.nonzero().flatten().tolist() == list(range(MATRICES[4].offset, MATRICES[5].offset))
    adapter = torch.zeros(LAYOUT.size, requires_grad=True)
    LAYOUT.vectors(adapter)[1].sum().backward()
    assert adapter.grad is not None
    assert adapter.grad.nonzero().flatten().tolist() == list(range(VECTOR, 2 * VECTOR))


# Layers of several kinds

MIXED = AdapterLayout(
    LORA,
    {"conv": adapter_matrices({"conv.in_proj": (96, 32)}, LORA.rank), "full": MATRICES},
    ("conv", "full", "conv"),
    prefix="model.language_model.",
)


def test_vectors_of_several_kinds() -> None:
    """One after the other in the order of the layers, each of its kind's size; matrices by the kind's names."""
    small = 4 * (96 + 32)
    assert (MIXED.num_layers, MIXED.sizes, MIXED.size) == (3, [small, VECTOR, small], VECTOR + 2 * small)
    assert MIXED.offsets == [0, small, small + VECTOR]
    assert [MIXED.modules(layer) for layer in range(3)] == [("conv.in_proj",), tuple(PROJECTIONS), ("conv.in_proj",)]
    adapter = np.arange(MIXED.size, dtype=np.float32)
    vectors = MIXED.vectors(adapter)
    assert [len(vector) for vector in vectors] == MIXED.sizes and np.array_equal(np.concatenate(vectors), adapter)
    assert {name: view.shape for name, view in MIXED.views(0, vectors[0]).items()} == {
        "conv.in_proj.lora_A": (4, 32),
        "conv.in_proj.lora_B": (96, 4),
    }
    assert list(matrix_views(MATRICES, vectors[1])) == [matrix.name for matrix in MATRICES]


def test_file_of_several_kinds(tmp_path: Path) -> None:
    """Under the names of the checkpoint, whatever it calls the text model."""
    path, adapter = tmp_path / "adapter.safetensors", np.random.default_rng(0).standard_normal(MIXED.size).astype(np.float32)
    save_adapter(path, MIXED, adapter)
    assert np.array_equal(load_adapter(path, MIXED), adapter)
    assert sorted(load_file(path)) == sorted(name for name, _ in MIXED.named(adapter))
    assert len(load_file(path)) == 2 + 6 + 2
    last = "base_model.model.model.language_model.layers.2.conv.in_proj.lora_B.weight"
    assert MIXED.tensor_name(2, "conv.in_proj.lora_B") == last and MIXED.module_name(0, "x") == "model.language_model.layers.0.x"
    assert np.array_equal(load_file(path)[last], adapter[-96 * 4 :].reshape(96, 4))
    with pytest.raises(AdapterError, match=r"layers\.0\.self_attn\.q_proj\.lora_A\.weight is missing"):
        load_adapter(path, LAYOUT)


def test_a_kind_without_matrices() -> None:
    """A layer without an adapter takes no place."""
    bare = AdapterLayout(LORA, {"bare": (), "block": MATRICES}, ("bare", "block", "bare"))
    assert (bare.sizes, bare.offsets, bare.modules(0)) == ([0, VECTOR, 0], [0, 0, VECTOR], ())
    assert vector_size(()) == 0


# Initial values


def test_initial_is_that_of_peft() -> None:
    """A is uniform within 1/sqrt(in), B is zero (peft, tuners/lora/layer.py, reset_lora_parameters)."""
    wide = layout_of({"q": (16, 400)}, 2, LoraConfig(rank=64))
    for layer, vector in enumerate(wide.vectors(wide.initial(0))):
        a, b = wide.views(layer, vector).values()
        bound = 1 / math.sqrt(400)
        assert not b.any()
        assert 0.99 * bound < np.abs(a).max() <= bound
        # 25,600 values: the standard errors are 0.0036 (mean) and 0.0028 (deviation) of the bound; five of them are allowed
        assert abs(a.mean()) < 0.018 * bound
        assert abs(a.std() / (bound / math.sqrt(3)) - 1) < 0.025


def test_initial_depends_on_the_seed_alone() -> None:
    first = LAYOUT.initial(7)
    assert first.dtype == np.float32
    assert np.array_equal(first, LAYOUT.initial(7))
    assert not np.array_equal(first, LAYOUT.initial(8))
    assert not np.array_equal(*LAYOUT.vectors(first)[:2])  # each layer has values of its own


# The file


def test_round_trip(tmp_path: Path) -> None:
    path, adapter = tmp_path / "made" / "adapter.safetensors", random_adapter()
    save_adapter(path, LAYOUT, adapter)
    loaded = load_adapter(path, LAYOUT)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, adapter)
    save_adapter(path, LAYOUT, adapter + 1)  # over the old one
    assert np.array_equal(load_adapter(path, LAYOUT), adapter + 1)
    assert os.listdir(path.parent) == [path.name]


def test_names_are_those_of_peft(tmp_path: Path) -> None:
    adapter = random_adapter()
    save_adapter(tmp_path / "adapter.safetensors", LAYOUT, adapter)
    tensors = load_file(tmp_path / "adapter.safetensors")
    assert len(tensors) == 3 * 6
    assert np.array_equal(tensors[FIRST], adapter[: 4 * 48].reshape(4, 48))
    assert np.array_equal(tensors[LAST], adapter[-48 * 4 :].reshape(48, 4))


def rewritten(path: Path, change: Callable[[Tensors], object], metadata: dict[str, str] | None = None) -> Path:
    """A good file, changed."""
    save_adapter(path, LAYOUT, random_adapter())
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)
    return path


def test_file_without_our_metadata_is_read(tmp_path: Path) -> None:
    """As peft writes it: rank and alpha stand in adapter_config.json there."""
    path = rewritten(tmp_path / "adapter.safetensors", lambda tensors: None, {"format": "pt"})
    assert np.array_equal(load_adapter(path, LAYOUT), random_adapter())
    assert np.array_equal(load_adapter(rewritten(path, lambda tensors: None), LAYOUT), random_adapter())


def fails(path: Path, *texts: str, layout: AdapterLayout = LAYOUT) -> None:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path, layout)
    message = str(caught.value)
    assert "\n" not in message
    assert all(text in message for text in (str(path), *texts)), message


FAULTS: dict[str, tuple[Callable[[Tensors], object], list[str]]] = {
    "missing": (lambda t: t.pop(FIRST), [f"{FIRST} is missing"]),
    "unknown": (lambda t: t.update({"lm_head.lora_A.weight": np.zeros((1, 1), np.float32)}), ["lm_head.lora_A.weight is unknown"]),
    "wrong shape": (lambda t: t.update({LAST: np.ascontiguousarray(t[LAST].T)}), [f"{LAST}: expected [48, 4], found [4, 48]"]),
    "wrong dtype": (lambda t: t.update({LAST: t[LAST].astype(np.int32)}), [f"{LAST}: expected F32, found I32"]),
    "NaN": (lambda t: t[FIRST].__setitem__((2, 3), np.nan), ["holds NaN or infinite values"]),
    "infinite": (lambda t: t[LAST].__setitem__((0, 0), -np.inf), ["holds NaN or infinite values"]),
    "all at once": (
        lambda t: (t.pop(FIRST), t.update({"x": np.zeros(1, np.float32), LAST: np.zeros((5, 5), np.float32)})),
        [f"{FIRST} is missing", "x is unknown", f"{LAST}: expected [48, 4], found [5, 5]"],
    ),
    "many": (lambda t: [t.pop(name) for name in sorted(t)[:9]], ["is missing", "(and 3 more)"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    change, texts = FAULTS[fault]
    fails(rewritten(tmp_path / "adapter.safetensors", change), *texts)


def test_bfloat16_is_refused(tmp_path: Path) -> None:
    """numpy has no bfloat16, so such a file cannot even be converted."""
    tensors = {name: torch.from_numpy(view).bfloat16() for name, view in LAYOUT.named(random_adapter())}
    save_torch_file(tensors, tmp_path / "adapter.safetensors")
    fails(tmp_path / "adapter.safetensors", f"{FIRST}: expected F32, found BF16")


def test_another_rank_or_alpha(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, LAYOUT, random_adapter())
    fails(path, "alpha: expected 13.0, found 12.0", layout=dataclasses.replace(LAYOUT, lora=LoraConfig(rank=4, alpha=13.0)))
    rank8 = layout_of(PROJECTIONS, 3, LoraConfig(rank=8, alpha=12.0))
    fails(path, f"{FIRST}: expected [8, 48], found [4, 48]", layout=rank8)
    fails(rewritten(path, lambda tensors: None, {"rank": "8", "alpha": "12.0"}), "rank: expected 4, found 8")


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    fails(path, "not a readable safetensors file")
    save_adapter(path, LAYOUT, random_adapter())
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:100], whole[:-1], b"{" * 64):
        path.write_bytes(content)
        fails(path, "not a readable safetensors file")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage(data: st.DataObject, tmp_path: Path) -> None:
    """Bytes changed, most of them in the header, and the file cut off or continued: an adapter or an AdapterError."""
    path, good = tmp_path / "adapter.safetensors", tmp_path / "good.safetensors"
    if not good.exists():
        save_adapter(good, LAYOUT, random_adapter())
    changed = bytearray(good.read_bytes())
    for position in data.draw(st.lists(st.integers(0, 3000), max_size=4)):
        changed[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(-40, len(changed)))
    path.write_bytes(bytes(changed[: len(changed) - cut]) if cut >= 0 else bytes(changed) + os.urandom(-cut))
    try:
        assert np.isfinite(load_adapter(path, LAYOUT)).all()
    except AdapterError as error:
        assert "\n" not in str(error)


# Of a bundle: with a digest, and what it was trained on

TRAINED = dataclasses.replace(LAYOUT, base=Base("SmolLM2-135M", "ab" * 32, "0.1.0"))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "trained.safetensors", TRAINED, random_adapter())
    return tmp_path / "trained.safetensors"


def test_a_trained_adapter_says_what_it_is(trained: Path) -> None:
    with safe_open(trained, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["toolkit"] == "0.1.0" and metadata["format"] == "pt"
    assert (metadata["base_model"], metadata["base"]) == ("SmolLM2-135M", "ab" * 32)
    digest = metadata["sha256"].encode()
    assert hashlib.sha256(trained.read_bytes().replace(digest, b"0" * 64)).hexdigest().encode() == digest
    assert stat.S_IMODE(trained.stat().st_mode) == 0o600
    assert np.array_equal(load_adapter(trained, TRAINED), random_adapter())


def test_the_files_that_other_languages_are_held_to(tmp_path: Path) -> None:
    """tests/golden/adapter.safetensors, which Kotlin and Swift read and write to the byte, and PEFT's directories, which Kotlin reads."""
    spec = importlib.util.spec_from_file_location("write_run_vectors", ROOT / "scripts" / "golden" / "write_run_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_trained_adapter(tmp_path / "adapter.safetensors")
    assert (tmp_path / "adapter.safetensors").read_bytes() == (ROOT / "tests" / "golden" / "adapter.safetensors").read_bytes()
    assert json.loads(json.dumps(module.peft_imports())) == json.loads((ROOT / "tests" / "golden" / "peft_imports.json").read_text("utf-8"))


def test_every_bit_of_it_counts(trained: Path) -> None:
    content, generator = trained.read_bytes(), np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*generator.integers(header, size=500), *generator.integers(len(content), size=500)]
    for place, bit in zip(places, generator.integers(8, size=1000), strict=True):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        trained.write_bytes(changed)
        fails(trained, layout=TRAINED)


def test_another_base_is_refused(trained: Path) -> None:
    other = dataclasses.replace(TRAINED, base=Base("another", "cd" * 32))
    fails(trained, "expected another (cdcdcdcdcdcd…), found SmolLM2-135M (abababababab…)", "lcsb adapter import", layout=other)


@pytest.mark.parametrize("base", [Base("of another directory", "ab" * 32), Base("of before"), None])
def test_the_same_base_and_one_that_is_not_known(trained: Path, base: Base | None) -> None:
    assert np.array_equal(load_adapter(trained, dataclasses.replace(TRAINED, base=base)), random_adapter())


def test_a_file_of_before_it_had_a_digest(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "adapter.safetensors", lambda tensors: None, {"format": "pt", "rank": "4", "alpha": "12.0"})
    assert np.array_equal(load_adapter(path, TRAINED), random_adapter())


@pytest.mark.parametrize(
    "broken", ["lcsb_mobile.io.files.os.fsync", "lcsb_mobile.io.files.os.replace", "lcsb_mobile.bundle.adapter.write_safetensors"]
)
def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path, old = tmp_path / "adapter.safetensors", random_adapter(1)
    save_adapter(path, LAYOUT, old)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, full)
        with pytest.raises(StorageError, match="adapter.safetensors: cannot be written: No space left on device"):
            save_adapter(path, LAYOUT, random_adapter(2))
    assert np.array_equal(load_adapter(path, LAYOUT), old)
    assert os.listdir(tmp_path) == [path.name]  # no temporary file is left
