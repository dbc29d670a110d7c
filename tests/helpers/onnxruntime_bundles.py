"""Tiny models exported for ONNX Runtime's training API, without tokenizer and golden trace: what the runner itself needs."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.tiny_models import SEQ_LEN, TinyModel
from lcsb_mobile.batch import Float32Array
from lcsb_mobile.blocks import capture_blocks
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.export.step_graph import StepParts
from lcsb_mobile.export.to_onnxruntime import SETTINGS
from lcsb_mobile.export.to_onnxruntime_training import export_onnxruntime_training
from lcsb_mobile.head import capture_final_norm
from lcsb_mobile.manifest import FORMAT_VERSION, BlockFlops, Manifest
from lcsb_mobile.optimizer import AdamWConfig
from lcsb_mobile.schedule import ScheduleConfig, make_schedule


@dataclass(frozen=True)
class Exported:
    """`adapter`: what the checkpoint holds."""

    model: TinyModel
    bundle: Bundle
    adapter: Float32Array
    optimizer: AdamWConfig


def step_parts(model: TinyModel) -> StepParts:
    norm, norm_backward = capture_final_norm(model.config, SEQ_LEN)
    blocks = capture_blocks(model.config, model.layout, model.quantization, SEQ_LEN)
    return StepParts(model.config, model.layout, model.quantization, blocks, norm, norm_backward, model.table)


def export_tiny(model: TinyModel, optimizer: AdamWConfig) -> Exported:
    """Writes the artifacts beside the model's `weights.bin`."""
    adapter = model.adapter()
    graphs = export_onnxruntime_training(model.directory, step_parts(model), adapter, optimizer)
    schedule = ScheduleConfig(subsets=2)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        target="onnxruntime-training",
        source="tests",
        model=model.config,
        adapter=model.layout,
        quantization=model.quantization,
        seq_len=SEQ_LEN,
        seed=0,
        schedule_config=schedule,
        schedule=make_schedule(schedule, model.config.num_hidden_layers),
        optimizer=optimizer,
        block_flops=BlockFlops(forward=0, backward=0, backward_kept=0),
        runtime=SETTINGS,
        graphs=graphs,
        weights=model.table,
        reconstruction_error=dict(model.errors),
        tools={},
        files={},
    )
    return Exported(model, Bundle(model.directory, manifest), adapter, optimizer)
