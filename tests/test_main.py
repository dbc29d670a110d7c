"""Where the command line begins: `lcsb`, `python -m lcsb_mobile`, on Windows, and what the shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lcsb_mobile

# As the shell's `lcsb` calls it, by the entry point that is installed.
ENTRY_POINT = """
import sys
from importlib.metadata import entry_points
(entry,) = entry_points(group="console_scripts", name="lcsb")
{before}
sys.argv = ["lcsb", *sys.argv[1:]]
entry.load()()
"""
MODULE = """
import runpy, sys
{before}
sys.argv = ["lcsb", *sys.argv[1:]]
runpy.run_module("lcsb_mobile", run_name="__main__")
"""
# Another system's name, and without the modules that Windows has not.
AS_WINDOWS = """
ABSENT = ("resource", "fcntl", "termios", "pwd", "grp")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for name in ABSENT:
    sys.modules.pop(name, None)
sys.platform = "win32"
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Outside the checkout, where an earlier build may have left entry points of its own."""
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment, cwd=Path(__file__).parent)


@pytest.mark.parametrize("start", [ENTRY_POINT, MODULE], ids=["lcsb", "python -m"])
def test_windows_is_told_what_to_do(start: str) -> None:
    done = run(sys.executable, "-c", start.format(before=AS_WINDOWS), "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: lcsb_mobile runs on Linux and macOS; on Windows use WSL\n"


@pytest.mark.parametrize(
    "command",
    [("-c", ENTRY_POINT.format(before="")), ("-c", MODULE.format(before="")), ("-m", "lcsb_mobile")],
    ids=["lcsb", "module", "-m"],
)
def test_the_command_line_begins(command: tuple[str, str]) -> None:
    done = run(sys.executable, *command, "--version")
    assert (done.returncode, done.stdout) == (0, f"lcsb_mobile {lcsb_mobile.__version__}\n")
    done = run(sys.executable, *command, "frobnicate")
    assert done.returncode == 2 and "frobnicate" in done.stderr


def test_the_shell_completes_verbs_and_options() -> None:
    """Typer's own completion, which `lcsb --install-completion` installs."""
    start = ENTRY_POINT.format(before="")
    for words, expected in (("lcsb si", ["simulate"]), ("lcsb simulate --memory", ["--memory-budget"])):
        position = str(words.count(" "))
        done = run(sys.executable, "-c", start, _LCSB_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=position)
        assert (done.returncode, done.stdout.split()) == (0, expected), done.stderr
