"""Fixtures that several tests share. What takes seconds to make is made once a session and not changed."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers.tiny_models import MakeTiny, TinyModel, make_tiny

torch.set_num_threads(1)  # tiny tensors: a second thread only waits, and waits long on a machine that others use


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MakeTiny:
    """`tiny(name, bits=4, embedding_bits=8, layers=None)`: a model of `helpers.tiny_models.MODELS`."""

    @functools.cache
    def make(model: str, bits: int = 4, embedding_bits: int = 8, layers: int | None = None) -> TinyModel:
        return make_tiny(tmp_path_factory.mktemp(model), model, bits, embedding_bits, layers)

    return make
