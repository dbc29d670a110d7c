"""Reading safetensors of strangers: as the library reads them, or an AdapterError that says why not."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lcsb_mobile.errors import AdapterError
from lcsb_mobile.io.safetensors_reader import StoredTensors, open_tensors

GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def write(path: Path, header: Any, data: bytes = bytes(24), length: int | None = None) -> StoredTensors:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return open_tensors(path)


@pytest.mark.parametrize(("dtype", "integers"), [(torch.bfloat16, torch.int16), (torch.float16, torch.int16), (torch.float32, torch.int32)])
def test_every_value(tmp_path: Path, dtype: torch.dtype, integers: torch.dtype) -> None:
    """All 65,536 of 16 bits, NaNs and subnormals too; of float32 as many, spread over its range."""
    bits = torch.arange(65_536, dtype=torch.int32) * (1 if dtype.itemsize == 2 else 65_537)
    values = bits.to(integers).view(dtype).reshape(4, -1)
    save_file({"other": torch.zeros(3), "values": values}, tmp_path / "file")
    found = open_tensors(tmp_path / "file").read("values")
    assert found.dtype == np.float32 and found.shape == (4, 16_384)
    expected = values.float().numpy()
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


def test_what_is_listed(tmp_path: Path) -> None:
    """Metadata is none of the tensors; those of other dtypes are listed, so that an error can name them."""
    file = write(tmp_path / "file", {"__metadata__": {"format": "pt"}, "a": GOOD, "b": GOOD | {"dtype": "I64", "shape": [3]}})
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in file.tensors.items()} == {"a": ("F32", (2, 3)), "b": ("I64", (3,))}
    assert write(tmp_path / "empty", {}, b"").tensors == {}
    scalar = write(tmp_path / "scalar", {"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, struct.pack("<f", 1.5))
    assert scalar.read("x") == 1.5


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 28]},
        {"data_offsets": [0, 20]},
        {"data_offsets": [24, 0]},
        {"data_offsets": [8, 32]},
        {"data_offsets": [2**61, 2**61 + 24]},
        {"shape": [2, 4]},
        {"shape": [2**40, 2**40]},
        {"dtype": "BF16"},
        {"dtype": "I64", "data_offsets": [0, 99]},
    ],
)
def test_tensors_outside_the_file(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"file: damaged or truncated: not within the file as its header says: 'a'$"):
        write(tmp_path / "file", {"a": GOOD | change, "b": GOOD})


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "its header is said to have 0"),
        (b"{", "its header is said to have 1"),
        (b"[]", "Expected `object`"),
        (b"{}}", "JSON is malformed"),
        (b'{"a": 1}', "Expected `object`"),
        (b'{"a": ' + b"[" * 100_000, "damaged one"),
        (b'{"a": {"\xff": 1}}', "damaged one"),
        (json.dumps({"a": GOOD | {"shape": [-1, -24]}}).encode(), ">= 0"),
        (json.dumps({"a": GOOD | {"shape": [1] * 9}}).encode(), "length <= 8"),
        (json.dumps({"a": GOOD | {"shape": [2.5]}}).encode(), "Expected `int`"),
        (json.dumps({"a": GOOD | {"data_offsets": [0, 10**30]}}).encode(), "damaged one"),
        (json.dumps({"a": GOOD | {"data_offsets": [24]}}).encode(), "length 2"),
        (json.dumps({"a": GOOD | {"surprise": 1}}).encode(), "surprise"),
    ],
)
def test_bad_headers(header: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        write(tmp_path / "file", header)
    assert f"{tmp_path / 'file'}: not a safetensors file" in str(caught.value) and text in str(caught.value)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 16 * 2**20 + 1, 300])
def test_lengths_that_are_not_believed(length: int, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=rf"its header is said to have {length}"):
        write(tmp_path / "file", {"a": GOOD}, length=length)


def test_a_header_too_long_to_be_read(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="its header is said to have 16777217"):
        write(tmp_path / "file", b"{}" + b" " * (16 * 2**20 - 1))


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(AdapterError, match="no such file"):
            open_tensors(path)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    file = write(tmp_path / "file", {"a": GOOD})
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-4])
    with pytest.raises(AdapterError, match="ended while it was read"):
        file.read("a")
    (tmp_path / "file").unlink()
    with pytest.raises(AdapterError, match="cannot be read"):
        file.read("a")
