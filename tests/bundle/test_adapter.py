"""The adapter's layout, its initial values, and its file: read back as written, refused with every fault named."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from lcsb_mobile.bundle.adapter import AdapterLayout, adapter_layout, load_adapter, save_adapter
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import AdapterError, StorageError

PROJECTIONS = {"self_attn.q_proj": (72, 48), "self_attn.k_proj": (24, 48), "mlp.down_proj": (48, 80)}
LORA = LoraConfig(rank=4, alpha=12.0)
LAYOUT = adapter_layout(PROJECTIONS, 3, LORA)
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LAST = "base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"

Tensors = dict[str, np.ndarray]


def random_adapter(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((LAYOUT.num_layers, LAYOUT.size)).astype(np.float32)


# The layout


def test_matrices_are_contiguous() -> None:
    end = 0
    for matrix in LAYOUT.matrices:
        assert matrix.offset == end
        end += matrix.shape[0] * matrix.shape[1]
    assert LAYOUT.size == end == sum(4 * (rows + columns) for rows, columns in PROJECTIONS.values())
    assert [matrix.shape for matrix in LAYOUT.matrices] == [(4, 48), (72, 4), (4, 48), (24, 4), (4, 80), (48, 4)]
    assert [matrix.name for matrix in LAYOUT.matrices[:2]] == ["self_attn.q_proj.lora_A", "self_attn.q_proj.lora_B"]
    assert LAYOUT.modules == tuple(PROJECTIONS)
    assert LORA.scaling == 3.0


def test_views_write_through() -> None:
    """The views of a layer are its vector, cut without gap or overlap."""
    layer = np.zeros(LAYOUT.size, np.float32)
    for number, view in enumerate(LAYOUT.views(layer).values()):
        view += number + 1
    expected = np.repeat(np.arange(6) + 1, [matrix.size for matrix in LAYOUT.matrices])
    assert np.array_equal(layer, expected)
    adapter = np.zeros((3, LAYOUT.size), np.float32)
    for _, view in LAYOUT.named(adapter):
        view += 1
    assert (adapter == 1).all()


def test_views_of_tensors_are_differentiable() -> None:
    layer = torch.zeros(LAYOUT.size, requires_grad=True)
    LAYOUT.views(layer)["mlp.down_proj.lora_A"].sum().backward()
    assert layer.grad is not None
    assert layer.grad.nonzero().flatten().tolist() == list(range(LAYOUT.matrices[4].offset, LAYOUT.matrices[5].offset))


# Initial values


def test_initial_is_that_of_peft() -> None:
    """A is uniform within 1/sqrt(in), B is zero (peft, tuners/lora/layer.py, reset_lora_parameters)."""
    wide = adapter_layout({"q": (16, 400)}, 2, LoraConfig(rank=64))
    for layer in wide.initial(0):
        a, b = wide.views(layer).values()
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
    assert not np.array_equal(first[0], first[1])  # each layer has values of its own


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
    assert np.array_equal(tensors[FIRST], adapter[0, : 4 * 48].reshape(4, 48))
    assert np.array_equal(tensors[LAST], adapter[2, -48 * 4 :].reshape(48, 4))


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
    fails(path, "alpha: expected 13.0, found 12.0", layout=msgspec.structs.replace(LAYOUT, lora=LoraConfig(rank=4, alpha=13.0)))
    rank8 = adapter_layout(PROJECTIONS, 3, LoraConfig(rank=8, alpha=12.0))
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
