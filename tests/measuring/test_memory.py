"""The memory sampler on real allocations."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bundles import python
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.measuring import memory_watch
from lcsb_mobile.measuring.memory import LIBRARY_BYTES, MemorySampler, PhaseUsage, Timeline, estimated_anonymous, process_memory

MB = 2**20
linux = pytest.mark.skipif(memory_watch.exact("self") is None, reason="needs /proc/self/smaps_rollup")


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


def test_what_is_swapped_is_anonymous(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("VmRSS:\t 900 kB\nRssAnon:\t 290 kB\nVmSwap:\t 60 kB\n")
    assert memory_watch.fields(str(path), b"RssAnon:", b"VmRSS:", b"VmSwap:") == (350 * 1024, 900 * 1024)
    path.write_text("Rss: 900 kB\nAnonymous: 300 kB\nSwap: 70 kB\nSwapPss: 1 kB\n")
    assert memory_watch.fields(str(path), b"Anonymous:", b"Rss:") == (370 * 1024, 900 * 1024)
    path.write_text("Rss: 900 kB\nAnonymous: 300 kB\n")  # a kernel without swap
    assert memory_watch.fields(str(path), b"Anonymous:", b"Rss:") == (300 * 1024, 900 * 1024)
    path.write_text("Rss: 900 kB\nSwap: 70 kB\n")
    assert memory_watch.fields(str(path), b"Anonymous:", b"Rss:") is None


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
def test_what_happens_while_the_lock_is_held_is_seen() -> None:
    """As in a step of the training API: one call into C that allocates, touches and frees, during which no thread of Python runs."""
    library = ctypes.PyDLL(None)  # PyDLL keeps Python's lock
    library.malloc.restype = ctypes.c_void_p
    library.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    library.free.argtypes = (ctypes.c_void_p,)
    before, _ = process_memory()
    assert before is not None
    with MemorySampler() as sampler:
        block = library.malloc(ctypes.c_size_t(64 * MB))
        library.memset(block, 1, 64 * MB)
        library.usleep(50_000)
        library.free(block)
        sampler.sample()
        assert sampler.peak_anonymous is not None and abs(sampler.peak_anonymous - before - 64 * MB) < 4 * MB


@linux
def test_a_limit_that_was_exceeded_meanwhile_shows_at_the_next_sample() -> None:
    before, _ = process_memory()
    assert before is not None
    with MemorySampler(limit=before + 32 * MB) as sampler:
        block = touched(64)
        time.sleep(0.05)
        assert block[0] == 1 and not sampler.exceeded
        del block
        sampler.sample()
        assert sampler.exceeded


def test_no_limit_never_fires() -> None:
    with MemorySampler() as sampler:
        pass
    assert not sampler.exceeded
    assert sampler.timeline and sampler.peak_rss > MB


PHASES = """
import json, time
import numpy as np
from lcsb_mobile.measuring.memory import MemorySampler
start = time.perf_counter()
with MemorySampler() as sampler:
    for _ in range(2):
        sampler.mark("forward")
        time.sleep(0.02)
        sampler.mark("backward")
        block = np.ones(48 * 2**20, np.uint8)
        time.sleep(0.04)
        del block
    sampler.mark(None)
    time.sleep(0.05)
elapsed = time.perf_counter() - start
print(json.dumps([elapsed, [[name, usage.seconds, usage.peak] for name, usage in sampler.phases.items()]]))
"""


@linux
def test_phases_have_their_own_seconds_and_peaks() -> None:
    """In a process of its own: in this one, what other tests left may be freed in the middle."""
    elapsed, phases = json.loads(python(PHASES).stdout)
    (first, forward, low), (second, backward, high) = phases
    assert (first, second) == ("forward", "backward")
    assert 40 * MB < high - low < 56 * MB
    assert forward >= 0.04 and backward >= 0.08
    assert forward + backward <= elapsed - 0.05  # what follows the last phase is of none


def test_a_last_phase_ends_with_the_context() -> None:
    with MemorySampler() as sampler:
        sampler.mark("step")
        assert not sampler.phases
    assert sampler.phases["step"].peak > 0


def test_an_exception_ends_the_sampling() -> None:
    with pytest.raises(KeyError), MemorySampler() as sampler:
        raise KeyError
    assert sampler._watcher is not None and sampler._watcher.returncode == 0


def test_a_killed_watcher_costs_no_run() -> None:
    with MemorySampler() as sampler:
        assert sampler._watcher is not None
        sampler._watcher.kill()
        sampler._watcher.wait()
        assert sampler.sample() > MB
    assert sampler.peak_rss > MB


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_watch, "fields", lambda *_: None)


def test_where_the_system_does_not_say(no_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is resident stands for nothing else: no figure, no timeline, and no limit that it could exceed."""
    monkeypatch.setattr(memory_watch, "footprint", lambda pid: None)
    anonymous, rss = process_memory()
    assert anonymous is None and rss > MB
    with MemorySampler(limit=1) as sampler:
        sampler.mark("forward")
        assert sampler.sample() is None
    assert sampler.peak_anonymous is None and sampler.peak_rss > MB
    assert not sampler.exceeded and sampler.timeline == []
    assert sampler.phases == {"forward": PhaseUsage(sampler.phases["forward"].seconds, None)}


def test_the_estimate_leaves_out_the_libraries() -> None:
    """How near it comes: tests_device, where a runtime is imported and nothing else."""
    assert estimated_anonymous(LIBRARY_BYTES + 7 * MB) == 7 * MB and estimated_anonymous(MB) == 0


# macOS


class FakeMac:
    """`proc_pid_rusage` as a C function of the real signature, over memory laid out as Apple's <sys/resource.h> has rusage_info_v0."""

    def __init__(self) -> None:
        self.answers = {os.getpid(): (30 * MB, 70 * MB)}  # footprint, resident
        self.asked: list[tuple[int, int]] = []
        self.written = 0
        self.function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(self.answer)

    def answer(self, pid: int, flavor: int, buffer: int) -> int:
        self.asked.append((pid, flavor))
        if pid not in self.answers:
            return -1
        names = "user_time system_time pkg_idle_wkups interrupt_wkups pageins wired_size resident_size phys_footprint"
        fields = dict.fromkeys([*names.split(), "proc_start_abstime", "proc_exit_abstime"], 2**63)
        fields["phys_footprint"], fields["resident_size"] = self.answers[pid]
        info = b"\xff" * 16 + b"".join(struct.pack("@Q", value) for value in fields.values())
        self.written = len(info)
        ctypes.memmove(buffer, info, len(info))
        return 0


@pytest.fixture
def mac(no_proc: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMac]:
    fake = FakeMac()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(proc_pid_rusage=fake.function))
    memory_watch.proc_pid_rusage.cache_clear()
    yield fake
    memory_watch.proc_pid_rusage.cache_clear()


def test_the_footprint_of_macos(mac: FakeMac) -> None:
    assert process_memory() == (30 * MB, 70 * MB)
    assert mac.asked == [(os.getpid(), 0)] and mac.written == memory_watch.RUSAGE_INFO.size  # no byte beyond
    assert memory_watch.quick(os.getpid() + 1) is None  # another user's, or none


def test_the_watcher_on_macos(mac: FakeMac, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own loop, run here: it is asked once, and ends when the process that it watches has."""
    monkeypatch.setattr(memory_watch.select, "select", lambda *_: ([0], [], []))
    monkeypatch.setattr(memory_watch.os, "read", lambda *_: b"x")
    printed: list[str] = []

    def print_once(text: str, flush: bool) -> None:
        printed.append(text)
        mac.answers.clear()

    monkeypatch.setattr("builtins.print", print_once)
    memory_watch.watch(os.getpid(), 0.01)
    assert [json.loads(text)["now"] for text in printed] == [[30 * MB, 70 * MB]]


def test_there_is_no_footprint_elsewhere() -> None:
    assert memory_watch.footprint("self") is None or memory_watch.sys.platform == "darwin"


@linux
def test_status_alone_is_close() -> None:
    exact, close = memory_watch.exact("self"), memory_watch.quick("self")
    assert exact is not None and close is not None and abs(exact[0] - close[0]) < 4 * MB  # counters lag by 64 pages a thread at most


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


def test_points_between_two_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher's own loop, run here: it is asked once after many samples, then its input ends."""
    samples = iter([*range(1, 60), 7])
    monkeypatch.setattr(memory_watch, "MOST_POINTS", 16)
    monkeypatch.setattr(memory_watch, "exact", lambda pid: None)
    monkeypatch.setattr(memory_watch, "quick", lambda pid: (next(samples), 100))
    asked = iter([False] * 59 + [True, True])
    monkeypatch.setattr(memory_watch.select, "select", lambda *_: ([0] if next(asked) else [], [], []))
    inputs = iter([b"x", b""])
    monkeypatch.setattr(memory_watch.os, "read", lambda *_: next(inputs))
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text, flush: printed.append(text))
    memory_watch.watch(1, 0.01)
    answer = json.loads(printed[0])
    assert answer["now"] == [7, 100] and answer["peak"] == [59, 100] and len(answer["points"]) <= 17
    assert max(value for _, value in answer["points"]) == 59
