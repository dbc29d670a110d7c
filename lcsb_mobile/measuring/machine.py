"""What this machine has: memory that is free, cores, and a directory on a disk."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path


def available_memory() -> int | None:
    """Bytes that a new process can have without swapping, as Linux estimates them; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def physical_cores() -> int:
    """Cores that this process may use, two threads of one core counted once: a second one gives matrix products nothing."""
    if not hasattr(os, "sched_getaffinity"):
        return _from_sysctl("hw.physicalcpu") or os.cpu_count() or 1
    cores = set()
    for processor in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        cores.add(siblings.read_text(encoding="ascii") if siblings.is_file() else str(processor))
    return len(cores)


def _from_sysctl(name: str) -> int | None:
    """A number of 32 bits that macOS knows by a name; None where there is none."""
    ask = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    number, size = ctypes.c_int32(), ctypes.c_size_t(4)
    if ask is None or ask(name.encode(), ctypes.byref(number), ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return number.value


def scratch_directory() -> Path:
    """For large files: what TMPDIR names, or else a disk. /tmp is memory on many systems, and files in it would pass for none at all."""
    if os.environ.get("TMPDIR"):
        return Path(tempfile.gettempdir())
    disk = Path("/var/tmp")
    return disk if os.access(disk, os.W_OK) else Path(tempfile.gettempdir())
