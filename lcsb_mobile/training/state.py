"""The state of a fine-tune in a mapped file: the system may write its pages out, so it takes no anonymous memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.errors import StorageError
from lcsb_mobile.io.storage import advice

CHUNK = 1 << 20  # bytes of a write


@dataclass(frozen=True)
class AdapterState:
    """Parameters and AdamW's moments, float32[N] each."""

    adapter: Float32Array
    first_moment: Float32Array
    second_moment: Float32Array

    def copy_from(self, other: AdapterState) -> None:
        for mine, values in zip(vars(self).values(), vars(other).values(), strict=True):
            np.copyto(mine, values)


def mapped_state(directory: Path, initial: Float32Array) -> AdapterState:
    """The state at the start of a run: `initial` and zero moments. The file has no name and goes with the process.

    Its space is reserved at once: writing to a mapped file on a full disk would end the process. Raises StorageError.
    """
    size = 3 * initial.nbytes
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            reserve(file, size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise StorageError(
            f"{directory}: {size} bytes for the adapter and its moments cannot be reserved ({error.strerror}); {advice(error)}"
        ) from error
    adapter, first, second = np.frombuffer(mapped, np.float32).reshape(3, initial.size)
    adapter[:] = initial
    return AdapterState(adapter, first, second)


def reserve(file: IO[bytes], size: int) -> None:
    """Makes an empty file `size` bytes long, with room on the disk for each of them. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, CHUNK):  # macOS: a file that is only made longer has holes, which are filled when they are written to
        file.write(bytes(min(CHUNK, size - start)))
    file.flush()
