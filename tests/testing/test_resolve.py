"""The resolver's run for other systems, without an index: a case that does not come out as expected is a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/testing"))

import resolve
from resolve import ARM_LINUX, INTEL_MAC, Case

BRINGS, LACKS = Case(ARM_LINUX, "3.12", ("export",), "torch", lacks="cuda"), Case(INTEL_MAC, "3.12", ("export",), lacks="torch")


@pytest.mark.parametrize(
    ("case", "found", "why_not", "fault"),
    [
        (BRINGS, {"torch"}, "", ""),
        (BRINGS, {"numpy"}, "", "expected torch, found it is not asked for"),
        (BRINGS, set(), "cause: no wheels", "expected torch, found cause: no wheels"),
        (BRINGS, {"torch", "cuda"}, "", "expected no cuda, found it"),
        (LACKS, set(), "cause: torch==2 has no wheels", ""),
        (LACKS, {"torch"}, "", "expected none for want of torch, found all of it"),
        (LACKS, set(), "cause: numpy has no wheels", "expected none for want of torch, found cause: numpy has no wheels"),
    ],
)
def test_faults(case: Case, found: set[str], why_not: str, fault: str) -> None:
    assert resolve.fault(case, found, why_not) == fault


@pytest.mark.parametrize(
    ("result", "code", "line"),
    [
        (({"torch"}, ""), 0, "2 passed, 0 failed, 0 skipped"),
        (({"numpy"}, ""), 1, "0 passed, 2 failed, 0 skipped"),
        ((set(), "error: x cause: Failed to fetch: https://index"), 3, "error: x cause: Failed to fetch: https://index"),
    ],
)
def test_how_it_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], result: tuple[set[str], str], code: int, line: str
) -> None:
    monkeypatch.setattr(resolve, "resolve", lambda case: result)
    assert resolve.main([BRINGS, BRINGS]) == code
    assert capsys.readouterr().out.splitlines()[-1] == line
