"""Files and directories that are written whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lcsb_mobile.errors import OutputExistsError, StorageError
from lcsb_mobile.io.storage import advice

# macOS: its fsync leaves what was written in the drive's own memory, from where a loss of power takes it.
FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)

# What is being written is called .NAME.xxxxxxxx.part beside NAME; what it replaces, where two directories cannot change places, .part.old.
UNFINISHED, ASIDE = ".part", ".old"
LEFTOVER = r"[0-9a-f]{8}\.part(\.old)?"
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Asks the system to put a file's or a directory's content on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if FULL_SYNC is not None:
            with suppress(OSError):  # not every file system has it; fsync then says what else is wrong
                fcntl.fcntl(descriptor, FULL_SYNC)
                return
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an OSError while writing below `path` into a StorageError that names it."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}; {advice(error)}") from error


def check_output(path: Path, force: bool) -> None:
    """Raises OutputExistsError if `path` exists and may not be replaced."""
    if path.exists() and not force:
        raise OutputExistsError(f"{path}: already exists; choose another path or pass --force to replace it")


@contextmanager
def replace_atomically(path: Path, private: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed over `path`, otherwise removed.

    The file has the mode of the one that it replaces, else 600 if it is `private`, else what `open` would give it.
    """
    with ended_by_signals(), _unfinished(path, private, directory=False) as temporary, storage_errors(path):
        yield temporary
        _give_mode(temporary, path, private)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)


@contextmanager
def replace_directory(path: Path, force: bool, private: bool = False) -> Iterator[Path]:
    """Yields a temporary directory beside `path`; on success it takes the place of `path`, otherwise it is removed.

    A crash leaves `path` as it was, or the new directory whole: where the system can, old and new change places in one step. What a
    killed process left, the next one removes. Modes are as in `replace_atomically`, file by file.
    """
    with storage_errors(path):
        remove_leftovers(path)
    check_output(path, force)
    with ended_by_signals(), _unfinished(path, private, directory=True) as temporary, storage_errors(path):
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _give_mode(file, path / file.relative_to(temporary), private)
            sync(file)
        _give_mode(temporary, path, private)
        sync(temporary)
        if not (path.exists() and _exchange(temporary, path)):
            aside = temporary.with_name(temporary.name + ASIDE)
            if path.exists():
                path.rename(aside)
            try:
                temporary.rename(path)
            except BaseException:
                if aside.exists():
                    aside.rename(path)
                raise
            _remove(aside)
        sync(path.parent)


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes left beside `path`: what has such a name and is locked by nobody. A directory that was moved out of
    the way, with nothing in its place yet, is put back."""
    pattern = re.compile(re.escape(f".{path.name}.") + LEFTOVER)
    found: list[Path] = []
    with suppress(OSError):  # a directory that may be written and not be read
        found = sorted(left for left in path.parent.iterdir() if pattern.fullmatch(left.name) and not left.is_symlink())
    for left in found:
        written = left.with_name(left.name.removesuffix(ASIDE))
        with suppress(OSError):
            descriptor = os.open(written if written.exists() else left, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left.name.endswith(ASIDE) and not path.exists():
                    left.rename(path)
                else:
                    _remove(left)
            finally:
                os.close(descriptor)


@contextmanager
def _unfinished(path: Path, private: bool, directory: bool) -> Iterator[Path]:
    """A new file or directory beside `path`, locked so that nobody takes it for a leftover; what has its name at the end is removed."""
    descriptor = None
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            while descriptor is None:
                temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
                if directory:
                    temporary.mkdir(mode=0o700 if private else 0o777)
                else:
                    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666))
                descriptor = _locked(temporary)
        yield temporary
    finally:
        if descriptor is not None:
            _remove(temporary)
            os.close(descriptor)


def _locked(temporary: Path) -> int | None:
    """A descriptor with the lock, or without where the file system knows none; None where another process was about to remove it."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        return descriptor
    if temporary.exists():
        return descriptor
    os.close(descriptor)
    return None


def _give_mode(new: Path, old: Path, private: bool) -> None:
    """The mode of what is replaced; else, of what is private, nothing for anybody but its owner."""
    if old.exists() and new.is_dir() == old.is_dir():
        new.chmod(stat.S_IMODE(old.stat().st_mode))
    elif private:
        new.chmod(stat.S_IMODE(new.stat().st_mode) & 0o700)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP end the process by an exception, so that what is unfinished is removed. Where somebody handles or
    ignores them already, and in another thread than the main one, nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number in ENDING_SIGNALS if main and signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _: object) -> None:
        for other in taken:  # the removal is not to be interrupted
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _exchange(first: Path, second: Path) -> bool:
    """Two paths change places in one step: Linux' renameat2, macOS' renamex_np. False, and nothing done, where there is neither."""
    library, paths = ctypes.CDLL(None), (os.fsencode(first), os.fsencode(second))
    if hasattr(library, "renameat2"):
        at_working_directory, exchange = -100, 2
        done = library.renameat2(at_working_directory, paths[0], at_working_directory, paths[1], exchange)
    elif hasattr(library, "renamex_np"):
        swap = 2
        done = library.renamex_np(*paths, swap)
    else:
        return False
    return bool(done == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
