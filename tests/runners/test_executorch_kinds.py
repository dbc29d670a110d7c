"""Target `executorch` on layers of several kinds. What crosses layers is the loop's, of any runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.kinds_of_layers import FAMILIES, check_steps_and_text, export_kinds

SEQ_LEN = 32  # one chunk of the delta rule, as an export takes a minute: that chunks go on from each other is other targets' to show


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_and_text(name: str, tmp_path: Path) -> None:
    bundle = export_kinds(tmp_path, name, "executorch", SEQ_LEN).bundle
    check_steps_and_text(bundle, bundle)
