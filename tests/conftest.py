"""Fixtures that several tests share. What takes seconds to make is made once a session and not changed."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
import torch
from helpers.bundles import MESSAGES, RandomBundle, export_random, write_lines
from helpers.tiny_models import MakeTiny, TinyModel, make_tiny

torch.set_num_threads(1)  # tiny tensors: a second thread only waits, and waits long on a machine that others use


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MakeTiny:
    """`tiny(name, bits=4, embedding_bits=8, layers=None)`: a model of `helpers.tiny_models.MODELS`."""

    @functools.cache
    def make(model: str, bits: int = 4, embedding_bits: int = 8, layers: int | None = None) -> TinyModel:
        return make_tiny(tmp_path_factory.mktemp(model), model, bits, embedding_bits, layers)

    return make


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> RandomBundle:
    return export_random(tmp_path_factory.mktemp("random-bundle"))


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data file: six lines of text."""
    return write_lines(tmp_path_factory.mktemp("messages") / "messages.jsonl", [{"text": text} for text in MESSAGES])


@pytest.fixture
def checkpoint(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_bundle.checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def bundle(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_bundle.bundle, tmp_path / "bundle"))
