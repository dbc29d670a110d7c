"""Fixtures that the tests of several runners share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.executorch_bundles import export_executorch


@pytest.fixture(scope="session")
def executorch_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` for target executorch. Tests read it and do not change it."""
    return export_executorch(tmp_path_factory.mktemp("executorch-bundle"))
