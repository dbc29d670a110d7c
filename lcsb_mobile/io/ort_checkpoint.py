"""The file `checkpoint` of target onnxruntime-training: that it is the adapter as one parameter, and nothing else.

ONNX Runtime's training API reads it: a FlatBuffer of the schema ort_training_checkpoint.fbs (1.19.2, the last). Its parameters' shapes
decide what is allocated, and a flag has them read from a second file. Here is a reader of the few fields that a bundle's checkpoint has.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.bounded import one_line

IDENTIFIER = b"ODTC"  # at byte 4
FLOAT = 1  # ONNX's number of float32
SLACK_BYTES = 4096  # of a file besides its tensor; 128 are usual

# Fields by their place in the schema.
MODULE_STATE, OPTIMIZER_GROUPS, PROPERTY_BAG = 1, 2, 3
PARAMETERS, FROZEN, EXTERNAL = 0, 1, 3
NAME, DIMENSIONS, DATA_TYPE, RAW_DATA, STRING_DATA, EXTERNAL_OFFSET = 0, 2, 3, 4, 5, 6


def check_checkpoint(path: Path, parameter: str, shape: tuple[int, ...]) -> None:
    """Raises BundleError unless the file holds one float32 parameter of this name and shape, all of it in the file."""
    size = 4 * math.prod(shape)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] != IDENTIFIER:
                raise ValueError(f"expected {IDENTIFIER!r} at byte 4, found {data[4:8]!r}")
            if len(data) > size + SLACK_BYTES:
                raise ValueError(f"expected at most {size + SLACK_BYTES} bytes, found {len(data)}")
            _check(_Table(data, _unsigned(data, 0)), parameter, shape, size)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (struct.error, ValueError) as error:
        raise BundleError(f"{path}: not a checkpoint of this bundle's adapter: {one_line(error)}; export the bundle again") from error


def _check(checkpoint: _Table, parameter: str, shape: tuple[int, ...], size: int) -> None:
    module = checkpoint.table(MODULE_STATE)
    if checkpoint.has(OPTIMIZER_GROUPS) or checkpoint.has(PROPERTY_BAG):
        raise ValueError("expected a module's state alone, found more")
    if module.flag(EXTERNAL) or (module.has(FROZEN) and module.vector(FROZEN)[1]):
        raise ValueError("expected no external data and no frozen parameters, found some")
    start, count = module.vector(PARAMETERS)
    if count != 1:
        raise ValueError(f"expected one parameter, found {count}")
    tensor = _Table(module.data, start + _unsigned(module.data, start))
    start, count = tensor.vector(NAME)
    if tensor.data[start : start + count + 1] != parameter.encode() + b"\0":
        raise ValueError(f"expected the parameter {parameter!r}, found {tensor.data[start : start + min(count, 80)]!r}")
    start, count = tensor.vector(DIMENSIONS)
    if count != len(shape) or struct.unpack_from(f"<{count}q", tensor.data, start) != shape:
        raise ValueError(f"expected a parameter of {list(shape)}, found another shape")
    if tensor.has(STRING_DATA) or tensor.has(EXTERNAL_OFFSET) or tensor.number(DATA_TYPE) != FLOAT:
        raise ValueError("expected float32 in the file, found something else")
    start, count = tensor.vector(RAW_DATA)
    if count != size or start + count > len(tensor.data):
        raise ValueError(f"expected {size} bytes of values, found {min(count, len(tensor.data) - start)}")


class _Table:
    """A FlatBuffer's table. What lies outside `data` is a struct.error or ValueError."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self._at = data, at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]
        if self._vtable < 0:
            raise ValueError("a table outside the file")
        self._size = struct.unpack_from("<H", data, self._vtable)[0]

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def table(self, field: int) -> _Table:
        place = self._needed(field)
        return _Table(self.data, place + _unsigned(self.data, place))

    def vector(self, field: int) -> tuple[int, int]:
        """Where its elements start, and how many there are."""
        place = self._needed(field)
        start = place + _unsigned(self.data, place)
        return start + 4, _unsigned(self.data, start)

    def flag(self, field: int) -> bool:
        place = self._place(field)
        return place is not None and bool(struct.unpack_from("<B", self.data, place)[0])

    def number(self, field: int) -> int:
        return _unsigned(self.data, self._needed(field))

    def _needed(self, field: int) -> int:
        if (place := self._place(field)) is None:
            raise ValueError(f"a table has no field {field}")
        return place

    def _place(self, field: int) -> int | None:
        if 4 + 2 * field >= self._size:
            return None
        offset = struct.unpack_from("<H", self.data, self._vtable + 4 + 2 * field)[0]
        return self._at + offset if offset else None


def _unsigned(data: mmap.mmap, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
