"""Manifests as an export would write them, of chosen shapes and without weights: what the predictions are made from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lcsb_mobile.bundle.adapter import vector_size
from lcsb_mobile.bundle.layers import BlockWork, Kind, Layer, StateTensor
from lcsb_mobile.bundle.manifest import FORMAT_VERSION, Manifest
from lcsb_mobile.bundle.schedule import ScheduleConfig, make_schedule
from lcsb_mobile.config import AdamWConfig, AttentionKind, LoraConfig, ModelConfig, QuantizationConfig, default_query_scale
from lcsb_mobile.export.graphs.blocks import KindGraphs, Setting, capture_blocks, state_shape
from lcsb_mobile.export.models import Model, model_of
from lcsb_mobile.export.models.hf_config import FULL
from lcsb_mobile.export.onnx.settings import SETTINGS
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.export.weights.layer_tensors import kind_matrices, lora_layout

NO_WORK = BlockWork(forward=0, backward=0, backward_kept=0)


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
        layer_types=(FULL,) * layers,
        attention_kinds={FULL: AttentionKind(10_000.0)},
        rotary_dim=head_dim,
        query_scale=default_query_scale(head_dim),
    )


SMALL = make_config(layers=6, hidden=48, inner=80, heads=6, kv_heads=2, head_dim=12, vocabulary=131)
HALF_BILLION = make_config(layers=24, hidden=896, inner=4864, heads=14, kv_heads=2, head_dim=64, vocabulary=151_936)


def kinds_of(
    model: Model, lora: LoraConfig, seq_len: int, work: Mapping[str, tuple[BlockWork, BlockWork]] | None = None
) -> tuple[Kind, ...]:
    """As an export describes them. `work`: of each kind, FLOPs and bytes; none without."""
    return tuple(
        Kind(
            name=kind.name,
            reads=kind.reads,
            takes=kind.takes,
            gives=kind.gives,
            size=vector_size(kind_matrices(kind, lora)),
            matrices=kind_matrices(kind, lora),
            state=tuple(StateTensor(name, state_shape(kind, name, seq_len), state.by_position) for name, state in kind.states.items()),
            attention_width=kind.attention_width,
            flops=(work or {}).get(kind.name, (NO_WORK, NO_WORK))[0],
            decompressed_bytes=(work or {}).get(kind.name, (NO_WORK, NO_WORK))[1],
        )
        for kind in model.kinds.values()
    )


def layers_of(model: Model, lora: LoraConfig) -> tuple[Layer, ...]:
    offsets = lora_layout(model, lora).offsets
    return tuple(
        Layer(place.kind, number, offset, dict(place.reads), dict(place.takes), dict(place.gives))
        for place, number, offset in zip(model.places, model.numbers, offsets, strict=True)
    )


def captured_blocks(config: ModelConfig, seq_len: int, rank: int = 8, group_size: int = 8) -> KindGraphs:
    """Of the one kind."""
    setting = Setting(model_of(config), LoraConfig(rank=rank), QuantizationConfig(group_size=group_size), seq_len)
    return capture_blocks(setting).kinds["block"]


def deepened(manifest: Manifest, count: int) -> Manifest:
    """A model of one kind of layers with that many of them; the programs are those of any depth."""
    kind, first = manifest.kinds[0], manifest.layers[0]
    layers = tuple(msgspec.structs.replace(first, number=number, offset=number * kind.size) for number in range(count))
    types = (manifest.model.layer_types[0],) * count
    return msgspec.structs.replace(
        manifest, layers=layers, model=msgspec.structs.replace(manifest.model, num_hidden_layers=count, layer_types=types)
    )


def make_manifest(config: ModelConfig, seq_len: int, rank: int = 8, group_size: int = 8) -> Manifest:
    """What an export would write, without weights: the FLOPs come from the captured graphs."""
    model, lora, quantization = model_of(config), LoraConfig(rank=rank), QuantizationConfig(group_size=group_size)
    work = {"block": captured_blocks(config, seq_len, rank, group_size).work()}
    schedule = ScheduleConfig(subsets=4)
    return Manifest(
        format_version=FORMAT_VERSION,
        target="onnxruntime-training",
        source="tests",
        model=config,
        lora=lora,
        kinds=kinds_of(model, lora, seq_len, work),
        layers=layers_of(model, lora),
        quantization=quantization,
        seq_len=seq_len,
        seed=0,
        schedule_config=schedule,
        schedule=make_schedule(schedule, config.num_hidden_layers),
        optimizer=AdamWConfig(),
        accuracy_level=0,
        runtime=SETTINGS,
        graphs={},
        weights=weight_table(config, quantization, seq_len),
        reconstruction_error={},
        tools={},
        files={},
    )
