"""What was written is on the disk when a write is said to be done (macOS has a call of its own for it), with the mode that it should have,
and what was not written to its end is removed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.signals import as_usual

from lcsb_mobile.errors import OutputExistsError
from lcsb_mobile.io import files
from lcsb_mobile.io.files import replace_atomically, replace_directory

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


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_that_open_gives(umask: int, tmp_path: Path) -> None:
    with replace_atomically(tmp_path / "file") as temporary:
        temporary.write_text("x")
    with replace_directory(tmp_path / "directory", force=False) as directory:
        (directory / "inner").mkdir()
        (directory / "inner" / "file").write_text("x")
    assert mode(tmp_path / "file") == mode(tmp_path / "directory" / "inner" / "file") == 0o666 & ~umask
    assert mode(tmp_path / "directory") == mode(tmp_path / "directory" / "inner") == 0o777 & ~umask


def test_what_is_private_is_its_owners_alone(umask: int, tmp_path: Path) -> None:
    with replace_atomically(tmp_path / "file", private=True) as temporary:
        assert mode(temporary) == 0o600
        temporary.write_text("x")
    with replace_directory(tmp_path / "directory", force=False, private=True) as directory:
        assert mode(directory) == 0o700
        (directory / "file").write_text("x")
    assert mode(tmp_path / "file") == mode(tmp_path / "directory" / "file") == 0o600
    assert mode(tmp_path / "directory") == 0o700


@pytest.mark.parametrize("private", [False, True])
def test_what_is_replaced_keeps_its_mode(umask: int, private: bool, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for name in ("file", "directory/file"):
        (tmp_path / name).write_text("old")
        (tmp_path / name).chmod(0o640)
    (tmp_path / "directory").chmod(0o750)
    with replace_atomically(tmp_path / "file", private) as temporary:
        temporary.write_text("new")
    with replace_directory(tmp_path / "directory", True, private) as directory:
        (directory / "file").write_text("new")
    assert mode(tmp_path / "file") == mode(tmp_path / "directory" / "file") == 0o640
    assert mode(tmp_path / "directory") == 0o750 and (tmp_path / "directory" / "file").read_text() == "new"


WRITING = """
import sys, time
from pathlib import Path
from lcsb_mobile.io.files import replace_atomically, replace_directory
path = Path(sys.argv[1])
with replace_directory(path, force=True) as directory, replace_atomically(path.with_name("file")) as file:
    (directory / "weights.bin").write_bytes(bytes(1000))
    print("writing", flush=True)
    time.sleep(60)
"""


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes a directory and a file beside it, and does not come to the end."""
    command = [sys.executable, "-c", WRITING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=as_usual) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_unfinished(number: signal.Signals, tmp_path: Path) -> None:
    with writing(tmp_path / "bundle") as process:
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        assert process.wait(20) == (-signal.SIGINT if number == signal.SIGINT else 128 + number)
    assert not list(tmp_path.iterdir())


def test_the_next_one_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    others = {".bundle.0123abcd", ".bundle.0123abcd.part.txt", ".other.0123abcd.part"}
    for name in others:
        (tmp_path / name).mkdir()
    with writing(tmp_path / "bundle") as process:
        process.kill()
        process.wait(20)
    assert len(list(tmp_path.iterdir())) == len(others) + 2
    for name in ("bundle", "file"):
        files.remove_leftovers(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == others


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with writing(tmp_path / "bundle"):
        before = set(tmp_path.iterdir())
        with replace_directory(tmp_path / "bundle", force=False) as directory:
            (directory / "file").write_text("x")
        assert set(tmp_path.iterdir()) == {*before, tmp_path / "bundle"}


def test_a_directory_that_was_moved_aside_is_put_back(tmp_path: Path) -> None:
    aside, unfinished = tmp_path / ".bundle.0123abcd.part.old", tmp_path / ".bundle.0123abcd.part"
    aside.mkdir()
    unfinished.mkdir()
    (aside / "manifest.json").write_text("old")
    with pytest.raises(OutputExistsError), replace_directory(tmp_path / "bundle", force=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"] and (tmp_path / "bundle" / "manifest.json").read_text() == "old"
