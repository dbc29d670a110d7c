"""Which matrices the layers have, and the tensors that they are stored as."""

from __future__ import annotations

from collections.abc import Iterable

from lcsb_mobile.bundle.adapter import AdapterLayout, adapter_matrices
from lcsb_mobile.bundle.layers import AdapterMatrix
from lcsb_mobile.bundle.weights import BYTES, SCALES, DType
from lcsb_mobile.config import LoraConfig, Programs, QuantizationConfig
from lcsb_mobile.export.models import Model
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.weights.quantization import check_group_size


def kind_matrices(kind: BlockKind, lora: LoraConfig) -> tuple[AdapterMatrix, ...]:
    return adapter_matrices(kind.matrices, lora.rank)


def lora_layout(model: Model, lora: LoraConfig) -> AdapterLayout:
    matrices = {kind.name: kind_matrices(kind, lora) for kind in model.kinds.values()}
    return AdapterLayout(lora, matrices, tuple(place.kind for place in model.places), model.config.tensor_prefix)


def packed_tensors(
    name: str, shape: tuple[int, ...], bits: int, group_size: int, programs: Programs = "cpu"
) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """The two tensors that a quantised matrix [N, K] is stored as, for programs of a CPU or a GPU."""
    rows, groups = shape[0], shape[1] // group_size
    packed: tuple[DType, tuple[int, ...]] = (
        ("uint8", (rows, groups, group_size // 2)) if bits == 4 else (BYTES[programs], (rows, groups, group_size))
    )
    return {f"{name}.packed": packed, f"{name}.scale": (SCALES[programs], (rows, groups))}


def kind_tensors(kind: BlockKind, quantization: QuantizationConfig, programs: Programs = "cpu") -> dict[str, tuple[DType, tuple[int, ...]]]:
    """A layer's frozen tensors as they are stored: name within the layer -> (dtype, shape)."""
    tensors: dict[str, tuple[DType, tuple[int, ...]]] = {}
    for name, shape in kind.matrices.items():
        tensors |= packed_tensors(f"{name}.weight", shape, quantization.bits, quantization.group_size, programs)
    for name, vector in kind.vectors.items():
        tensors[name] = ("float32", vector.shape)
    return tensors


def check_groups(kinds: Iterable[BlockKind], quantization: QuantizationConfig, int8_products: bool = False) -> None:
    """Raises UnsupportedModelError unless the group size divides the rows of every matrix, and `int8_products` can have it."""
    columns = {f"{name}.weight": shape[1] for kind in kinds for name, shape in kind.matrices.items()}
    check_group_size(columns, quantization.group_size, int8_products)
