"""What is printed: text of others as it is, in an encoding that lacks some of it, and to streams that take nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.bundles import RandomBundle, lcsb_error
from helpers.bundles import lcsb as lcsb_here
from rich.console import Console
from rich.table import Table

from lcsb_mobile.cli import console
from lcsb_mobile.cli.console import PlainConsole, Progressing, StageBars, print_json, progress_bars, write
from lcsb_mobile.errors import PrintingError

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


NAMES = ["model[q4]", "[/x]", "a:smile:", "[bold]a[/bold]", "a\x1b[31m\u202e"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_path_is_no_markup(bundle: Path, name: str) -> None:
    """Nor does it steer the terminal: it is shown with escapes."""
    named = bundle.parent / "named" / name
    named.parent.mkdir(parents=True)
    bundle.rename(named) if named.parent.name == "named" else shutil.move(bundle, named)
    shown = str(named).replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    for verb in ("inspect", "verify"):
        assert shown in lcsb_here(verb, named)
    (named / "manifest.json").unlink()
    assert shown in lcsb_error(2, "inspect", named)


def test_no_string_is_markup() -> None:
    """In whatever part of a table it stands, though nobody made it a text."""
    file = io.StringIO()
    table = Table("[red]column", title="[/x] :smile: \x1b[0m")
    table.add_row("[bold]a[/bold]\u202e")
    PlainConsole(file=file, width=60).print(table, "[/y]")
    for text in ("[red]column", "[/x] :smile: \\x1b[0m", "[bold]a[/bold]\\u202e", "[/y]"):
        assert text in file.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_models_text_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets it as it is."""
    for stream, expected in ((Terminal(), "a\\x1b[2J\tb\n"), (io.StringIO(), "a\x1b[2J\tb\n")):
        monkeypatch.setattr(sys, "stdout", stream)
        write("a\x1b[2J\tb\n")
        assert stream.getvalue() == expected


# Streams that take nothing


def shell(command: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`lcsb` stands for the command line."""
    program = [sys.executable, "-m", "lcsb_mobile"]
    script = f'lcsb() {{ {" ".join(program)} "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)], capture_output=True, check=False, env=os.environ | environment
    )


RUN = 'simulate "$1" --data "$2" --steps 1 --adapter "$3"'


@pytest.mark.parametrize(
    "verb", ["--help", "--version", "simulate --help", RUN, f"{RUN} --json", 'inspect "$1"', 'generate "$1" --prompt the --max-tokens 2']
)
def test_a_full_disk_takes_the_result(random_bundle: RandomBundle, messages: Path, tmp_path: Path, verb: str) -> None:
    """The work is done; what failed is the printing, which is said in one line."""
    done = shell(f"lcsb {verb} > /dev/full", random_bundle.bundle, messages, tmp_path / "a")
    line = "error: standard output: cannot be written: No space left on device; what was asked for is done but for printing its result"
    assert (done.returncode, done.stderr.decode().splitlines()[-1]) == (1, line)
    assert b"Exception" not in done.stderr and ("simulate" not in verb or "help" in verb or (tmp_path / "a").exists())


@pytest.mark.parametrize("verb", [RUN, 'inspect "$1"', "--help", "--version"])
@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_stream_that_is_closed(random_bundle: RandomBundle, messages: Path, tmp_path: Path, verb: str, streams: str) -> None:
    """Leads nowhere, and is not missed; nothing that was to be printed goes into a file that was opened later."""
    done = shell(f"lcsb {verb} {streams}", random_bundle.bundle, messages, tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and (">&-" not in streams.replace("2>&-", "") or done.stdout == b"")


def test_a_reader_that_has_seen_enough(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """No fault: the work is done."""
    for verb in ("--help", "simulate --help", "--version", 'inspect "$1"', RUN):
        done = shell(f"set -o pipefail; lcsb {verb} | true", random_bundle.bundle, messages, tmp_path / "a")
        assert done.returncode == 0 and b"rror" not in done.stderr, done.stderr
    assert (tmp_path / "a").exists()


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_progress_that_cannot_be_written_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    PlainConsole(file=Progressing()).print("lost")  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(PrintingError, match="No space left on device"):
        print_json({})


def test_a_file_whose_name_is_not_utf_8(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """JSON names it by escapes, from which Python finds it again; a line of text shows them."""
    adapter, bundle = (os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + end) for end in (b"", b".bundle"))
    shutil.copytree(random_bundle.bundle, bundle)
    done = shell(f"lcsb {RUN} --json", bundle, messages, adapter)
    assert (done.returncode, json.loads(done.stdout)["adapter"]) == (0, adapter)
    done = shell(f"lcsb {RUN} --force", bundle, messages, adapter)
    assert done.returncode == 0 and b"caf\\udce9" in done.stdout and Path(adapter).is_file()


def test_every_verb_in_ascii(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """In the locale C, where Python takes paths and arguments for bytes."""
    adapter, data, bundle = tmp_path / "ädapter", shutil.copy(messages, tmp_path / "dätä – 日"), tmp_path / "bündel – 日"
    shutil.copytree(random_bundle.bundle, bundle)
    for verb in (RUN, f"{RUN} --json --force --prompt é", 'inspect "$1"', 'verify "$1"', 'data "$2" --bundle "$1" --preview 1'):
        done = shell(f"lcsb {verb}", bundle, data, adapter, **ASCII)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, (verb, done.stderr)
        assert done.stdout.decode("ascii")
    done = shell('lcsb generate "$1" --prompt é --json --max-tokens 2', bundle, **ASCII)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt"] == "é"


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
