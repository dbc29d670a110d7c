"""The memory sampler on real allocations."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile import memory
from lcsb_mobile.memory import MemorySampler, Timeline, process_memory

MB = 2**20
linux = pytest.mark.skipif(not memory.ROLLUP.exists(), reason="needs /proc/self/smaps_rollup")


def touched(megabytes: int) -> np.ndarray:
    return np.ones(megabytes * MB, np.uint8)


@linux
def test_an_allocation_shows_in_the_peak() -> None:
    before, _ = process_memory()
    assert before is not None
    with MemorySampler() as sampler:
        block = touched(64)
        time.sleep(0.05)
        del block
        time.sleep(0.05)
    assert sampler.peak_anonymous is not None
    assert abs(sampler.peak_anonymous - before - 64 * MB) < 4 * MB  # the interpreter's own allocations
    assert sampler.peak_rss > sampler.peak_anonymous
    values = [value for _, value in sampler.timeline]
    assert max(values) == sampler.peak_anonymous
    assert values[-1] < before + 4 * MB
    times = [seconds for seconds, _ in sampler.timeline]
    assert times == sorted(times) and 0.1 <= times[-1] < 5


@linux
def test_a_mapped_file_is_not_anonymous(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\1" * (64 * MB))
    before, rss_before = process_memory()
    assert before is not None
    with MemorySampler() as sampler:
        mapped = np.memmap(path, np.uint8, "r")
        assert mapped[::4096].sum() == 64 * MB // 4096
        time.sleep(0.03)
    assert sampler.peak_anonymous is not None
    assert sampler.peak_anonymous - before < 4 * MB
    assert sampler.peak_rss - rss_before > 60 * MB


@linux
def test_limit_is_reported_once_while_running() -> None:
    before, _ = process_memory()
    assert before is not None
    found: list[int] = []
    fired = threading.Event()

    def on_limit(used: int) -> None:
        found.append(used)
        fired.set()

    with MemorySampler(limit=before + 32 * MB, on_limit=on_limit) as sampler:
        assert not sampler.exceeded
        block = touched(64)
        assert fired.wait(5)
        assert sampler.exceeded
        time.sleep(0.05)
        assert block[0] == 1
    assert len(found) == 1 and found[0] > before + 32 * MB


def test_no_limit_never_fires() -> None:
    with MemorySampler() as sampler:
        pass
    assert not sampler.exceeded
    assert len(sampler.timeline) == 2  # one sample on entering, one on leaving


@linux
def test_phases_have_their_own_seconds_and_peaks() -> None:
    with MemorySampler() as sampler:
        for _ in range(2):
            sampler.mark("forward")
            time.sleep(0.02)
            sampler.mark("backward")
            block = touched(48)
            time.sleep(0.04)
            assert block[0] == 1
            del block
        sampler.mark(None)
        time.sleep(0.05)
    phases = sampler.phases
    assert list(phases) == ["forward", "backward"]
    assert phases["backward"].peak - phases["forward"].peak > 40 * MB
    assert 0.04 <= phases["forward"].seconds < 0.5
    assert 0.08 <= phases["backward"].seconds < 0.5


def test_a_last_phase_ends_with_the_context() -> None:
    with MemorySampler() as sampler:
        sampler.mark("step")
        assert not sampler.phases
    assert sampler.phases["step"].peak > 0


def test_an_exception_ends_the_sampling() -> None:
    with pytest.raises(KeyError), MemorySampler() as sampler:
        raise KeyError
    assert not sampler._thread.is_alive()


def test_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "ROLLUP", tmp_path / "nope")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "nope")
    anonymous, rss = process_memory()
    assert anonymous is None and rss > MB
    with MemorySampler(limit=1) as sampler:
        pass
    assert sampler.peak_anonymous is None and sampler.peak_rss > MB
    assert sampler.exceeded and sampler.timeline[0][1] > MB


@linux
def test_status_alone_is_close(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact, _ = process_memory()
    monkeypatch.setattr(memory, "ROLLUP", tmp_path / "nope")
    close, _ = process_memory()
    assert exact is not None and close is not None and abs(exact - close) < 4 * MB  # counters lag by 64 pages a thread at most


@given(st.lists(st.integers(0, 1000)), st.sampled_from([2, 4, 10]))
def test_timeline_is_bounded_and_keeps_the_maximum(values: list[int], limit: int) -> None:
    timeline = Timeline(limit)
    for index, value in enumerate(values):
        timeline.add(float(index), value)
    points = timeline.points()
    assert len(points) <= limit
    assert all(values[int(seconds)] == value for seconds, value in points)
    assert [seconds for seconds, _ in points] == sorted(seconds for seconds, _ in points)
    assert max((value for _, value in points), default=None) == max(values, default=None)
    if len(values) < limit:
        assert [value for _, value in points] == values


@pytest.mark.skipif(sys.platform != "linux", reason="the figure is for Linux")
def test_sampling_is_cheap() -> None:
    start, busy = time.perf_counter(), time.thread_time()
    sampler = MemorySampler()
    while time.perf_counter() < start + 0.3:
        sampler.sample()
        time.sleep(0.01)
    assert (time.thread_time() - busy) / 0.3 < 0.2  # 6 % when the machine is idle
