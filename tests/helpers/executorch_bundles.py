"""A bundle of target executorch: its export takes a minute, so tests share one."""

from __future__ import annotations

from pathlib import Path

from lcsb_mobile.export.bundle import ExportOptions, export_bundle

SEQ_LEN = 64


def export_executorch(directory: Path) -> Path:
    """The embedded model `tiny`, with a golden trace."""
    export_bundle(ExportOptions(model="tiny", output=directory / "bundle", target="executorch", seq_len=SEQ_LEN))
    return directory / "bundle"
