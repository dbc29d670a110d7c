"""The mapped state: what a run starts from, in a file that leaves nothing behind."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import python

from lcsb_mobile.errors import StorageError
from lcsb_mobile.measuring.memory import process_memory
from lcsb_mobile.training.state import mapped_state


def anonymous_bytes() -> int:
    return process_memory()[0] or pytest.skip("this system does not say what is anonymous")


def test_starts_with_the_adapter_and_zero_moments(tmp_path: Path) -> None:
    initial = np.arange(15, dtype=np.float32)
    state = mapped_state(tmp_path, initial)
    assert np.array_equal(state.adapter, initial)
    assert not state.first_moment.any() and not state.second_moment.any()
    state.adapter[5:10] = 7
    state.second_moment[10:] = 8
    others = [*range(5), *range(10, 15)]
    assert np.array_equal(state.adapter[others], initial[others]) and not state.first_moment.any()


def test_leaves_no_file(tmp_path: Path) -> None:
    state = mapped_state(tmp_path, np.ones(6, np.float32))
    assert not list(tmp_path.iterdir())
    del state
    assert not list(tmp_path.iterdir())


def test_takes_no_anonymous_memory(tmp_path: Path) -> None:
    """The state's 48 MB are written to, and are the file's."""
    initial = np.ones(4 * 2**20, np.float32)
    before = anonymous_bytes()
    state = mapped_state(tmp_path, initial)
    state.first_moment[:] = 1
    state.second_moment[:] = 1
    assert anonymous_bytes() - before < 2**20


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(StorageError, match=r"24 bytes .* cannot be reserved \(No space left on device\); free some space"):
        mapped_state(tmp_path, np.ones(2, np.float32))


@pytest.mark.parametrize("size", [3, 5 << 18])  # bytes: 36, and 15 MiB, in chunks
def test_where_space_cannot_be_reserved_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """macOS: every byte has its place on the disk before it is mapped, and the state is as it is elsewhere."""
    mapped: list[os.stat_result] = []
    real = mmap.mmap

    def recorded(descriptor: int, length: int) -> mmap.mmap:
        mapped.append(os.fstat(descriptor))
        return real(descriptor, length)

    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr("lcsb_mobile.training.state.mmap.mmap", recorded)
    initial = np.arange(size, dtype=np.float32)
    state = mapped_state(tmp_path, initial)
    assert mapped[0].st_size == 3 * initial.nbytes <= mapped[0].st_blocks * 512
    assert np.array_equal(state.adapter, initial) and not state.first_moment.any() and not state.second_moment.any()


@pytest.mark.parametrize("reserving", [True, False])
def test_a_disk_that_is_full(small_disk: Path, reserving: bool) -> None:
    """In a process of its own: a page that finds no room when it is written to ends it."""
    program = f"""
import os, sys
from pathlib import Path
import numpy as np
from lcsb_mobile.errors import StorageError
from lcsb_mobile.training.state import mapped_state
if not {reserving} and hasattr(os, "posix_fallocate"):
    del os.posix_fallocate
try:
    mapped_state(Path(sys.argv[1]), np.ones(2**14, np.float32)).second_moment[:] = 1
except StorageError as error:
    print(error)
"""
    done = python(program, small_disk)
    assert done.returncode == 0 and "No space left on device" in done.stdout, (done.returncode, done.stderr)
    assert list(small_disk.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        mapped_state(tmp_path / "missing", np.ones(2, np.float32))
