"""What native code writes to the process's standard error."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Within it, file descriptor 2 is a file, and so is Python's own stream, through which a binding may lead what its library writes:
    for libraries that log there whatever they are told. Yields what was written so far. Both are the process's, so other threads' lines
    are caught too."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file, os.fdopen(os.dup(file.fileno()), "w") as stream, redirect_stderr(stream):
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def written() -> str:
            stream.flush()
            return os.pread(file.fileno(), 2**20, 0).decode(errors="replace")

        try:
            yield written
        finally:
            os.dup2(kept, 2)
            os.close(kept)
