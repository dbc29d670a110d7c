"""A mapped file that is cut short while it is in use. Reading what is gone is a SIGBUS, which ends a process without a word."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from pathlib import Path

from lcsb_mobile.io.bounded import printable

MAPS = Path("/proc/self/maps")
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+ +(/.*)")

_kept: list[object] = []  # what C has the address of


def report_mapped_faults() -> None:
    """From now on a SIGBUS is said in one line on standard error, and the process ends with exit code 1.

    The handler is C's: one of Python's would wait for the instruction to end that cannot. It is called in whichever thread the fault is,
    and returns to none.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_fault)
    _kept.append(handler)
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    library.signal(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))


def _fault(number: int) -> None:
    try:
        names = " and ".join(map(printable, cut_short())) or "a file that is in use"
        text = f"error: {names}: was cut short, or its disk failed, while it was in use; restore it and try again\n"
        os.write(2, text.encode(errors="replace"))
    finally:
        os._exit(1)


def cut_short() -> list[str]:
    """Files of which more is mapped than they have; none where the system does not say what is mapped. Programs are left out: of these more
    may be mapped from the start, which is never read."""
    try:
        found = MAPPING.findall(MAPS.read_text("utf-8", "surrogateescape"))
    except OSError:
        return []
    ends: dict[str, int] = {}
    programs = {path for *_, access, _, path in found if "x" in access}
    for start, end, _, offset, path in found:
        ends[path] = max(ends.get(path, 0), int(offset, 16) + int(end, 16) - int(start, 16))
    page = os.sysconf("SC_PAGE_SIZE")
    return [path for path, end in ends.items() if path not in programs and os.path.isfile(path) and os.path.getsize(path) <= end - page]
