"""What the machine has, where Linux' ways of asking are not there."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import pytest

from lcsb_mobile.measuring.machine import physical_cores


@pytest.fixture
def no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


def library(names: dict[bytes, int]) -> SimpleNamespace:
    """A C library with macOS' sysctlbyname, called through C."""

    def answer(name: bytes, number: int, size: int, new: int | None, new_size: int) -> int:
        if name not in names or new is not None or new_size:
            return -1
        assert ctypes.cast(size, ctypes.POINTER(ctypes.c_size_t))[0] == 4
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int32))[0] = names[name]
        return 0

    pointer = ctypes.c_void_p
    return SimpleNamespace(sysctlbyname=ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, pointer, pointer, pointer, ctypes.c_size_t)(answer))


def test_cores_of_a_mac(no_affinity: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of a core counted once, as on Linux."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library({b"hw.physicalcpu": 8, b"hw.logicalcpu": 16}))
    assert physical_cores() == 8


@pytest.mark.parametrize("found", [library({}), SimpleNamespace()])
def test_cores_where_only_processors_are_known(no_affinity: None, monkeypatch: pytest.MonkeyPatch, found: SimpleNamespace) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    assert physical_cores() == 16
