"""Which matrices a layer has, and the tensors that they are stored as."""

from __future__ import annotations

from lcsb_mobile.bundle.adapter import AdapterLayout, adapter_layout
from lcsb_mobile.bundle.weights import DType
from lcsb_mobile.config import LoraConfig, ModelConfig, QuantizationConfig
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.weights.quantization import check_group_size


def projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The seven matrices of a layer: name without `.weight` -> [out, in]."""
    shapes = architecture(config.model_type).layer_weights(config)
    return {name.removesuffix(".weight"): (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}


def lora_layout(config: ModelConfig, lora: LoraConfig) -> AdapterLayout:
    return adapter_layout(projections(config), config.num_hidden_layers, lora)


def packed_tensors(name: str, shape: tuple[int, ...], bits: int, group_size: int) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """The two tensors that a quantised matrix [N, K] is stored as."""
    rows, groups = shape[0], shape[1] // group_size
    packed: tuple[DType, tuple[int, ...]] = (
        ("uint8", (rows, groups, group_size // 2)) if bits == 4 else ("int8", (rows, groups, group_size))
    )
    return {f"{name}.packed": packed, f"{name}.scale": ("float16", (rows, groups))}


def layer_tensors(config: ModelConfig, quantization: QuantizationConfig) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """A layer's frozen tensors as they are stored: name within the layer -> (dtype, shape)."""
    shapes = architecture(config.model_type).layer_weights(config)
    check_group_size({name: shape[1] for name, shape in shapes.items() if len(shape) == 2}, quantization.group_size)
    tensors: dict[str, tuple[DType, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            tensors |= packed_tensors(name, shape, quantization.bits, quantization.group_size)
        else:
            tensors[name] = ("float32", shape)
    return tensors
