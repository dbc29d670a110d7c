"""Fixtures that the tests of several runners share."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from helpers.bundles import made_once
from helpers.captured import MakeDecoding, MakeModelGraphs
from helpers.onnxruntime_bundles import Exported, MakeExported, small_head_chunks
from helpers.target_bundles import TinyBundle, export_embedded, export_target
from helpers.tiny_models import MakeTiny

from lcsb_mobile.targets import Target


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """`tiny_bundle(target)`: the embedded model, made once. Tests read it and do not change it."""

    def bundle(target: Target) -> Path:
        return made_once(tmp_path_factory, f"tiny-{target}", lambda directory: export_embedded(directory / "bundle", target)) / "bundle"

    return bundle


@pytest.fixture(scope="session")
def executorch_bundle(tiny_bundle: TinyBundle) -> Path:
    return tiny_bundle("executorch")


@pytest.fixture(scope="session")
def onnxruntime_bundle(tiny_bundle: TinyBundle) -> Path:
    """To go on with a run of one of the others."""
    return tiny_bundle("onnxruntime")


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
