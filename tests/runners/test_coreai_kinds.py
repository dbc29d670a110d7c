"""Target `coreai` on layers of several kinds, those whose values cross layers among them; relays on every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bundles import export_random
from helpers.kinds_of_layers import FAMILIES, check_steps_and_text, export_kinds
from helpers.relays import relay

from lcsb_mobile.targets import Target

pytestmark = pytest.mark.coreai
TARGETS: tuple[Target, Target] = ("onnxruntime", "coreai")


# Qwen3.5's delta rule amplifies rounding. Its largest difference was 3.3e-5, where ONNX Runtime's is 1.5e-5: sums are in another order.
@pytest.mark.parametrize(("name", "tolerance"), [("lfm2", 3e-5), ("qwen3_5", 6e-5), ("crossing", 3e-5)])
def test_steps_and_text(name: str, tolerance: float, tmp_path: Path) -> None:
    bundle = export_kinds(tmp_path, name, "coreai").bundle
    check_steps_and_text(bundle, bundle, tolerance)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3_text", *FAMILIES])
def test_relays(name: str, messages: Path, tmp_path: Path) -> None:
    """From ONNX Runtime to Core AI and back: the losses of a run on one (law 4). Qwen 2 is `tiny`, in test_coreai_bundle.py."""
    bundles = {}
    for target in TARGETS:
        directory = tmp_path / target
        made = export_kinds(directory, name, target) if name in FAMILIES else export_random(directory, name, target=target)
        bundles[target] = made.bundle
    whole, parts = relay(bundles, (*TARGETS, TARGETS[0]), tmp_path, messages, steps=2)
    assert parts == pytest.approx(whole, rel=1e-4 if name == "gemma3_text" else 1e-5)
