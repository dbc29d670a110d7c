"""What this process occupies while it trains: peaks, a timeline and peaks by phase, sampled from a thread.

Anonymous memory is what a phone counts against an app: it cannot be dropped and read again, as the pages of a mapped file
can. `/proc/self/smaps_rollup` states it exactly, but walks the page tables: measured 0.6 ms for a small process and 2.9 ms
with 500 MB of a mapped file resident. `/proc/self/status` takes 0.013 ms, but sums per-thread counters that older kernels
let lag by some 64 pages a thread. So the sampler reads `status` at every interval, and the exact file besides as often as
costs at most ROLLUP_SHARE of one core. At the default interval all of it stays under 6 % of one core, 0.2 % without the exact file.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import final

ROLLUP = Path("/proc/self/smaps_rollup")
STATUS = Path("/proc/self/status")
ROLLUP_SHARE = 0.05  # of one core's time
TIMELINE_POINTS = 2000

Usage = tuple[int | None, int]  # anonymous bytes (None where the system does not say), resident bytes


def process_memory() -> Usage:
    """Anonymous and resident bytes of this process now; without /proc: None, and the highest resident size so far."""
    usage = _fields(ROLLUP, b"Anonymous:", b"Rss:") or _fields(STATUS, b"RssAnon:", b"VmRSS:")
    return usage or _from_getrusage()


@dataclass(frozen=True)
class PhaseUsage:
    """Over all times that a phase ran: its seconds, and the peak of anonymous bytes (resident where those are unknown)."""

    seconds: float
    peak: int


@final
class MemorySampler:
    """Samples this process every `interval` seconds between entering and leaving the context.

    Once more than `limit` bytes are anonymous (resident where that is unknown), `exceeded` becomes true and `on_limit` is called
    once with the bytes found, in the sampling thread: it should set a flag that the trainer looks at, and return.
    """

    def __init__(self, interval: float = 0.01, limit: int | None = None, on_limit: Callable[[int], None] | None = None) -> None:
        self.interval = interval
        self.limit = limit
        self.exceeded = False
        self.peak_anonymous: int | None = None
        self.peak_rss = 0
        self._on_limit = on_limit
        self._timeline = Timeline(TIMELINE_POINTS)
        self._phases: dict[str, PhaseUsage] = {}
        self._phase: str | None = None
        self._phase_peak = 0
        self._phase_since = 0.0
        self._origin = 0.0
        self._rollup_due = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory sampler", daemon=True)

    def __enter__(self) -> MemorySampler:
        self._origin = time.perf_counter()
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()
        with self._lock:
            self._end_phase(time.perf_counter())

    @property
    def timeline(self) -> list[tuple[float, int]]:
        """Seconds since the start and anonymous bytes (resident where unknown), at most TIMELINE_POINTS of them."""
        with self._lock:
            return self._timeline.points()

    @property
    def phases(self) -> Mapping[str, PhaseUsage]:
        """The phases that have ended, in the order of their first end."""
        with self._lock:
            return dict(self._phases)

    def mark(self, phase: str | None) -> None:
        """From now until the next mark the process is in `phase` (None: in none). Samples at once, for the old one and the new."""
        used = self.sample()
        now = time.perf_counter()
        with self._lock:
            self._end_phase(now)
            self._phase, self._phase_since, self._phase_peak = phase, now, used

    def sample(self) -> int:
        """Takes one sample; returns the anonymous bytes (resident where those are unknown)."""
        anonymous, rss = self._read()
        used = rss if anonymous is None else anonymous
        with self._lock:
            if anonymous is not None:
                self.peak_anonymous = max(self.peak_anonymous or 0, anonymous)
            self.peak_rss = max(self.peak_rss, rss)
            self._phase_peak = max(self._phase_peak, used)
            self._timeline.add(time.perf_counter() - self._origin, used)
            first_excess = self.limit is not None and used > self.limit and not self.exceeded
            self.exceeded = self.exceeded or first_excess
        if first_excess and self._on_limit is not None:
            self._on_limit(used)
        return used

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self.sample()

    def _read(self) -> Usage:
        start = time.perf_counter()
        if start >= self._rollup_due and (exact := _fields(ROLLUP, b"Anonymous:", b"Rss:")):
            end = time.perf_counter()
            self._rollup_due = end + (end - start) / ROLLUP_SHARE
            return exact
        return _fields(STATUS, b"RssAnon:", b"VmRSS:") or _from_getrusage()

    def _end_phase(self, now: float) -> None:
        if self._phase is not None:
            before = self._phases.get(self._phase, PhaseUsage(0.0, 0))
            seconds = before.seconds + now - self._phase_since
            self._phases[self._phase] = PhaseUsage(seconds, max(before.peak, self._phase_peak))
            self._phase = None


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


def _fields(path: Path, anonymous: bytes, rss: bytes) -> tuple[int, int] | None:
    """Two fields of a /proc file in bytes, or None when the file or one of them is not there."""
    try:
        with path.open("rb", buffering=0) as file:
            lines = file.read(8192).splitlines()
    except OSError:
        return None
    found = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith((anonymous, rss))}
    return (found[anonymous], found[rss]) if len(found) == 2 else None


def _from_getrusage() -> Usage:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None, peak if sys.platform == "darwin" else peak * 1024
