"""Target `coreai` on layers of several kinds, those whose values cross layers among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.kinds_of_layers import FAMILIES, check_steps_and_text, export_kinds

pytestmark = pytest.mark.coreai


@pytest.mark.parametrize("name", [*FAMILIES, "crossing"])
def test_steps_and_text(name: str, tmp_path: Path) -> None:
    bundle = export_kinds(tmp_path, name, "coreai").bundle
    check_steps_and_text(bundle, bundle)
