"""`shrink_corpus.py`: of the inputs in `build/fuzz`, those that reach lines of the package that the corpus does not, into `corpus/`.

The smallest first, at most MOST a reader, none above BYTES.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from readers import CORPUS, READERS

from lcsb_mobile.errors import LcsbError

FOUND = Path("build/fuzz")
MOST, BYTES = 12, 12_000

Lines = set[tuple[str, int]]


def lines_of(reader: str, data: bytes) -> Lines:
    """The package's lines that reading `data` runs, and the exception that it ends with, if it is none of ours."""
    reached: Lines = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if "lcsb_mobile" not in name:
            return None
        reached.add((name, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        READERS[reader](data)
    except LcsbError:
        pass
    finally:
        sys.settrace(None)
    return reached


def shrink(reader: str) -> tuple[int, int]:
    """How many inputs there were, and how many are new in the corpus."""
    corpus = CORPUS / reader
    reached: Lines = set()
    for path in corpus.iterdir():
        reached |= lines_of(reader, path.read_bytes())
    found = sorted((FOUND / reader).iterdir(), key=lambda path: path.stat().st_size) if (FOUND / reader).exists() else []
    kept = 0
    for path in found:
        data = path.read_bytes()
        if kept == MOST or len(data) > BYTES:
            break
        if more := lines_of(reader, data) - reached:
            reached |= more
            kept += 1
            (corpus / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return len(found), kept


def main() -> None:
    for reader in READERS:
        found, kept = shrink(reader)
        print(f"{reader}: {found} inputs, {kept} kept")


if __name__ == "__main__":
    main()
