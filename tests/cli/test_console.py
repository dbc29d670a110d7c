"""What is printed, in an encoding that lacks some of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from helpers.bundles import RandomBundle

from lcsb_mobile.cli.console import print_json

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
