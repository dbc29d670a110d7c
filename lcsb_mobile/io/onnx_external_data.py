"""Which bytes outside itself an ONNX file names as its tensors' data, found without the onnx package.

ONNX Runtime 1.19.2 opens whatever file a tensor names, and takes one name for an address in memory. So every program is walked through
before a session is made of it: a protobuf reader of the fields that lead to a tensor, which refuses what no exporter writes (a single field
that stands twice, which parsers merge; groups; a message past its end). Field numbers are those of onnx.proto3, the wire format protobuf's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.bounded import one_line, read_bounded, some

PROGRAM_BYTES = 16 * 2**20  # that are read; 130 kB are usual: a program holds no weights
MOST_FIELDS = 200_000  # in a file; 6,000 are usual
MOST_DEPTH = 100  # of messages within messages, protobuf's own limit

VARINT, BYTES = 0, 2  # wire types
FIXED = {1: 8, 5: 4}  # likewise, with their bytes
NUMBER = re.compile(r"\d{1,18}", re.ASCII)
KEYS = dict.fromkeys(("location", "offset", "length", "checksum"))

# Message -> the fields that lead to a tensor, and the message that each holds; "one …" may stand once.
MESSAGES = {
    "model": {7: "one graph", 20: "training", 25: "function"},
    "training": {1: "one graph", 2: "one graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "one tensor", 6: "one graph", 10: "tensor", 11: "graph", 22: "one sparse", 23: "sparse"},
    "sparse": {1: "one tensor", 2: "one tensor"},
    "tensor": {8: "one name", 13: "entry", 14: "one number"},
    "entry": {1: "one key", 2: "one value"},
}


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor that is marked as external, or says where its data is: `entries`, each key once."""

    name: str
    entries: dict[str, str]


def external_tensors(path: Path) -> list[ExternalTensor]:
    """Raises BundleError for a file that cannot be read, is too large, or is no ONNX file as exporters write them."""
    try:
        walk = _Walk(read_bounded(path, PROGRAM_BYTES))
        walk.message("model", 0, len(walk.data), 0)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not an ONNX file as exporters write them: {one_line(error)}") from error
    return walk.found


def check_external_data(path: Path, data_file: str, data_size: int, names: Collection[str] | None) -> None:
    """Raises BundleError unless all external data lies within the first `data_size` bytes of `data_file`, beside the program, and belongs
    to tensors of these `names` (None: any)."""
    faults = []
    for tensor in external_tensors(path):
        location, offset, length = tensor.entries.get("location"), tensor.entries.get("offset", "0"), tensor.entries.get("length", "0")
        if location != data_file or not tensor.entries.keys() <= KEYS.keys():
            faults.append(f"{tensor.name!r} has its data in {location!r}, expected {data_file!r} and no keys but {', '.join(KEYS)}")
        elif names is not None and tensor.name not in names:
            faults.append(f"{tensor.name!r} has its data outside the program, expected {', '.join(names) or 'no tensor'} to have")
        elif not all(map(NUMBER.fullmatch, (offset, length))) or int(offset) + int(length) > data_size:
            faults.append(f"{tensor.name!r}: expected its data within {data_size} bytes, found {length!r} bytes from {offset!r}")
    if faults:
        raise BundleError(f"{path}: {some(faults)}; export the bundle again")


class _Walk:
    """One pass through a file. Its methods take where a message starts and ends, and raise ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.found: list[ExternalTensor] = []
        self._fields = 0

    def message(self, kind: str, start: int, end: int, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise ValueError(f"more than {MOST_DEPTH} messages within each other")
        for _, inner, first, last in self._known(kind, start, end):
            if inner == "tensor":
                self._tensor(first, last)
            else:
                self.message(inner, first, last, depth + 1)

    def _tensor(self, start: int, end: int) -> None:
        name, external, entries = "", False, {}
        for _, inner, first, last in self._known("tensor", start, end):
            if inner == "name":
                name = self._text(first, last)
            elif inner == "number":
                external = first != 0
            else:
                entry = {inner: self._text(*place) for _, inner, *place in self._known("entry", first, last)}
                if entry.setdefault("key", "") in entries:
                    raise ValueError(f"the tensor {name!r} has {entry['key']!r} twice")
                entries[entry["key"]] = entry.get("value", "")
        if external or entries:
            self.found.append(ExternalTensor(name, entries))

    def _known(self, kind: str, start: int, end: int) -> Iterator[tuple[int, str, int, int]]:
        """The fields of MESSAGES: number, what it holds, and where that starts and ends; of a number its value, twice."""
        seen = set()
        for number, wire, first, last in self._all(start, end):
            if (holds := MESSAGES[kind].get(number)) is None:
                continue
            inner = holds.removeprefix("one ")
            if inner != holds and number in seen:
                raise ValueError(f"field {number} of {kind!r} stands twice")
            if wire != (VARINT if inner == "number" else BYTES):
                raise ValueError(f"field {number} of {kind!r} is of wire type {wire}")
            seen.add(number)
            yield number, inner, first, last

    def _all(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Every field: number, wire type, where its content starts and ends; of a varint its value, twice."""
        at = start
        while at < end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise ValueError(f"more than {MOST_FIELDS} fields")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise ValueError(f"field number {number}")
            if wire == VARINT:
                value, at = self._varint(at, end)
                yield number, wire, value, value
                continue
            if wire == BYTES:
                size, at = self._varint(at, end)
            elif wire in FIXED:
                size = FIXED[wire]
            else:
                raise ValueError(f"wire type {wire}")
            if size > end - at:
                raise ValueError(f"a field of {size} bytes where {end - at} are left")
            yield number, wire, at, at + size
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number that starts there, and where the next thing starts."""
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ValueError("a number that does not end")

    def _text(self, start: int, end: int) -> str:
        return self.data[start:end].decode()
