"""Target `executorch` on layers of several kinds. What crosses layers is the loop's, of any runtime."""

from __future__ import annotations

from pathlib import Path

from helpers.kinds_of_layers import check_steps_and_text, export_kinds

SEQ_LEN = 32  # one chunk of the delta rule, as an export takes a minute: that chunks go on from each other is other targets' to show


def test_steps_and_text(tmp_path: Path) -> None:
    """Of Qwen3.5: LFM2's graphs have no operator, of no number of dimensions, that its own have not."""
    bundle = export_kinds(tmp_path, "qwen3_5", "executorch", SEQ_LEN).bundle
    check_steps_and_text(bundle, bundle)
