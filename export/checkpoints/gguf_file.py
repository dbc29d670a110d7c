"""The GGUF container, versions 2 and 3 (ggml's docs/gguf.md): keys, the table of tensors, and rows of one tensor as float32.

Everything that the file says of itself is held to its size before memory is asked for: `gguf.GGUFReader` believes an array's length. The
package gguf decodes the quantised blocks. A model in several files is read as one.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.io.bounded import one_line, some

MAGIC, VERSIONS = b"GGUF", (2, 3)
HEADER_BYTES = 2**28  # of keys and table; 2^18 tokens and their merges take 16 MB
MOST_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32
ELEMENTS_AT_ONCE = 2**22  # that are decoded
STRING, ARRAY = 8, 9
SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}  # type -> dtype
PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)  # as llama-gguf-split names them
LAST_PART = 99999

Value = bool | int | float | str | list[str] | npt.NDArray[Any]


@dataclass(frozen=True)
class GgufTensor:
    """`shape` as PyTorch has it: a matrix is [out, in]. `data`: uint8 [rows, bytes of a row], in the mapped file."""

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    data: npt.NDArray[np.uint8]

    def rows(self, index: npt.NDArray[np.int64]) -> Float32Array:
        """Those rows, float32 [len(index), columns]; a vector is one row."""
        columns = self.shape[-1]
        decoded = np.empty((len(index), columns), np.float32)
        step = max(1, ELEMENTS_AT_ONCE // columns)
        for start in range(0, len(index), step):
            decoded[start : start + step] = gguf.dequantize(self.data[index[start : start + step]], self.kind)
        return decoded


@dataclass(frozen=True)
class GgufFile:
    """The first file's keys, and the tensors of all."""

    path: Path
    keys: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]


@dataclass
class _Cursor:
    """Reads on, and never behind `end`. Raises _Truncated."""

    data: mmap.mmap
    at: int = 0
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.end = min(len(self.data), HEADER_BYTES)

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise _Truncated(f"{size} bytes are said to stand at byte {self.at}, and what may be keys ends at {self.end}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> str:
        return self.take(self.number("<Q")).decode()

    def value(self, kind: int) -> Value:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array(self.number("<I"), self.number("<Q"))
        found: bool | int | float = np.frombuffer(self.take(np.dtype(_dtype(kind)).itemsize), _dtype(kind))[0].item()
        return found

    def array(self, kind: int, count: int) -> Value:
        if kind == STRING:
            if count * 8 > self.end - self.at:
                raise _Truncated(f"{count} strings are said to stand at byte {self.at}, and the file ends at {self.end}")
            return [self.text() for _ in range(count)]
        return np.frombuffer(self.take(count * np.dtype(_dtype(kind)).itemsize), _dtype(kind))


class _Truncated(ValueError):
    pass


def _dtype(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(
            f"a value of type {kind}, where {', '.join(map(str, (*SCALARS, STRING, ARRAY)))} are known (an array of arrays is not)"
        )
    return SCALARS[kind]


def read_file(path: Path) -> GgufFile:
    """The file, or all parts of a split model where it is one of them.

    Raises CheckpointError for a malformed or truncated file, or one that lacks a part, UnsupportedModelError for a quantisation that cannot
    be decoded.
    """
    paths = _parts(path)
    files = [_read_one(part) for part in paths]
    tensors: dict[str, GgufTensor] = {}
    for number, file in enumerate(files):
        _check_part(file, number, len(files))
        faults = [f"{name}: stands in two parts" for name in file.tensors if name in tensors]
        if faults:
            raise CheckpointError(f"{file.path}: {some(faults)}; download it again")
        tensors |= file.tensors
    stated = files[0].keys.get("split.tensors.count", len(tensors))
    if len(files) > 1 and stated != len(tensors):
        raise CheckpointError(
            f"{path}: split.tensors.count: expected {stated} tensors in all parts, found {len(tensors)}; download them again"
        )
    _check_decodable(path, tensors)
    return GgufFile(path, files[0].keys, tensors)


def _parts(path: Path) -> list[Path]:
    """All parts of a model whose name says that it is one of several, from the first on."""
    found = PART.fullmatch(path.name)
    if found is None:
        return [path]
    stem, count = found[1], int(found[3])
    names = (path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1))
    paths = []
    for part in names:  # stops at the first that is not there: the count is only what a name says
        if not part.is_file():
            raise CheckpointError(f"{path}: one part of {count}, and {part.name} is not beside it; put all parts into one directory")
        paths.append(part)
    if not paths:
        raise CheckpointError(f"{path}: expected a part from 1 to {LAST_PART} on in the name, found {found[2]} of {found[3]}")
    return paths


def _check_part(file: GgufFile, number: int, count: int) -> None:
    found = file.keys.get("split.no", 0), file.keys.get("split.count", 0) or 1
    if found == (number, count):
        return
    if count == 1:
        raise CheckpointError(
            f"{file.path}: part {one_line(found[0])} of {one_line(found[1])} by its keys; name the parts "
            "as llama-gguf-split does (NAME-00001-of-00002.gguf) and give the first, or join them with llama-gguf-split --merge"
        )
    raise CheckpointError(f"{file.path}: expected part {number + 1} of {count}, found split.no {found[0]!r} of split.count {found[1]!r}")


def _read_one(path: Path) -> GgufFile:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _read_mapped(path, data)
    except (ValueError, OSError) as error:  # ValueError: UnicodeDecodeError and an empty file, too
        raise CheckpointError(f"{path}: not a readable GGUF file, or truncated ({one_line(error)}); download it again") from error


def _read_mapped(path: Path, data: mmap.mmap) -> GgufFile:
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = cursor.number("<I")
    if version not in VERSIONS:
        raise ValueError(f"version {version}, where {' and '.join(map(str, VERSIONS))} are read, little-endian")
    tensor_count, key_count = cursor.number("<Q"), cursor.number("<Q")
    keys: dict[str, Value] = {}
    for _ in range(key_count):  # each takes bytes, so that a count beyond the file ends in _Truncated
        name = cursor.text()
        if name in keys:
            raise ValueError(f"the key {name} stands there twice")
        keys[name] = cursor.value(cursor.number("<I"))
    table = list(_table(cursor, tensor_count))
    repeated = [name for name, count in Counter(name for name, *_ in table).items() if count > 1]
    if repeated:
        raise ValueError(f"{some(repeated)}: stands there twice")
    alignment = keys.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment: expected a power of two, found {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    whole = np.frombuffer(data, np.uint8)
    tensors = {name: _tensor(whole, start, alignment, name, shape, kind, offset) for name, shape, kind, offset in table}
    return GgufFile(path, keys, tensors)


def _table(cursor: _Cursor, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape as ggml has it (columns first), type, offset."""
    for _ in range(count):
        name, dimensions = cursor.text(), cursor.number("<I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"{name}: expected 1 to {MOST_DIMENSIONS} dimensions, found {dimensions}")
        yield name, tuple(cursor.number("<Q") for _ in range(dimensions)), cursor.number("<I"), cursor.number("<Q")


def _tensor(
    whole: npt.NDArray[np.uint8], start: int, alignment: int, name: str, shape: tuple[int, ...], kind: int, offset: int
) -> GgufTensor:
    try:
        quantization = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise ValueError(f"{name}: is of type {kind}, which the installed gguf does not know") from None
    block, size = gguf.GGML_QUANT_SIZES[quantization]
    columns, rows = shape[0], math.prod(shape[1:])
    if min(shape) < 1 or columns % block:
        raise ValueError(f"{name}: expected sizes from 1 on and blocks of {block}, found {list(reversed(shape))}")
    row = columns // block * size
    begin, end = start + offset, start + offset + rows * row
    if end > len(whole) or offset % alignment:
        raise ValueError(f"{name}: {list(reversed(shape))} of {quantization.name} would end at byte {end}, and the file has {len(whole)}")
    return GgufTensor(tuple(reversed(shape)), quantization, whole[begin:end].reshape(rows, row))


def _check_decodable(path: Path, tensors: Mapping[str, GgufTensor]) -> None:
    """Decodes one block of nothing of each kind."""
    faults = []
    for kind in sorted({tensor.kind for tensor in tensors.values()}):
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            first = next(name for name, tensor in tensors.items() if tensor.kind == kind)
            faults.append(f"{first}: of type {kind.name}")
    if faults:
        raise UnsupportedModelError(
            f"{path}: quantisations that the package gguf cannot decode: {some(faults)}; take another file of the model"
        )
