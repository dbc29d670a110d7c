"""Watches another process's memory: `python memory_watch.py PID INTERVAL`, a small process of its own.

It samples the process every INTERVAL seconds, and answers each line on standard input with one line of JSON about the time since
the line before: `now` and `peak` as [anonymous bytes, resident bytes], and `points`, [monotonic seconds, anonymous bytes]. It ends
with its standard input. Standard library only, so that it starts in a few milliseconds and takes 10 MB.

On Linux the figures are /proc's; pages that were swapped are anonymous too. `smaps_rollup` is exact, but walks the page tables: 0.6 ms for
a small process and 3 ms with 500 MB of a mapped file resident. `status` takes 0.01 ms, but sums per-thread counters that may lag by some
64 pages a thread. So `status` is read at every interval, and the exact file besides as often as costs at most ROLLUP_SHARE of one core.

On macOS the figure is the footprint, which is what iOS holds an app to: mostly anonymous pages, those that were compressed too. No
Mac has run this yet: the layout is that of Apple's <sys/resource.h>, and the tests put a function of their own in the system's place.
"""

from __future__ import annotations

import functools
import json
import os
import select
import struct
import sys
import time
from collections.abc import Callable

ROLLUP_SHARE = 0.05
MOST_POINTS = 4000  # between two questions; then every two become the higher

# struct rusage_info_v0 of macOS: a UUID, then ten counters.
RUSAGE_INFO_V0 = 0
RUSAGE_INFO = struct.Struct("=16s10Q")
RESIDENT_SIZE, PHYS_FOOTPRINT = 7, 8


def fields(path: str, anonymous: bytes, rss: bytes, swapped: bytes = b"Swap:") -> tuple[int, int] | None:
    """Two fields of a /proc file in bytes, or None when the file or one of them is not there. What is swapped counts as anonymous."""
    try:
        with open(path, "rb", buffering=0) as file:
            lines = file.read(8192).splitlines()
    except OSError:
        return None
    found = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith((anonymous, rss, swapped))}
    return (found[anonymous] + found.get(swapped, 0), found[rss]) if {anonymous, rss} <= found.keys() else None


def exact(pid: int | str) -> tuple[int, int] | None:
    """Anonymous and resident bytes by smaps_rollup."""
    return fields(f"/proc/{pid}/smaps_rollup", b"Anonymous:", b"Rss:")


def quick(pid: int | str) -> tuple[int, int] | None:
    """The same by status, and on macOS."""
    return fields(f"/proc/{pid}/status", b"RssAnon:", b"VmRSS:", b"VmSwap:") or footprint(pid)


def footprint(pid: int | str) -> tuple[int, int] | None:
    """The footprint and the resident bytes of a process of the same user; None on other systems than macOS."""
    import ctypes  # here, so that Linux' watcher starts without it

    ask = proc_pid_rusage()
    if ask is None:
        return None
    answer = ctypes.create_string_buffer(RUSAGE_INFO.size)
    if ask(os.getpid() if pid == "self" else int(pid), RUSAGE_INFO_V0, answer):
        return None
    values = RUSAGE_INFO.unpack(answer.raw)
    return values[PHYS_FOOTPRINT], values[RESIDENT_SIZE]


@functools.cache
def proc_pid_rusage() -> Callable[..., int] | None:
    """The function of macOS' C library, or None."""
    import ctypes

    library = ctypes.CDLL(None)
    if not hasattr(library, "proc_pid_rusage"):
        return None
    found = library.proc_pid_rusage
    found.argtypes, found.restype = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p), ctypes.c_int
    return found


def watch(pid: int, interval: float) -> None:
    rollup_due = 0.0
    peak, points = (0, 0), []
    while True:
        asked = bool(select.select([0], [], [], interval)[0])
        if asked and not os.read(0, 1):
            return
        start = time.monotonic()
        now = exact(pid) if asked or start >= rollup_due else None
        if now:
            rollup_due = start + (time.monotonic() - start) * (1 + 1 / ROLLUP_SHARE)
        now = now or quick(pid)
        if now is None:
            return
        peak = (max(peak[0], now[0]), max(peak[1], now[1]))
        points.append((start, now[0]))
        if len(points) == MOST_POINTS:  # an even number
            points = [max(pair, key=lambda point: point[1]) for pair in zip(points[::2], points[1::2])]
        if asked:
            print(json.dumps({"now": now, "peak": peak, "points": points}), flush=True)
            peak, points = (0, 0), []


if __name__ == "__main__":
    try:
        watch(int(sys.argv[1]), float(sys.argv[2]))
    except BrokenPipeError:  # who asked is gone, and so is whom to complain to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
