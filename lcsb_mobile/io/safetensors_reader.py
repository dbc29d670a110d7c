"""Reading safetensors that somebody else wrote: nothing of the file is believed before it was checked, nothing allocated by its word.

The library's own reader has no bfloat16 for NumPy. The format: an 8-byte little-endian length, a JSON header of that length, the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.config import Record
from lcsb_mobile.errors import AdapterError

MOST_HEADER_BYTES = 16 * 2**20  # of a hundred thousand tensors
FLOATS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}  # as they lie in the file

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class StoredTensor(Record, frozen=True):
    """An entry of the header. `data_offsets`: where its bytes begin and end, from the end of the header."""

    dtype: str
    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=8)]
    data_offsets: tuple[Count, Count]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class StoredTensors:
    """A file whose header was read. Every tensor lies within it, and one of FLOATS is as long as its shape says."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    data_start: int

    def read(self, name: str) -> Float32Array:
        """A tensor of one of FLOATS as float32; a bfloat16 is the upper half of one. Raises AdapterError."""
        tensor = self.tensors[name]
        try:
            raw: Any = np.fromfile(self.path, FLOATS[tensor.dtype], tensor.size, offset=self.data_start + tensor.data_offsets[0])
        except OSError as error:
            raise AdapterError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        if len(raw) != tensor.size:
            raise AdapterError(f"{self.path}: ended while it was read")
        if tensor.dtype == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        values: Float32Array = raw.astype(np.float32).reshape(tensor.shape)
        return values


def open_tensors(path: Path) -> StoredTensors:
    """Reads and checks the header. Raises AdapterError for what is no safetensors file, or a damaged one."""
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
                raise AdapterError(
                    f"{path}: not a safetensors file, or a truncated one: of {size} bytes its header is said to have {length}"
                )
            text = file.read(length)
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(fields.pop("__metadata__", msgspec.Raw(b"null")), type=dict[str, str] | None) or {}
        tensors = {name: msgspec.json.decode(raw, type=StoredTensor) for name, raw in fields.items()}
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterError(f"{path}: not a safetensors file, or a damaged one: {error}") from error
    faults = [f"{name[:80]!r}" for name, tensor in tensors.items() if not _lies_within(tensor, size - 8 - length)]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise AdapterError(f"{path}: damaged or truncated: not within the file as its header says: {', '.join(faults[:3])}{more}")
    return StoredTensors(path, tensors, metadata, 8 + length)


def _lies_within(tensor: StoredTensor, size: int) -> bool:
    start, end = tensor.data_offsets
    fits = tensor.dtype not in FLOATS or end - start == tensor.size * FLOATS[tensor.dtype].itemsize
    return start <= end <= size and fits
