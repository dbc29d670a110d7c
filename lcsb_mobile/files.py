"""Files and directories that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lcsb_mobile.errors import OutputExistsError, StorageError


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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an OSError while writing below `path` into a StorageError that names it."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}; free some space or choose another place") from error


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

    A crash leaves `path` as it was. With `force` an existing directory is set aside just before the rename and deleted
    after it, so that the old one is lost only once the new one stands.
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
            if path.exists():
                path.rename(aside)
            temporary.rename(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists():
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(path)
