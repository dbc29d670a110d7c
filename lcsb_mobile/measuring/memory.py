"""What this process occupies while it trains: peaks, a timeline and peaks by phase.

Anonymous memory is what a phone counts against an app: it cannot be dropped and read again, as the pages of a mapped file can. On
macOS the figure is the footprint (`memory_watch`). Where a system gives neither, no figure stands in its place: resident memory
counts pages of files too.

The samples are taken by a small process beside this one (`memory_watch`), not by a thread: ONNX Runtime's training API holds
Python's lock for a whole step, so a thread would see nothing of what happens inside it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

from lcsb_mobile.measuring import memory_watch

TIMELINE_POINTS = 2000
# Fewer than the resident pages of libraries in a process that has imported ONNX Runtime and nothing else: 36 to 53 MB, by how many of them
# the system had cached, with Python 3.11, NumPy 2.4 and ONNX Runtime 1.32 on Linux x86-64.
LIBRARY_BYTES = 30_000_000

Usage = tuple[int | None, int]  # anonymous bytes (None where the system does not say), resident bytes


def process_memory() -> Usage:
    """Anonymous and resident bytes of this process now; where the system does not say: None, and the highest resident size so
    far."""
    return memory_watch.exact("self") or memory_watch.quick("self") or _from_getrusage()


def estimated_anonymous(resident: int) -> int:
    """Of a process with its runtime imported, where the system does not say: what is resident but for the libraries. High rather than
    low: the highest resident size so far may be gone, and torch's libraries are larger."""
    return max(0, resident - LIBRARY_BYTES)


def trim_heap() -> None:
    """Gives what the C library keeps of freed memory back to the system, as a phone's allocator does by itself (glibc only)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class PhaseUsage:
    """Over all times that a phase ran: its seconds, and the peak of anonymous bytes."""

    seconds: float
    peak: int | None


@final
class MemorySampler:
    """Samples this process every `interval` seconds between entering and leaving the context.

    What was sampled is taken in by `sample` and `mark`, which the training loop calls between its steps: only then do the peaks
    move, and `exceeded` becomes true once more than `limit` bytes were anonymous. Where the system does not say what is,
    its figures are None, the timeline is empty, nothing is ever exceeded, and `peak_rss` alone is known.
    """

    def __init__(self, interval: float = 0.01, limit: int | None = None) -> None:
        self.interval = interval
        self.limit = limit
        self.exceeded = False
        self.peak_anonymous: int | None = None
        self.peak_rss = 0
        self._timeline = Timeline(TIMELINE_POINTS)
        self._phases: dict[str, PhaseUsage] = {}
        self._phase: str | None = None
        self._phase_peak: int | None = None
        self._phase_since = 0.0
        self._origin = 0.0
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MemorySampler:
        self._origin = time.monotonic()
        if memory_watch.quick("self"):
            script = str(Path(memory_watch.__file__))
            command = [sys.executable, "-I", "-S", script, str(os.getpid()), str(self.interval)]
            # In a session of its own: a terminal's Ctrl-C, or its end, is for this process alone.
            self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.sample()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.mark(None)
        if self._watcher is not None:
            self._watcher.communicate()

    @property
    def timeline(self) -> list[tuple[float, int]]:
        """Seconds since the start and anonymous bytes, at most TIMELINE_POINTS of them."""
        return self._timeline.points()

    @property
    def phases(self) -> Mapping[str, PhaseUsage]:
        """The phases that have ended, in the order of their first end."""
        return dict(self._phases)

    def mark(self, phase: str | None) -> None:
        """From now until the next mark the process is in `phase` (None: in none)."""
        used = self.sample()
        now = time.monotonic()
        if self._phase is not None:
            before = self._phases.get(self._phase, PhaseUsage(0.0, None))
            self._phases[self._phase] = PhaseUsage(before.seconds + now - self._phase_since, _higher(before.peak, self._phase_peak))
        self._phase, self._phase_since, self._phase_peak = phase, now, used

    def sample(self) -> int | None:
        """Takes in all samples since the last call, and one of now; returns the anonymous bytes of now."""
        (anonymous, _), (peak, peak_rss), points = self._ask()
        self.peak_anonymous = _higher(self.peak_anonymous, peak)
        self.peak_rss = max(self.peak_rss, peak_rss)
        self._phase_peak = _higher(self._phase_peak, peak)
        for seconds, value in points:
            self._timeline.add(seconds - self._origin, value)
        self.exceeded = self.exceeded or (self.limit is not None and peak is not None and peak > self.limit)
        return anonymous

    def _ask(self) -> tuple[Usage, Usage, list[tuple[float, int]]]:
        """(now, peak, points) since the last call."""
        if self._watcher is not None and self._watcher.stdin is not None and self._watcher.stdout is not None:
            try:
                self._watcher.stdin.write(b"\n")
                self._watcher.stdin.flush()
                answer: dict[str, Any] = json.loads(self._watcher.stdout.readline())
                return tuple(answer["now"]), tuple(answer["peak"]), [(seconds, value) for seconds, value in answer["points"]]
            except (OSError, ValueError):  # someone has killed it: what this process sees of itself is better than nothing
                self._watcher = None
        now = process_memory()
        return now, now, [] if now[0] is None else [(time.monotonic(), now[0])]


class Timeline:
    """A series of any length in at most `limit` points, an even number: when it is full, of every two the higher stays."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stride = 1  # samples that one point stands for
        self._points: list[tuple[float, int]] = []
        self._pending: tuple[float, int] | None = None
        self._pending_count = 0

    def add(self, seconds: float, value: int) -> None:
        if self._pending is None or value > self._pending[1]:
            self._pending = (seconds, value)
        self._pending_count += 1
        if self._pending_count < self._stride:
            return
        self._points.append(self._pending)
        self._pending, self._pending_count = None, 0
        if len(self._points) == self._limit:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [max(pair, key=lambda point: point[1]) for pair in pairs]
            self._stride *= 2

    def points(self) -> list[tuple[float, int]]:
        return self._points + ([] if self._pending is None else [self._pending])


def _higher(first: int | None, second: int | None) -> int | None:
    return max((value for value in (first, second) if value is not None), default=None)


def _from_getrusage() -> Usage:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None, peak if sys.platform == "darwin" else peak * 1024
