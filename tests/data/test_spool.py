"""Arrays in unnamed temporary files: what is appended comes back, costs no anonymous memory, and a full disk is one clear error."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import python
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.data import spool
from lcsb_mobile.data.spool import Spool
from lcsb_mobile.errors import StorageError
from lcsb_mobile.measuring.memory import process_memory


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=9), st.booleans())
def test_gives_back_what_was_appended(parts: list[list[int]], writable: bool) -> None:
    written: Spool[np.int32] = Spool(np.int32)
    for part in parts:
        written.append(part)
    array = written.mapped(writable)
    assert array.dtype == np.int32 and array.tolist() == [number for part in parts for number in part]
    if writable:
        array[:] = 7
        assert (array == 7).all()
    elif len(array):
        assert not array.flags.writeable


def test_takes_no_anonymous_memory_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB are written, mapped, sorted where they are, and are the file's."""
    monkeypatch.setattr(spool, "scratch_directory", lambda: tmp_path)
    before, _ = process_memory()
    numbers: Spool[np.uint64] = Spool(np.uint64)
    for first in range(0, 1 << 23, 1 << 14):
        numbers.append(np.arange(first, first + (1 << 14), dtype=np.uint64)[::-1])
    array = numbers.mapped(writable=True)
    array.sort()
    after, _ = process_memory()
    assert array[0] == 0 and array[-1] == (1 << 23) - 1
    assert list(tmp_path.iterdir()) == []
    assert before is None or (after or 0) - before < 2 << 20


def test_a_full_disk() -> None:
    """A limit on the size of files fails a write as a full disk does; buffered, it may do so only when the file is mapped."""
    program = """
import resource, sys
import numpy as np
from lcsb_mobile.errors import StorageError
from lcsb_mobile.data.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for size in (1 << 10, (1 << 16) + 1):
    spool = Spool(np.uint8)
    try:
        for _ in range(0, 1 << 20, size):
            spool.append(np.zeros(size))
        spool.mapped()
    except StorageError as error:
        print(error)
spool = Spool(np.uint8)
spool.append(np.zeros(1 << 16))
spool.append(np.zeros(9))
try:
    spool.mapped()
except StorageError as error:
    print(error)
"""
    done = python(program)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(
        "temporary files of the data cannot be written (File too large); its file system, or `ulimit -f`, allows no file so large" in line
        for line in lines
    )


def test_a_directory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "scratch_directory", lambda: tmp_path / "missing")
    with pytest.raises(StorageError, match=r"missing: .* \(No such file or directory\)"):
        Spool(np.int32)


def test_what_is_never_mapped_is_closed() -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open files are counted through /proc")
    before = len(os.listdir(descriptors))
    spools = [Spool(np.int32) for _ in range(5)]
    assert len(os.listdir(descriptors)) == before + 5
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # Python warns of a file that nobody closed
        del spools
    assert caught == []
    assert len(os.listdir(descriptors)) == before
