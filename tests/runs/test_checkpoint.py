"""The file of a run's state: what is written is read, and anything else is refused with one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from helpers.run_checkpoints import LAYOUT, MATRICES, assert_equal, make_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.bundle.layers import AdapterMatrix
from lcsb_mobile.errors import RunCheckpointError
from lcsb_mobile.runs.checkpoint import FORMAT, UNKNOWN_DIGEST, newest_good, read_adapter, read_checkpoint, write_checkpoint


@pytest.mark.parametrize(("step", "evaluations"), [(0, 0), (0, 1), (4, 2)])
def test_what_is_written_is_read(tmp_path: Path, step: int, evaluations: int) -> None:
    path = tmp_path / "state"
    write_checkpoint(path, make_checkpoint(step, evaluations))
    assert_equal(read_checkpoint(path, LAYOUT), make_checkpoint(step, evaluations))
    np.testing.assert_array_equal(read_adapter(path, LAYOUT), make_checkpoint(step).state.adapter)


def test_another_reader_finds_what_the_page_says(tmp_path: Path) -> None:
    """By docs/run_checkpoint.md alone, with the safetensors library."""
    path = tmp_path / "state"
    write_checkpoint(path, make_checkpoint())
    raw = path.read_bytes()
    tensors = safetensors.numpy.load(raw)
    assert {name: (str(array.dtype), array.shape) for name, array in tensors.items()} == {
        "adapter": ("float32", (21,)),
        "first_moment": ("float32", (21,)),
        "second_moment": ("float32", (21,)),
        "updates": ("int64", (3,)),
        "steps": ("float64", (4, 6)),
        "evaluations": ("float64", (2, 2)),
    }
    size = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + size])["__metadata__"]
    assert (metadata["format"], metadata["version"]) == ("lcsb_mobile.checkpoint", "3")
    assert hashlib.sha256(raw.replace(metadata["sha256"].encode(), b"0" * 64)).hexdigest() == metadata["sha256"]
    run = json.loads(metadata["run"])
    assert (run["step"], run["sequences"]) == (4, 8)
    assert run["identity"]["schedule"][1] == {"train": [0, 1], "propagate": [0, 1, 2]}


WHOLE = b""  # a checkpoint's bytes, made once


def whole(directory: Path) -> bytes:
    global WHOLE
    if not WHOLE:
        write_checkpoint(directory / "whole", make_checkpoint())
        WHOLE = (directory / "whole").read_bytes()
    return WHOLE


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(whole(tmp_path_factory.getbasetemp()))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(raw)
    with pytest.raises(RunCheckpointError, match="flipped: "):
        read_checkpoint(path, LAYOUT)


@pytest.mark.parametrize("length", [0, 5, 8, 100, -1, -200])
def test_a_file_cut_short_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut"
    path.write_bytes(whole(tmp_path)[:length])
    with pytest.raises(RunCheckpointError, match="cut: "):
        read_checkpoint(path, LAYOUT)


def forge(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], data: bytes | None = None) -> None:
    """A file whose digest is right, but whose header (first argument of `change`) or `run` (second) was made up."""
    raw = whole(path.parent)
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    metadata = header["__metadata__"]
    run = json.loads(metadata["run"])
    change(header, run)
    metadata |= {"run": json.dumps(run), "sha256": UNKNOWN_DIGEST}
    text = json.dumps(header).encode()
    body = len(text).to_bytes(8, "little") + text + (raw[8 + size :] if data is None else data)
    path.write_bytes(body.replace(UNKNOWN_DIGEST.encode(), hashlib.sha256(body).hexdigest().encode()))


def test_a_forgery_that_changes_nothing_is_read(tmp_path: Path) -> None:
    """So the refusals below are for what was changed. The header's length is then no multiple of 8."""
    forge(tmp_path / "same", lambda header, run: None)
    assert_equal(read_checkpoint(tmp_path / "same", LAYOUT), make_checkpoint())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header, run: header["__metadata__"].update(format="other"), f"expected {FORMAT} version 3, found 'other' version '3'"),
        (
            lambda header, run: header["__metadata__"].update(version="2"),
            "expected .* version 3, found 'lcsb_mobile.checkpoint' version '2'; end the run with the lcsb_mobile that began it",
        ),
        (lambda header, run: header["__metadata__"].update(version="4"), "found 'lcsb_mobile.checkpoint' version '4'"),
        (lambda header, run: header["__metadata__"].update(more="x"), "unknown field `more`"),
        (lambda header, run: run.update(step=5), "malformed: step 5 after 8 sequences, expected 10"),
        (lambda header, run: run.update(step=10**12, sequences=2 * 10**12), r"steps: expected F64 \[1000000000000, 6\]"),
        (lambda header, run: run.update(step=-1, sequences=-2), "malformed: step -1"),
        (lambda header, run: run.update(step="4"), "malformed: Expected `int`"),
        (lambda header, run: run["identity"]["train"].update(accumulation=0), "accumulation: expected at least 1, found 0"),
        (lambda header, run: header.pop("updates"), "updates is missing"),
        (lambda header, run: header.update(extra=header["steps"]), "'extra' is unknown"),
        (lambda header, run: header["adapter"].update(dtype="F64"), r"adapter: expected F32 \[21\] at byte 0, found .*F64"),
        (lambda header, run: header["adapter"].update(shape=[3, 7]), r"adapter: expected F32 \[21\]"),
        (lambda header, run: header["second_moment"].update(data_offsets=[0, 84]), r"second_moment: expected F32 \[21\] at byte 168"),
        (lambda header, run: header["evaluations"].update(shape=[-2, -2]), r"evaluations: expected F64 \[2, 2\]"),
        (lambda header, run: header["evaluations"].update(shape=[10**15, 2]), r"evaluations: expected F64 \[2, 2\]"),
        (lambda header, run: header.update(steps=7), r"steps: expected F64 \[4, 6\] at byte 276, found 7"),
    ],
)
def test_a_forged_header_is_refused(tmp_path: Path, change: Callable[..., None], reason: str) -> None:
    path = tmp_path / "forged"
    forge(path, change)
    with pytest.raises(RunCheckpointError, match=reason):
        read_checkpoint(path, LAYOUT)


@pytest.mark.parametrize(("extra", "reason"), [(b"1234567", "expected 500 bytes of tensors, found 507"), (None, "holds no tensors")])
def test_data_of_another_size(tmp_path: Path, extra: bytes | None, reason: str) -> None:
    raw = whole(tmp_path)
    forge(tmp_path / "forged", lambda header, run: None, b"" if extra is None else raw[8 + int.from_bytes(raw[:8], "little") :] + extra)
    with pytest.raises(RunCheckpointError, match=reason):
        read_checkpoint(tmp_path / "forged", LAYOUT)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("adapter", np.nan, "adapter holds NaN or infinite values"),
        ("second_moment", -1.0, "second_moment holds negative values"),
    ],
)
def test_values_that_no_run_has(tmp_path: Path, name: str, value: float, reason: str) -> None:
    checkpoint = make_checkpoint()
    getattr(checkpoint.state, name)[9] = value
    write_checkpoint(tmp_path / "state", checkpoint)
    with pytest.raises(RunCheckpointError, match=reason):
        read_checkpoint(tmp_path / "state", LAYOUT)


def test_another_adapter(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "state", make_checkpoint())
    with pytest.raises(RunCheckpointError, match=r"does not fit the bundle's adapter: adapter: expected F32 \[24\]"):
        read_checkpoint(
            tmp_path / "state", dataclasses.replace(LAYOUT, matrices={"block": (*MATRICES[:1], AdapterMatrix("q.lora_B", (4, 1), 4))})
        )
    with pytest.raises(RunCheckpointError, match=r"adapter: expected F32 \[28\].*updates: expected I64 \[4\]"):
        read_checkpoint(tmp_path / "state", dataclasses.replace(LAYOUT, kinds=("block",) * 4))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "said to have 0 bytes"),
        (b"\xff" * 50, "said to have 18446744073709551615 bytes"),
        ((5 * 2**20).to_bytes(8, "little") + b"{}", "said to have 5242880 bytes"),
        ((2).to_bytes(8, "little") + b"{}", "not a checkpoint, or a damaged one"),
        ((4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc", "not a checkpoint, or a damaged one"),
        ((200000).to_bytes(8, "little") + b"[" * 200000, "not a checkpoint, or a damaged one"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, raw: bytes, reason: str) -> None:
    (tmp_path / "other").write_bytes(raw)
    with pytest.raises(RunCheckpointError, match=reason):
        read_checkpoint(tmp_path / "other", LAYOUT)


def test_the_adapter_of_a_directory_is_the_newest_good_one(tmp_path: Path) -> None:
    for step in (2, 9, 30):
        write_checkpoint(tmp_path / f"step-{step:08}.safetensors", make_checkpoint(step))
    np.testing.assert_array_equal(read_adapter(tmp_path, LAYOUT), make_checkpoint(30).state.adapter)
    (tmp_path / "step-00000030.safetensors").write_bytes(b"spoilt")
    np.testing.assert_array_equal(read_adapter(tmp_path, LAYOUT), make_checkpoint(9).state.adapter)
    with pytest.raises(RunCheckpointError, match=r"step-00000030.safetensors: not a checkpoint.*; no good checkpoint is left"):
        newest_good([tmp_path / "step-00000030.safetensors"], LAYOUT)
    with pytest.raises(RunCheckpointError, match="no such file|No such file"):
        read_adapter(tmp_path / "absent", LAYOUT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunCheckpointError, match="holds no checkpoint"):
        read_adapter(tmp_path / "empty", LAYOUT)
