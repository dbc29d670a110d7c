"""`weight.bin` of a package: every tensor by the place of its metadata, each bound checked.

`MILBlob/Blob/StorageFormat.hpp` and `BlobDataType.hpp` in coremltools' repository are the specification. A header of 64 bytes: the number
of tensors and the version 2, uint32 each. Metadata, 64 bytes at a multiple of 64: uint32 sentinel and dtype, uint64 size in bytes, place of
the data, and the bits at its end that are none. Types of less than a byte fill bytes from their low bits up.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lcsb_mobile.errors import BundleError

HEADER, METADATA = struct.Struct("<II"), struct.Struct("<IIQQQ")
ALIGNMENT, SENTINEL, VERSION = 64, 0xDEADBEEF, 2
NUMBERS = {"float16": 1, "float32": 2, "uint8": 3, "int8": 4, "int4": 8, "uint4": 11, "int32": 14}  # of those that are read


class WeightFile:
    """Arrays are views of the mapped file, but for those of 4 bits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: np.ndarray = np.memmap(path, mode="r", dtype=np.uint8)
        except (OSError, ValueError) as error:  # a ValueError of an empty file
            raise BundleError(f"{path}: cannot be read: {error}") from error
        if len(self._file) < ALIGNMENT:
            raise self._damaged(f"expected a header of {ALIGNMENT} bytes, found {len(self._file)}")
        self.count, version = HEADER.unpack(self._file[: HEADER.size].tobytes())
        if version != VERSION:
            raise self._damaged(f"expected version {VERSION} of the format, found {version}")
        if 2 * ALIGNMENT * self.count > len(self._file):
            raise self._damaged(f"expected {self.count} tensors, which are more than {len(self._file)} bytes hold")

    def read(self, offset: int, dtype: str, shape: Sequence[int]) -> np.ndarray:
        """The tensor whose metadata stands at `offset`; those of 4 bits as int8 or uint8. Raises BundleError unless it is what the program
        says."""
        where = f"the tensor at byte {offset}"
        if dtype not in NUMBERS:
            raise self._damaged(f"{where}: expected one of {', '.join(NUMBERS)}, found {dtype}")
        if offset % ALIGNMENT or not ALIGNMENT <= offset <= len(self._file) - ALIGNMENT:
            raise self._damaged(f"{where}: expected a multiple of {ALIGNMENT} within {len(self._file)} bytes")
        sentinel, number, size, start, padding = METADATA.unpack(self._file[offset : offset + METADATA.size].tobytes())
        bits = math.prod(shape) * (4 if dtype.endswith("int4") else 8 * np.dtype(dtype).itemsize)
        expected = SENTINEL, NUMBERS[dtype], -(-bits // 8), -bits % 8
        if (found := (sentinel, number, size, padding)) != expected:
            raise self._damaged(f"{where}: expected sentinel, type, bytes and bits of padding {expected}, found {found}")
        if start % ALIGNMENT or not offset + ALIGNMENT <= start <= len(self._file) - size:
            raise self._damaged(f"{where}: expected its {size} bytes after it within {len(self._file)}, found them at {start}")
        data = self._file[start : start + size]
        if not dtype.endswith("int4"):
            return data.view(dtype).reshape(shape)
        values = np.stack([data & 15, data >> 4], axis=-1).reshape(-1)[: math.prod(shape)].reshape(shape)
        return (values ^ 8).astype(np.int8) - 8 if dtype == "int4" else values

    def _damaged(self, fault: str) -> BundleError:
        return BundleError(f"{self.path}: damaged: {fault}; copy or export the bundle again")
