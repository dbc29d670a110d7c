"""What native code writes to the process's standard error."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Within it, file descriptor 2 is a file: for libraries that log there whatever they are told. Yields what was written so far. It is
    the process's, so other threads' lines are caught too."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def written() -> str:
            return os.pread(file.fileno(), 2**20, 0).decode(errors="replace")

        try:
            yield written
        finally:
            os.dup2(kept, 2)
            os.close(kept)
