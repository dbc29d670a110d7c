"""The set-up of environments, on Pythons that are shell scripts: what is refused before anything is downloaded, and what is made anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT, FIND, CHECK = (ROOT / "scripts/testing" / name for name in ("environment.sh", "find_python.sh", "check_python.sh"))

# Answers what the scripts ask, and copies itself where an environment is made. FAILS: what pip does instead.
PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$1 $2" in
    "-c "*version_info*) echo "{version}" ;;
    "-c "*base_prefix*) echo "{identity}" ;;
    "-c "*sysconfig*) echo "$here/../lib" ;;
    "-m venv") echo "venv $3" >>"$LOG"; for directory; do :; done; mkdir -p "$directory/bin" "$directory/lib"
        cp "$0" "$directory/bin/python"; : >"$directory/fresh" ;;
    "-m pip") shift 2; echo "pip $*" >>"$LOG"; case "$*" in *{fails}*) echo "{says}"; exit 1 ;; esac ;;
esac
"""


@pytest.fixture(autouse=True)
def no_make_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` runs these, and a make below another one says where it enters."""
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Setup:
    """`path`: where the environment is made. `log`: what was asked of Python."""

    directory: Path
    path: Path

    def python(self, version: str = "3.12 ok", identity: str = "one", fails: str = "NOTHING", says: str = "") -> Path:
        path = self.directory / f"python-{identity}-{fails.strip('-')}"
        path.write_text(PYTHON.format(version=version, identity=identity, fails=fails, says=says))
        path.chmod(0o755)
        return path

    def run(self, python: Path | str, *arguments: str, extra: str = "dev", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHON": str(python), "LOG": str(self.directory / "log")} | variables
        command = [ENVIRONMENT, *arguments, self.path, extra]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    @property
    def log(self) -> list[str]:
        file = self.directory / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, tmp_path / "environment")


def test_it_is_made_once_and_anew_with_another_python(setup: Setup) -> None:
    one, other = setup.python(), setup.python(identity="two")
    assert setup.run(one).returncode == 0
    assert setup.log == ["venv --clear", "pip install --quiet --upgrade pip", "pip install --quiet --editable .[dev]"]
    assert setup.run(one).returncode == 0 and setup.log == []
    os.utime(setup.path / ".installed", (0, 0))  # pyproject.toml is newer
    assert setup.run(one).returncode == 0 and setup.log[0] == f"venv {setup.path}"
    assert setup.run(other).returncode == 0 and setup.log[0] == "venv --clear"
    (setup.path / "bin/python").unlink()  # as when a Python was removed from the system
    assert setup.run(other).returncode == 0 and setup.log[0] == "venv --clear"


@pytest.mark.parametrize("python", ["3.9", "gone"])
def test_a_python_that_it_does_not_run_on(setup: Setup, python: str) -> None:
    """Whatever was made before stays as it is."""
    assert setup.run(setup.python()).returncode == 0 and setup.log
    named = setup.python(version=python, identity="old") if python == "3.9" else setup.directory / "gone"
    done = setup.run(named)
    found = "found 3.9" if python == "3.9" else "found no Python that runs"
    assert done.returncode == 2 and f"{named}: expected Python 3.10 or newer, {found}; name" in done.stderr
    assert setup.log == [] and (setup.path / ".installed").exists()


@pytest.mark.parametrize("goal", ["demo", "test", "check", "test-android"])
def test_make_looks_at_the_python_first(setup: Setup, goal: str) -> None:
    old = setup.python(version="3.9")
    command = ["make", "--silent", "-C", ROOT, goal, f"PYTHON={old}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LOG": str(setup.directory / "log")})
    assert done.returncode == 2 and f"{old}: expected Python 3.10 or newer, found 3.9" in done.stderr and done.stdout == ""


def with_disk(setup: Setup, megabytes: int, system: str = "Linux") -> str:
    """A PATH on which the disk has so much room."""
    programs = setup.directory / "programs"
    programs.mkdir()
    for name, prints in (("df", f"Filesystem 1024-blocks Used Available\\nx 9 9 {megabytes * 1000} 9"), ("uname", system)):
        (programs / name).write_text(f"#!/bin/sh\nprintf '{prints}\\n'\n")
        (programs / name).chmod(0o755)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(("system", "index", "needed"), [("Linux", "", 9000), ("Darwin", "", 2000), ("Linux", "https://host/cpu", 2000)])
def test_a_disk_without_room(setup: Setup, system: str, index: str, needed: int) -> None:
    """CUDA's libraries are what takes the room, so it is less where they are not brought."""
    python = setup.python()
    done = setup.run(python, PATH=with_disk(setup, needed - 1, system), TORCH_INDEX=index)
    assert done.returncode == 2 and f"expected {needed} MB of free disk for PyTorch and the rest, found {needed - 1} MB" in done.stderr
    assert setup.log == [] and not setup.path.exists()
    shutil.rmtree(setup.directory / "programs")
    assert setup.run(python, PATH=with_disk(setup, needed, system), TORCH_INDEX=index).returncode == 0
    assert setup.log[-1] == "pip install --quiet --editable .[dev]" + (f" --extra-index-url {index}" if index else "")


def test_an_environment_over_another(setup: Setup) -> None:
    other = setup.directory / "other"
    (other / "bin").mkdir(parents=True)
    shutil.copy(setup.python(), other / "bin/python")
    assert setup.run(setup.python(), "--over", str(other), extra="fuzz").returncode == 0
    assert (setup.path / "lib/other.pth").read_text() == f"{other}/bin/../lib\n"


def test_what_is_not_to_be_had(setup: Setup) -> None:
    missing = setup.python(fails="--editable", says="ERROR: No matching distribution found for x==1")
    done = setup.run(missing)
    assert done.returncode == 3 and done.stderr.endswith("ERROR: No matching distribution found for x==1\n")
    assert not (setup.path / ".installed").exists()
    assert setup.run(setup.python(identity="b", fails="--editable", says="ERROR: Failed building wheel")).returncode == 1


def test_a_runtime_without_wheels_for_this_python(setup: Setup) -> None:
    """pip leaves out what a marker rules out, and ends well."""
    done = setup.run(setup.python(fails="show"), extra="onnxruntime-training")
    assert done.returncode == 3 and "with Python up to 3.12 alone, not for this Python" in done.stderr
    assert not (setup.path / ".installed").exists()
    assert setup.run(setup.python(identity="two"), extra="onnxruntime-training").returncode == 0


def test_the_first_python_that_is_here(setup: Setup) -> None:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    done = subprocess.run([FIND, "3.99", here], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    version = [done.stdout.strip(), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    assert subprocess.run(version, capture_output=True, text=True, check=True).stdout == f"{here}\n"
    done = subprocess.run([FIND, "3.99"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "no Python 3.99 is here\n")
    done = setup.run(setup.python(), "--any-of", "3.98,3.99")
    assert done.returncode == 3 and done.stderr == "no Python 3.98 3.99 is here\n" and not setup.path.exists()


def test_make_alone_lists_what_there_is() -> None:
    shown = subprocess.run(["make", "--silent", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    goals = [line.split()[1] for line in shown.splitlines() if line.startswith("make ")]
    phony = (ROOT / "Makefile").read_text("utf-8").partition(".PHONY:")[2].partition("\nhelp:")[0].replace("\\\n", " ").split()
    assert sorted(goals) == sorted({*phony} - {"environment"})
    assert all(len(line) < 140 for line in shown.splitlines())
