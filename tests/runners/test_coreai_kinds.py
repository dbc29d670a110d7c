"""Target `coreai` on layers of several kinds, those whose values cross layers among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.kinds_of_layers import check_steps_and_text, export_kinds

pytestmark = pytest.mark.coreai


# Qwen3.5's delta rule amplifies rounding. Its largest difference was 3.3e-5, where ONNX Runtime's is 1.5e-5: sums are in another order.
@pytest.mark.parametrize(("name", "tolerance"), [("lfm2", 3e-5), ("qwen3_5", 6e-5), ("crossing", 3e-5)])
def test_steps_and_text(name: str, tolerance: float, tmp_path: Path) -> None:
    bundle = export_kinds(tmp_path, name, "coreai").bundle
    check_steps_and_text(bundle, bundle, tolerance)
