"""Writing safetensors tensor by tensor: the library's own writer needs all of them twice in memory, at the end of a run that may have
no such room.

A file may state a SHA-256 of the whole of it, header included, in its metadata; the digest's own 64 characters count as zeros.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
DIGEST = "sha256"  # the metadata's key
UNKNOWN_DIGEST = "0" * 64

Array = npt.NDArray[Any]


class Sink(Protocol):
    """What is written to: a file, or something that looks at what passes."""

    def write(self, data: Any, /) -> object: ...


@dataclass(frozen=True)
class TensorEntry:
    """A tensor to come. `dtype`: safetensors' name of it, one of ITEM_BYTES."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_safetensors(
    file: Sink, entries: Mapping[str, TensorEntry], read: Callable[[str], Array | Iterator[Array]], metadata: Mapping[str, str]
) -> None:
    """Writes `entries` in their order, asking `read` for one at a time: the array, or its parts one after the other. BF16 is read as
    uint16.

    Raises ValueError when what was read has not the size that its entry states.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, entry in entries.items():
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (offset, offset + entry.nbytes)}
        offset += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, entry in entries.items():
        found = read(name)
        size = 0
        for part in (found,) if isinstance(found, np.ndarray) else found:
            size += part.nbytes
            file.write(np.ascontiguousarray(part).data)
        if size != entry.nbytes:
            raise ValueError(f"{name}: expected {entry.nbytes} bytes, found {size}")


def write_digested(
    file: BinaryIO, entries: Mapping[str, TensorEntry], read: Callable[[str], Array | Iterator[Array]], metadata: Mapping[str, str]
) -> None:
    """`write_safetensors`; then the digest goes where `metadata` has UNKNOWN_DIGEST."""
    hashing = _Hashing(file)
    write_safetensors(hashing, entries, read, metadata)
    field = f'"{DIGEST}":"'.encode()
    file.seek(hashing.start.index(field + UNKNOWN_DIGEST.encode()) + len(field))
    file.write(hashing.digest.hexdigest().encode())


def file_digest(header: bytes, file: BinaryIO, stated: str) -> str:
    """Of a file whose start, to the end of the `header`, was read from `file`, and which states this digest."""
    digest = hashlib.sha256(header.replace(stated.encode(), UNKNOWN_DIGEST.encode(), 1))
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class _Hashing:
    """Passes on what is written. `start`: the first piece, which is the header."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest, self.start = hashlib.sha256(), b""
        self._file = file

    def write(self, data: Any) -> None:
        self.start = self.start or bytes(data)
        self.digest.update(data)
        self._file.write(data)
