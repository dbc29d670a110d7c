"""Arrays that grow in an unnamed temporary file and are then mapped, so that their length costs no anonymous memory."""

from __future__ import annotations

import contextlib
import mmap
import tempfile
import weakref
from typing import IO, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from lcsb_mobile.errors import StorageError
from lcsb_mobile.io.storage import scratch_advice
from lcsb_mobile.measuring.machine import scratch_directory

Number = TypeVar("Number", bound=np.number[Any])


class Spool(Generic[Number]):
    """Append, then map. The file has no name and goes with its last mapping. Raises StorageError when the disk is full.

    It is written through the file, not the mapping: writing to a mapped file on a full disk would end the process.
    """

    def __init__(self, dtype: type[Number]) -> None:
        self._dtype = dtype
        self._directory = scratch_directory()
        try:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - it is open until it is mapped
        except OSError as error:
            raise self._failed(error) from error
        weakref.finalize(self, _close, self._file)  # of what is never mapped

    def append(self, values: npt.ArrayLike) -> None:
        try:
            self._file.write(np.asarray(values, self._dtype).tobytes())
        except OSError as error:
            raise self._failed(error) from error

    def mapped(self, writable: bool = False) -> npt.NDArray[Number]:
        """All that was appended, one array. Nothing can be appended after it."""
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            with self._file as file:
                size = file.tell()
                file.flush()
                return np.frombuffer(mmap.mmap(file.fileno(), size, access=access), self._dtype) if size else np.empty(0, self._dtype)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(f"{self._directory}: temporary files of the data cannot be written ({error.strerror}); {scratch_advice(error)}")


def _close(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk, which was said when it was written to
        file.close()
