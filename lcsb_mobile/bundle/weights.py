"""The table of `weights.bin`: which frozen tensor lies where, and the file read in place.

Each tensor of a kind of layers is stacked over its layers, so the same bytes serve a whole graph and, slice by slice, programs of one
block. Every stack starts on a page boundary.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lcsb_mobile.config import Programs, Record

PAGE = 4096
WEIGHTS_FILE = "weights.bin"
TAIL = 64  # bytes after the last tensor: vector kernels may read beyond the end of an input (XNNPACK's XNN_EXTRA_BYTES is 16)
LAYERS = "layers."
SCALE = ".scale"  # what the names of the scales end with
ROPE = "rope."  # what the names of the rotary tables begin with
HEAD_CHUNK_BYTES = 8 * 2**20  # of float rows of the head that are decompressed at once
TILE_BYTES = 4_500_000  # of one float tile of an MLP's matrix, about what a core's second-level cache holds,
MOST_TILES = 8  # but no more tiles than that: each adds some sixty nodes to a block's backward

DType = Literal["uint8", "int8", "float16", "float32"]

# How a bundle stores scales and 8-bit values, by what its programs are for. Not every GPU has float16, and ONNX Runtime's WebGPU provider
# picks rows of uint8 alone: a value q is then stored as q + ZERO_POINT.
SCALES: dict[Programs, DType] = {"cpu": "float16", "gpu": "float32"}
BYTES: dict[Programs, DType] = {"cpu": "int8", "gpu": "uint8"}
ZERO_POINT = 128


class WeightTensor(Record, frozen=True):
    """`shape` is row-major; for a tensor of the blocks (`layers.KIND.NAME`) its first dimension is the layer's number in its kind.
    `offset` in bytes."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    offset: int

    @property
    def per_layer(self) -> bool:
        return self.name.startswith(LAYERS)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def layer_tensor(kind: str, name: str) -> str:
    """The stack of a tensor of a kind's layers."""
    return f"{LAYERS}{kind}.{name}"


def stored_for(table: Iterable[WeightTensor]) -> Programs:
    """What programs a table is for, by its scales."""
    return "gpu" if {tensor.dtype for tensor in table if tensor.name.endswith(SCALE)} == {SCALES["gpu"]} else "cpu"


def head_rows(hidden_size: int) -> int:
    """Rows of the head in a chunk: a power of two, so that the chunks of many models are alike."""
    return int(2 ** math.floor(math.log2(max(256, HEAD_CHUNK_BYTES / (4 * hidden_size)))))


def tile_rows(hidden_size: int, intermediate_size: int, group_size: int) -> int | None:
    """Rows of gate and up, and columns of down, in a tile: a multiple of the group size. None: all at once."""
    count = min(MOST_TILES, math.ceil(hidden_size * intermediate_size * 4 / TILE_BYTES))
    rows = math.ceil(intermediate_size / count / group_size) * group_size
    return rows if rows < intermediate_size else None


def lay_out(tensors: dict[str, tuple[DType, tuple[int, ...]]]) -> tuple[WeightTensor, ...]:
    """Name -> (dtype, shape), in file order -> the table with offsets."""
    table: list[WeightTensor] = []
    offset = 0
    for name, (dtype, shape) in tensors.items():
        table.append(WeightTensor(name=name, dtype=dtype, shape=shape, offset=offset))
        offset = -(-(offset + table[-1].nbytes) // PAGE) * PAGE
    return tuple(table)


class MappedWeights:
    """`weights.bin`, mapped; arrays are views of the file and cost no anonymous memory.

    The mapping is private rather than read-only, since torch warns of tensors over read-only memory. Nothing writes to it.
    """

    def __init__(self, path: Path, table: tuple[WeightTensor, ...]) -> None:
        self._file = np.memmap(path, mode="c", dtype=np.uint8)
        self._table = {tensor.name: tensor for tensor in table}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        tensor = self._table[name]
        raw = self._file[tensor.offset : tensor.offset + tensor.nbytes]
        return raw.view(tensor.dtype).reshape(tensor.shape)

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def release(self) -> None:
        """Drops the pages that were read from this process; the system keeps them cached, and the next access maps them again."""
        if hasattr(mmap, "MADV_DONTNEED") and self._file._mmap is not None:  # type: ignore[attr-defined]
            self._file._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def read_ahead(self, kind: str, number: int) -> None:
        """Asks the system to read the pages of a kind's layer while something else runs."""
        mapping: Any = self._file._mmap  # type: ignore[attr-defined]
        if not hasattr(mmap, "MADV_WILLNEED") or mapping is None:
            return
        for tensor in self._of(kind).values():
            size = tensor.nbytes // tensor.shape[0]
            start = (tensor.offset + number * size) // mmap.PAGESIZE * mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, start, tensor.offset + (number + 1) * size - start)

    def layer(self, kind: str, number: int) -> dict[str, npt.NDArray[Any]]:
        """The tensors of a kind's layer by their name within the layer."""
        return {name: self[tensor.name][number] for name, tensor in self._of(kind).items()}

    def _of(self, kind: str) -> dict[str, WeightTensor]:
        prefix = layer_tensor(kind, "")
        return {name.removeprefix(prefix): tensor for name, tensor in self._table.items() if name.startswith(prefix)}
