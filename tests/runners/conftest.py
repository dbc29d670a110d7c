"""Fixtures that the tests of several runners share."""

from __future__ import annotations

import fcntl
import functools
import os
from pathlib import Path

import pytest
from helpers.captured import MakeDecoding, MakeModelGraphs
from helpers.onnxruntime_bundles import Exported, MakeExported, small_head_chunks
from helpers.target_bundles import export_executorch, export_target
from helpers.tiny_models import MakeTiny

from lcsb_mobile.targets import Target


@pytest.fixture(scope="session")
def executorch_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` for target executorch, made by the first process that asks. Tests read it and do not change it."""
    root = tmp_path_factory.getbasetemp()
    directory = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "executorch-bundle"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return directory / "bundle" if (directory / "bundle").exists() else export_executorch(directory)


def of_target(
    target: Target, directories: pytest.TempPathFactory, tiny: MakeTiny, model_graphs: MakeModelGraphs, decoding: MakeDecoding
) -> MakeExported:
    """As the fixture `programs`, for another target: each made once."""

    @functools.cache
    def export(name: str, bits: int, embedding_bits: int, tile: int | None) -> Exported:
        captured = model_graphs(name, bits, None, tile), decoding(name, bits, None, tile)
        with small_head_chunks():
            return export_target(target, directories.mktemp(name), tiny(name, bits, embedding_bits), *captured)

    return lambda name, bits=4, embedding_bits=8, tile=None: export(name, bits, embedding_bits, tile)


@pytest.fixture(scope="session")
def methods(
    tmp_path_factory: pytest.TempPathFactory, tiny: MakeTiny, model_graphs: MakeModelGraphs, decoding: MakeDecoding
) -> MakeExported:
    """Of target executorch."""
    return of_target("executorch", tmp_path_factory, tiny, model_graphs, decoding)


@pytest.fixture(scope="session")
def functions(
    tmp_path_factory: pytest.TempPathFactory, tiny: MakeTiny, model_graphs: MakeModelGraphs, decoding: MakeDecoding
) -> MakeExported:
    """Of target coreai."""
    return of_target("coreai", tmp_path_factory, tiny, model_graphs, decoding)
