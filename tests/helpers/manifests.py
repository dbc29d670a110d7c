"""Manifests as an export would write them, of chosen shapes and without weights: what the predictions are made from."""

from __future__ import annotations

from lcsb_mobile.bundle.manifest import FORMAT_VERSION, Manifest
from lcsb_mobile.bundle.schedule import ScheduleConfig, make_schedule
from lcsb_mobile.config import AdamWConfig, AttentionKind, LoraConfig, ModelConfig, QuantizationConfig, default_query_scale
from lcsb_mobile.export.graphs.blocks import BlockGraphs, capture_blocks
from lcsb_mobile.export.onnx.settings import SETTINGS
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.export.weights.layer_tensors import lora_layout


def make_config(
    layers: int, hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int, vocabulary: int, model_type: str = "llama"
) -> ModelConfig:
    return ModelConfig(
        model_type=model_type,
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        attention_kinds=(AttentionKind(10_000.0),),
        layer_kinds=(0,) * layers,
        query_scale=default_query_scale(head_dim),
    )


SMALL = make_config(layers=6, hidden=48, inner=80, heads=6, kv_heads=2, head_dim=12, vocabulary=131)
HALF_BILLION = make_config(layers=24, hidden=896, inner=4864, heads=14, kv_heads=2, head_dim=64, vocabulary=151_936)


def captured_blocks(config: ModelConfig, seq_len: int, rank: int = 8, group_size: int = 8) -> BlockGraphs:
    return capture_blocks(config, lora_layout(config, LoraConfig(rank=rank)), QuantizationConfig(group_size=group_size), seq_len)


def make_manifest(config: ModelConfig, seq_len: int, rank: int = 8, group_size: int = 8) -> Manifest:
    """What an export would write, without weights: the FLOPs come from the captured graphs."""
    layout, quantization = lora_layout(config, LoraConfig(rank=rank)), QuantizationConfig(group_size=group_size)
    blocks = captured_blocks(config, seq_len, rank, group_size)
    flops, decompressed = blocks.work()
    schedule = ScheduleConfig(subsets=4)
    return Manifest(
        format_version=FORMAT_VERSION,
        target="onnxruntime-training",
        source="tests",
        model=config,
        adapter=layout,
        quantization=quantization,
        seq_len=seq_len,
        seed=0,
        schedule_config=schedule,
        schedule=make_schedule(schedule, config.num_hidden_layers),
        optimizer=AdamWConfig(),
        accuracy_level=0,
        block_flops=flops,
        block_decompressed_bytes=decompressed,
        runtime=SETTINGS,
        graphs={},
        weights=weight_table(config, quantization, seq_len),
        reconstruction_error={},
        tools={},
        files={},
    )
