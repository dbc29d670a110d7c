"""Bundles of any target, which tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
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

TinyBundle = Callable[[Target], Path]  # as the fixture `tiny_bundle` is


def export_embedded(path: Path, target: Target) -> None:
    """The embedded model `tiny`, with a golden trace."""
    export_bundle(ExportOptions(model="tiny", quantizer="search", output=path, target=target, seq_len=SEQ_LEN))


def export_target(target: Target, directory: Path, model: TinyModel, blocks: ModelGraphs, decoding: DecodeGraphs) -> Exported:
    """The programs of a tiny model, in a directory with a copy of its `weights.bin`."""
    shutil.copy(model.directory / WEIGHTS_FILE, directory)
    graphs = exporter(target).export_programs(request(model, blocks, DEFAULTS, directory, decoding))
    return Exported(model, Bundle(directory, manifest_of(model, target, DEFAULTS, graphs)), model.adapter(), DEFAULTS)
