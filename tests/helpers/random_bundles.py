"""A bundle of random weights in the shape of the embedded model, for target onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcsb_mobile.bench.shapes import RandomBundleOptions
from lcsb_mobile.export.random_bundle import random_bundle

OPTIONS = RandomBundleOptions("tiny", layers=3, seq_len=32, rank=4)


def small_random_bundle(factory: pytest.TempPathFactory) -> Path:
    """Written once a session. Tests read it and do not change it."""
    return random_bundle(factory.getbasetemp() / "random-weights" / "bundle", OPTIONS)
