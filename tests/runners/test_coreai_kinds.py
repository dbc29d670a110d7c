"""Target `coreai` on layers of several kinds, those whose values cross layers among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.kinds_of_layers import KindsBundle, check_steps_and_text
from helpers.relays import relay

pytestmark = pytest.mark.coreai


# Qwen3.5's delta rule amplifies rounding. Its largest difference was 3.3e-5, where ONNX Runtime's is 1.5e-5: sums are in another order.
@pytest.mark.parametrize(("name", "tolerance"), [("lfm2", 3e-5), ("qwen3_5", 6e-5), ("crossing", 3e-5)])
def test_steps_and_text(kinds_bundle: KindsBundle, name: str, tolerance: float) -> None:
    bundle = kinds_bundle(name, "coreai").bundle
    check_steps_and_text(bundle, bundle, tolerance)


def test_a_relay(kinds_bundle: KindsBundle, messages: Path, tmp_path: Path) -> None:
    """From ONNX Runtime to Core AI and back: the losses of a run on one (law 4), where adapters of layers differ in size. Layers of one
    kind are `tiny`'s, in test_coreai_bundle.py."""
    bundles = {"onnxruntime": kinds_bundle("lfm2").bundle, "coreai": kinds_bundle("lfm2", "coreai").bundle}
    whole, parts = relay(bundles, ("onnxruntime", "coreai", "onnxruntime"), tmp_path, messages, steps=2)
    assert parts == pytest.approx(whole, rel=1e-5)
