"""Tiny models exported for ONNX Runtime, without tokenizer and golden trace: what a runner itself needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.manifests import kinds_of, layers_of
from helpers.tiny_models import TinyModel
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle import programs
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import FORMAT_VERSION, Graph, Manifest
from lcsb_mobile.bundle.schedule import ScheduleConfig, make_schedule
from lcsb_mobile.bundle.weights import WEIGHTS_FILE, stored_for
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.export import to_onnxruntime, to_onnxruntime_training
from lcsb_mobile.export.executorch import modules
from lcsb_mobile.export.graphs import head
from lcsb_mobile.export.graphs.blocks import DecodeGraphs, ModelGraphs
from lcsb_mobile.export.graphs.head import capture_final_norm
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.onnx import step_graph
from lcsb_mobile.export.onnx.settings import SETTINGS
from lcsb_mobile.export.target import ExportRequest
from lcsb_mobile.targets import Target

CHUNK_ROWS = 50  # three chunks of the vocabulary of 131, the last one shorter
DEFAULTS = AdamWConfig()


@dataclass(frozen=True)
class Exported:
    """`adapter`: what the checkpoint holds."""

    model: TinyModel
    bundle: Bundle
    adapter: Float32Array
    optimizer: AdamWConfig


MakeExported = Callable[..., Exported]  # as the fixtures `programs` and `training_programs` are


@contextmanager
def small_head_chunks() -> Iterator[None]:
    """Chunks of the head so small that the tiny vocabulary has several."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (head, step_graph, modules, programs):
            patch.setattr(module, "head_rows", lambda hidden_size: CHUNK_ROWS)
        yield


def step_parts(model: TinyModel, blocks: ModelGraphs) -> StepParts:
    norm, norm_backward = capture_final_norm(blocks.model, model.seq_len)
    return StepParts(model.layout, model.quantization, blocks, norm, norm_backward, model.table)


def request(
    model: TinyModel, blocks: ModelGraphs, optimizer: AdamWConfig, directory: Path | None = None, decoding: DecodeGraphs | None = None
) -> ExportRequest:
    """The programs are for what the model's weights are stored for."""

    def captured() -> DecodeGraphs:
        assert decoding is not None
        return decoding

    parts = step_parts(model, blocks)
    return ExportRequest(directory or model.directory, parts, model.adapter(), optimizer, captured, programs=stored_for(model.table))


def export_tiny(model: TinyModel, blocks: ModelGraphs, optimizer: AdamWConfig) -> Exported:
    """For the training API; writes the artifacts beside the model's `weights.bin`."""
    adapter = model.adapter()
    graphs = to_onnxruntime_training.export_programs(request(model, blocks, optimizer))
    manifest = manifest_of(model, "onnxruntime-training", optimizer, graphs)
    return Exported(model, Bundle(model.directory, manifest), adapter, optimizer)


def export_programs(directory: Path, model: TinyModel, blocks: ModelGraphs, decoding: DecodeGraphs) -> Exported:
    """The block programs, in a directory with a copy of the model's `weights.bin`."""
    shutil.copy(model.directory / WEIGHTS_FILE, directory)
    graphs = to_onnxruntime.export_programs(request(model, blocks, DEFAULTS, directory, decoding))
    return Exported(model, Bundle(directory, manifest_of(model, "onnxruntime", DEFAULTS, graphs)), model.adapter(), DEFAULTS)


def manifest_of(model: TinyModel, target: Target, optimizer: AdamWConfig, graphs: Mapping[str, Graph]) -> Manifest:
    schedule = ScheduleConfig(subsets=2)
    return Manifest(
        format_version=FORMAT_VERSION,
        target=target,
        source="tests",
        model=model.config,
        lora=model.layout.lora,
        kinds=kinds_of(model_of(model.config), model.layout.lora, model.seq_len),
        layers=layers_of(model_of(model.config), model.layout.lora),
        quantization=model.quantization,
        seq_len=model.seq_len,
        seed=0,
        schedule_config=schedule,
        schedule=make_schedule(schedule, model.config.num_hidden_layers),
        optimizer=optimizer,
        accuracy_level=0,
        runtime=SETTINGS,
        graphs=dict(graphs),
        weights=model.table,
        reconstruction_error=dict(model.errors),
        tools={},
        files={},
    )
