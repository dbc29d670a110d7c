"""Files and directories that are written whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lcsb_mobile.errors import OutputExistsError, StorageError
from lcsb_mobile.io.storage import advice

# macOS: its fsync leaves what was written in the drive's own memory, from where a loss of power takes it.
FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


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
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed over `path`, otherwise removed."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
    temporary = Path(name)
    try:
        with storage_errors(path):
            yield temporary
            os.chmod(temporary, 0o644)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_directory(path: Path, force: bool) -> Iterator[Path]:
    """Yields a temporary directory beside `path`; on success it takes the place of `path`, otherwise it is removed.

    A crash leaves `path` as it was, or the new directory whole: where the system can, old and new change places in one step.
    """
    check_output(path, force)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    aside = temporary.with_name(temporary.name + ".old")
    try:
        with storage_errors(path):
            yield temporary
            os.chmod(temporary, 0o755)
            for file in sorted(temporary.rglob("*")):
                sync(file)
            sync(temporary)
            if not (path.exists() and _exchange(temporary, path)):
                if path.exists():
                    path.rename(aside)
                temporary.rename(path)
            sync(path.parent)
    finally:
        if aside.exists() and not path.exists():
            aside.rename(path)
        for left in (temporary, aside):
            _remove(left)


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
