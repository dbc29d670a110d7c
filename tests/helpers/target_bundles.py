"""Bundles of other targets than `onnxruntime`. An export for executorch takes most of a minute, so tests share them."""

from __future__ import annotations

import shutil
from pathlib import Path

from helpers.onnxruntime_bundles import DEFAULTS, Exported, manifest_of, request
from helpers.tiny_models import TinyModel
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.weights import WEIGHTS_FILE
from lcsb_mobile.export.bundle import ExportOptions, export_bundle
from lcsb_mobile.export.graphs.blocks import DecodeGraphs, ModelGraphs
from lcsb_mobile.export.target import exporter
from lcsb_mobile.targets import Target

SEQ_LEN = 64


def export_executorch(directory: Path) -> Path:
    """The embedded model `tiny`, with a golden trace."""
    export_bundle(ExportOptions(model="tiny", quantizer="search", output=directory / "bundle", target="executorch", seq_len=SEQ_LEN))
    return directory / "bundle"


def export_target(target: Target, directory: Path, model: TinyModel, blocks: ModelGraphs, decoding: DecodeGraphs) -> Exported:
    """The programs of a tiny model, in a directory with a copy of its `weights.bin`."""
    shutil.copy(model.directory / WEIGHTS_FILE, directory)
    graphs = exporter(target).export_programs(request(model, blocks, DEFAULTS, directory, decoding))
    return Exported(model, Bundle(directory, manifest_of(model, target, DEFAULTS, graphs)), model.adapter(), DEFAULTS)
