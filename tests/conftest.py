"""Fixtures that several tests share. What takes seconds to make is made once a session and not changed."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.bundles import MESSAGES, RandomBundle, export_random, made_once, write_lines
from helpers.captured import MakeDecoding, MakeGraphs, MakeModelGraphs, setting
from helpers.crossing_bundle import export_crossing
from helpers.kinds_of_layers import KindsBundle, export_kinds
from helpers.onnxruntime_bundles import DEFAULTS, Exported, MakeExported, export_programs, export_tiny, small_head_chunks
from helpers.tiny_models import MakeTiny, TinyModel, make_tiny

from lcsb_mobile.config import AdamWConfig, Programs
from lcsb_mobile.export.collector import OBJECTS
from lcsb_mobile.export.graphs.blocks import DecodeGraphs, ModelGraphs, capture_blocks, capture_decoding
from lcsb_mobile.installing import GGUF_PYTHON
from lcsb_mobile.runners.onnxruntime import NO_TELEMETRY
from lcsb_mobile.targets import Target

# What reads GGUF files is not installed there, as pyproject.toml says.
collect_ignore = (
    []
    if sys.version_info >= GGUF_PYTHON
    else ["export/checkpoints/test_gguf.py", "export/checkpoints/test_gguf_qwen3.py", "export/test_merge_gguf.py"]
)

os.environ.setdefault(NO_TELEMETRY, "1")  # tests that import ONNX Runtime by themselves
gc.set_threshold(OBJECTS)  # as in an export, which is what most tests do
torch.set_num_threads(1)  # tiny tensors: a second thread only waits, and waits long on a machine that others use


# Minutes each, with what they export: begun first, so that no process is left alone with them at the end.
LONGEST = (
    *("test_executorch_kinds.py", "test_executorch.py", "test_coreml.py", "test_hybrid_models.py", "test_onnxruntime.py", "test_faults.py"),
    *("test_built.py", "test_coreai.py", "test_coreai_kinds.py", "test_blocks.py", "test_cli.py", "test_executorch_bundle.py"),
    *("test_to_onnxruntime.py", "test_coreml_bundle.py", "test_onnxruntime_training.py", "test_calibrate.py", "test_console.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MakeTiny:
    """`tiny(name, bits=4, embedding_bits=8, layers=None, on="cpu")`: a model of `helpers.tiny_models.MODELS`."""

    @functools.cache
    def make(model: str, bits: int = 4, embedding_bits: int = 8, layers: int | None = None, on: Programs = "cpu") -> TinyModel:
        return make_tiny(tmp_path_factory.mktemp(model), model, bits, embedding_bits, layers, on)

    return make


@pytest.fixture(scope="session")
def model_graphs(tiny: MakeTiny) -> MakeModelGraphs:
    """`model_graphs(name, bits=4, layers=None, tile=None)`: the captured blocks of a tiny model, which takes seconds."""

    @functools.cache
    def capture(name: str, bits: int, layers: int | None, tile: int | None) -> ModelGraphs:
        return capture_blocks(setting(tiny(name, bits, layers=layers), tile))

    return lambda name, bits=4, layers=None, tile=None: capture(name, bits, layers, tile)


@pytest.fixture(scope="session")
def graphs(model_graphs: MakeModelGraphs) -> MakeGraphs:
    """As `model_graphs`, of a model whose layers are of one kind: the captured block alone."""
    return lambda *model, **options: model_graphs(*model, **options).kinds["block"]


@pytest.fixture(scope="session")
def decoding(tiny: MakeTiny) -> MakeDecoding:
    """As `graphs`, for generation."""

    @functools.cache
    def capture(name: str, bits: int, layers: int | None, tile: int | None) -> DecodeGraphs:
        return capture_decoding(setting(tiny(name, bits, layers=layers), tile))

    return lambda name, bits=4, layers=None, tile=None: capture(name, bits, layers, tile)


@pytest.fixture(scope="session")
def training_programs(tmp_path_factory: pytest.TempPathFactory, model_graphs: MakeModelGraphs) -> MakeExported:
    """`training_programs(name, bits=4, embedding_bits=8, layers=None, optimizer=DEFAULTS)`: a tiny model for the training API.

    It cannot be exported without that runtime, so tests with it are marked `training_api`.
    """

    @functools.cache
    def export(name: str, bits: int = 4, embedding_bits: int = 8, layers: int | None = None, optimizer: AdamWConfig = DEFAULTS) -> Exported:
        model = make_tiny(tmp_path_factory.mktemp(name), name, bits, embedding_bits, layers)
        with small_head_chunks():
            return export_tiny(model, model_graphs(name, bits, layers), optimizer)

    return export


@pytest.fixture(scope="session")
def programs(
    tmp_path_factory: pytest.TempPathFactory, tiny: MakeTiny, model_graphs: MakeModelGraphs, decoding: MakeDecoding
) -> MakeExported:
    """`programs(name, bits=4, embedding_bits=8, tile=None, layers=None, on="cpu")`: a tiny model as block programs."""

    @functools.cache
    def export(name: str, bits: int, embedding_bits: int, tile: int | None, layers: int | None, on: Programs) -> Exported:
        model = tiny(name, bits, embedding_bits, layers, on)
        captured = model_graphs(name, bits, layers, tile), decoding(name, bits, layers, tile)
        with small_head_chunks():
            return export_programs(tmp_path_factory.mktemp(name), model, *captured)

    return lambda name, bits=4, embedding_bits=8, tile=None, layers=None, on="cpu": export(name, bits, embedding_bits, tile, layers, on)


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    """For the eager runner, so that it sums over the head's chunks as the exported programs do."""
    with small_head_chunks():
        yield


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> RandomBundle:
    return RandomBundle.within(made_once(tmp_path_factory, "random-bundle", export_random))


@pytest.fixture(scope="session")
def random_training_bundle(tmp_path_factory: pytest.TempPathFactory) -> RandomBundle:
    """As `random_bundle`, for the training API: as with `training_programs`, tests with it are marked `training_api`."""
    export = functools.partial(export_random, target="onnxruntime-training")
    return RandomBundle.within(made_once(tmp_path_factory, "random-training-bundle", export))


@pytest.fixture(scope="session")
def random_crossing_bundle(tmp_path_factory: pytest.TempPathFactory) -> RandomBundle:
    """As `random_bundle`, of the made-up architecture with two kinds of layers, of which one gives what the other takes."""
    return RandomBundle.within(made_once(tmp_path_factory, "random-crossing-bundle", export_crossing))


@pytest.fixture(scope="session")
def kinds_bundle(tmp_path_factory: pytest.TempPathFactory) -> KindsBundle:
    """`kinds_bundle(name, target)`: as `random_bundle`, of a family of `helpers.kinds_of_layers`."""

    def bundle(name: str, target: Target = "onnxruntime") -> RandomBundle:
        return RandomBundle.within(made_once(tmp_path_factory, f"{name}-{target}", lambda path: export_kinds(path, name, target)))

    return bundle


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data file: six lines of text."""
    return write_lines(tmp_path_factory.mktemp("messages") / "messages.jsonl", [{"text": text} for text in MESSAGES])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    if sys.platform != "linux":
        pytest.skip("it is mounted as Linux mounts one")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "permi" in done.stderr or "superuser" in done.stderr:  # "permission denied", "operation not permitted"
        pytest.skip("mounting needs root")
    assert done.returncode == 0, done.stderr
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


@pytest.fixture
def checkpoint(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_bundle.checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def bundle(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_bundle.bundle, tmp_path / "bundle"))


@pytest.fixture
def crossing_bundle(random_crossing_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_crossing_bundle.bundle, tmp_path / "crossing-bundle"))


@pytest.fixture
def training_bundle(random_training_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_training_bundle.bundle, tmp_path / "training-bundle"))
