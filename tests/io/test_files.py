"""What was written is on the disk when a write is said to be done: macOS has a call of its own for it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from lcsb_mobile.io import files
from lcsb_mobile.io.files import replace_atomically

F_FULLFSYNC = 51


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The call and the inode of what each was for, in order."""
    calls: list[tuple[str, int]] = []

    def full_sync(descriptor: int, command: int) -> int:
        assert command == F_FULLFSYNC
        calls.append(("F_FULLFSYNC", os.fstat(descriptor).st_ino))
        return 0

    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(("fsync", os.fstat(descriptor).st_ino)))
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    return calls


@pytest.mark.parametrize(("number", "call"), [(None, "fsync"), (F_FULLFSYNC, "F_FULLFSYNC")])
def test_a_file_and_its_directory_are_synced(
    synced: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int | None, call: str
) -> None:
    monkeypatch.setattr(files, "FULL_SYNC", number)
    with replace_atomically(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert synced == [(call, (tmp_path / "file").stat().st_ino), (call, tmp_path.stat().st_ino)]


def test_a_file_system_without_it(synced: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(descriptor: int, command: int) -> int:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(files, "FULL_SYNC", F_FULLFSYNC)
    monkeypatch.setattr(fcntl, "fcntl", refused)
    files.sync(tmp_path)
    assert synced == [("fsync", tmp_path.stat().st_ino)]
