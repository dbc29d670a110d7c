"""The tests of the device half, which run in an environment without torch: they read bundles that were exported before.

`make test-device` exports them and runs these tests. Nothing here imports torch, onnx or the export half.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from device_bundles import BUNDLES, VARIABLE


def pytest_configure() -> None:
    """Without bundles there would be nothing to run, and a run of nothing passes."""
    if not BUNDLES:
        found = os.environ.get(VARIABLE)
        state = f"{VARIABLE}={found} holds no bundle" if found else f"{VARIABLE} is not set"
        raise pytest.UsageError(f"{state}; expected the directory that scripts/testing/export_test_bundles.py wrote; run: make test-device")


@pytest.fixture(scope="session", params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    """Each bundle. Tests read it and do not change it."""
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def bundles() -> list[Path]:
    return BUNDLES
