"""What is wrong with a disk, and what to do about it: each error has advice of its own, and no other gets it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from lcsb_mobile.errors import StorageError

SPACE, PLACE = "free some space there", "choose another place"
ADVICE = {
    errno.ENOSPC: f"{SPACE} or {PLACE}",
    errno.EDQUOT: f"your share of that disk is used up: {SPACE} or {PLACE}",
    errno.EFBIG: f"its file system, or `ulimit -f`, allows no file so large: {PLACE}, or raise the limit",
    errno.EROFS: f"nothing can be written to that disk: {PLACE}",
    errno.EACCES: f"it is not yours to write to: {PLACE}, or have its permissions changed",
    errno.EPERM: f"it is not yours to change: {PLACE}, or have its permissions changed",
    errno.EMFILE: "this process has as many files open as it may: raise the limit, `ulimit -n`",
    errno.ENFILE: "the system has as many files open as it may: close other programs and try again",
    errno.ENOENT: f"a directory of its path is not there any more: {PLACE}",
    errno.ENOTDIR: f"a part of its path is a file: {PLACE}",
    errno.EISDIR: f"it is a directory: {PLACE}",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EIO: f"the disk or its connection fails: {PLACE}, and keep a copy of what is on it",
}
OTHERWISE = PLACE  # of an error that is none of these


def advice(error: OSError) -> str:
    return ADVICE.get(error.errno or 0, OTHERWISE)


def scratch_advice(error: OSError) -> str:
    """Of a temporary file, whose place is chosen by TMPDIR."""
    return advice(error).replace(PLACE, "name a directory on another disk by TMPDIR")


def check_writable(path: Path) -> None:
    """Raises StorageError where a file could not be made at `path`, or replaced: before hours of work, not after. Leaves nothing."""
    if path.is_dir():
        raise _refused(path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    directory = path.parent
    try:
        while not directory.exists():
            directory = directory.parent
        with tempfile.TemporaryFile(dir=directory, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot be written: {error.strerror or error}; {advice(error)}")
