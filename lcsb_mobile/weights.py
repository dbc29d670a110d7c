"""The table of `weights.bin`: which frozen tensor lies where, and the file read in place.

Each kind of tensor is stacked over the layers, so the same bytes serve a whole graph and, slice by slice, programs of one
block. Every stack starts on a page boundary.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lcsb_mobile.config import Record

PAGE = 4096
WEIGHTS_FILE = "weights.bin"
LAYERS = "layers."
CHUNK_ROWS = 4096  # rows of the head that are decompressed at once: 16 MB of float weights at a hidden size of 1,024

DType = Literal["uint8", "int8", "float16", "float32"]


class WeightTensor(Record, frozen=True):
    """`shape` is row-major; for a tensor of the blocks (`layers.…`) its first dimension is the layer. `offset` in bytes."""

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

    def layer(self, number: int) -> dict[str, npt.NDArray[Any]]:
        """One layer's tensors by their name within the layer."""
        return {name.removeprefix(LAYERS): self[name][number] for name, tensor in self._table.items() if tensor.per_layer}
