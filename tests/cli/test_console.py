"""What is printed, in an encoding that lacks some of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from helpers.bundles import RandomBundle
from rich.console import Console

from lcsb_mobile.cli import console
from lcsb_mobile.cli.console import StageBars, print_json, progress_bars

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LATIN = {"PYTHONIOENCODING": "iso-8859-1"}


def lcsb(*arguments: object, **environment: str) -> bytes:
    command = [sys.executable, "-m", "lcsb_mobile", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("environment", "encoding"), [(ASCII, "ascii"), (LATIN, "iso-8859-1")], ids=["C", "iso-8859-1"])
def test_a_dash_that_the_encoding_lacks(random_bundle: RandomBundle, environment: dict[str, str], encoding: str) -> None:
    whole = lcsb("inspect", random_bundle.bundle, PYTHONUTF8="1").decode()
    poor = lcsb("inspect", random_bundle.bundle, **environment).decode(encoding)
    assert len(poor.splitlines()) == len(whole.splitlines())
    assert poor.count("?") >= whole.count("–") > 0


@pytest.mark.parametrize("arguments", [("--help",), ("simulate", "--help"), ("export", "--help")], ids=" ".join)
def test_help_in_ascii(arguments: tuple[str, ...]) -> None:
    assert b"Example: lcsb" in lcsb(*arguments, **ASCII)


@pytest.mark.parametrize(("encoding", "written"), [("ascii", r'{"a":"\u00fc \u2013 \ud83d\ude00"}'), ("utf-8", '{"a":"ü – 😀"}')])
def test_json_says_the_same_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str, written: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="replace"))
    print_json({"a": "ü – 😀"})
    sys.stdout.flush()
    assert raw.getvalue().decode() == written + "\n"
    assert json.loads(raw.getvalue()) == {"a": "ü – 😀"}


def staged(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    """What standard error has of a stage of ten matrices, a second each, and of one of three."""
    err = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    now = iter(range(1000))
    monkeypatch.setattr(console, "err", err)
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(console, "PLAIN_SECONDS", 4.0)
    with progress_bars() as progress:
        bars = StageBars(progress)
        for stage, total in (("weights", 10), ("trace", 3)):
            for done in range(1, total + 1):
                bars(stage, done, total)
    assert isinstance(err.file, io.StringIO)
    return err.file.getvalue()


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar a stage, with the time taken and the time left."""
    shown = staged(monkeypatch, terminal=True).splitlines()
    last = {stage: next(line for line in reversed(shown) if stage in line) for stage in ("weights", "trace")}
    assert "10/10" in last["weights"] and "3/3" in last["trace"]
    assert all(" left " in line and "0:00:" in line for line in last.values())


def test_progress_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines of plain text, few, and of long stages alone."""
    assert staged(monkeypatch, terminal=False) == "weights: 4 of 10, about 6 s left\nweights: 8 of 10, about 2 s left\n"
