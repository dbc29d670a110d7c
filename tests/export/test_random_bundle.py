"""Bundles of random weights: they are whole, they train like a model that was just initialised, and they refuse what cannot be."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.random_bundles import OPTIONS, small_random_bundle

from lcsb_mobile.bench.shapes import SHAPES, RandomBundleOptions
from lcsb_mobile.bench.worker import random_batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import NO_TRACE, read_trace
from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import WEIGHTS_FILE, MappedWeights
from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.errors import BundleError, IntegrityError, OptionError
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.export.random_bundle import random_bundle, read_shape, write_random_bundle, write_random_weights
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.verify import verify
from lcsb_mobile.tiny import tiny_checkpoint

# What the publishers say, in millions.
PARAMETERS = {
    "smollm2-135m": 134.5,
    "qwen2.5-0.5b": 494.0,
    "qwen2.5-1.5b": 1543.7,
    "qwen2.5-3b": 3085.9,
    "qwen3-0.6b": 596.0,
    "llama3.2-1b": 1235.8,
    "gemma3-1b": 999.9,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(small_random_bundle(tmp_path_factory))


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_are_the_published_ones(name: str) -> None:
    config = read_shape(RandomBundleOptions(name))
    parameters = sum(math.prod(shape) for shape in checkpoint_weights(config).values())
    assert round(parameters / 1e6, 1) == PARAMETERS[name]


def test_tiny_is_the_embedded_model() -> None:
    raw = json.loads((tiny_checkpoint() / "config.json").read_text())
    assert {name: raw[name] for name in SHAPES["tiny"]} == SHAPES["tiny"]


def test_gemma_has_windows_and_llama_its_scaling() -> None:
    gemma, llama = (read_shape(RandomBundleOptions(name)) for name in ("gemma3-1b", "llama3.2-1b"))
    assert [gemma.attention_kinds[name].window for name in gemma.layer_types[:7]] == [512] * 5 + [None, 512]
    (kind,) = llama.attention_kinds.values()
    assert kind.rope_scaling is not None and kind.rope_scaling.factor == 32


def test_it_says_what_it_is_and_is_whole(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.manifest.source == "tiny of 3 layers: random weights"
    assert read_trace(bundle.golden_path) == NO_TRACE
    found = verify(bundle.path, threads=1)
    assert (found.steps, found.step_loss) == (0, 0.0)
    assert len(bundle.tokenizer.encode("ok so")) == 5
    spoilt = shutil.copytree(bundle.path, tmp_path / "spoilt")
    with (spoilt / WEIGHTS_FILE).open("r+b") as file:
        file.write(b"spoilt")
    with pytest.raises(IntegrityError, match=WEIGHTS_FILE):
        Bundle.open(spoilt)


def test_a_step_is_that_of_an_untrained_model(bundle: Bundle) -> None:
    """The loss is near log(V), every matrix has a gradient, and the programs compute what the eager reference computes."""
    layers = tuple(range(bundle.manifest.model.num_hidden_layers))
    adapter, batch = bundle.initial_adapter(), random_batch(bundle.manifest)
    found, expected = (
        make_runner(bundle, name, threads=1).step(Subset(layers, layers), batch, adapter) for name in ("onnxruntime", "eager")
    )
    assert found.loss == pytest.approx(math.log(bundle.manifest.model.vocab_size), rel=0.05)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    for layer in layers:
        layout = bundle.manifest.adapter
        assert all(np.any(view) for view in layout.views(layer, layout.vectors(adapter)[layer]).values())
        assert all(np.any(view) for view in layout.views(layer, found.gradients[layer]).values())


@pytest.mark.parametrize(("shape", "norm"), [("tiny", 1.0), ("gemma3-1b", 0.0)])
def test_weights_are_spread_as_initialised_ones(tmp_path: Path, shape: str, norm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard deviation 0.02 in blocks and embedding; norms scale by about 1. In parts, as large tensors are made."""
    import lcsb_mobile.export.random_bundle as module

    options = RandomBundleOptions(shape, layers=1, seq_len=8)
    config = module.read_shape(options)
    small = json.loads(json.dumps(SHAPES[shape])) | {"vocab_size": 512, "num_hidden_layers": 1}
    config = module.architecture(config.model_type).read_config(small)
    monkeypatch.setattr(module, "CHUNK", 65536)
    table, errors = write_random_weights(tmp_path / WEIGHTS_FILE, module.RandomModel(config, options), QuantizationConfig(), 8, print)
    assert table == weight_table(config, QuantizationConfig(), 8) and errors == {}
    weights = MappedWeights(tmp_path / WEIGHTS_FILE, table)
    packed, scale = (weights[f"layers.block.mlp.up_proj.weight.{part}"][0] for part in ("packed", "scale"))
    nibbles = np.concatenate([packed & 15, packed >> 4], -1).astype(np.float32) - 8
    embedding = weights["embed_tokens.weight.packed"] * weights["embed_tokens.weight.scale"].astype(np.float32)[..., None]
    for matrix in (nibbles * scale.astype(np.float32)[..., None], embedding):
        assert matrix.std() == pytest.approx(0.02, rel=0.1)
    assert weights["norm.weight"].mean() == pytest.approx(norm, abs=0.01)
    assert all(weights[f"rope.{name}.cos"][0].min() == 1.0 for name in config.attention_kinds)


def test_a_bundle_that_fits_is_used_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcsb_mobile.export.random_bundle.write_random_bundle", None)
    assert random_bundle(bundle.path, OPTIONS) == bundle.path
    with pytest.raises(
        BundleError, match="expected tiny of 3 layers: random weights for onnxruntime, 64 tokens, rank 4, found .* 32 tokens"
    ):
        random_bundle(bundle.path, RandomBundleOptions("tiny", layers=3, seq_len=64, rank=4))


def test_a_bundle_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OptionError, match=r"needs 1,9\d\d\.\d MB of disk space, found 100.0 MB free; nothing was written"):
        write_random_bundle(tmp_path / "bundle", RandomBundleOptions("qwen2.5-3b"))
    assert not list(tmp_path.rglob(MANIFEST_FILE))
