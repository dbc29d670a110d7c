"""What is said of a disk: the advice that fits the error, at the start where it can be known then, and of a file that was cut short."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.bundles import RandomBundle, lcsb_error, one_error, python

from lcsb_mobile.errors import StorageError
from lcsb_mobile.io import storage
from lcsb_mobile.io.files import storage_errors
from lcsb_mobile.io.mapped_faults import cut_short
from lcsb_mobile.io.storage import ADVICE, advice, check_writable, scratch_advice
from lcsb_mobile.measuring.machine import scratch_directory

MAIN = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"
SPACE = (errno.ENOSPC, errno.EDQUOT)


@pytest.mark.parametrize("number", [*ADVICE, errno.ETXTBSY])
def test_each_error_has_its_advice(tmp_path: Path, number: int) -> None:
    """Nobody is told to free space but where that helps."""
    with pytest.raises(StorageError) as found, storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    said = str(found.value)
    assert said.startswith(f"{tmp_path}: cannot be written: {os.strerror(number)}; ")
    assert ("free some space" in said) == (number in SPACE) and said.endswith(advice(OSError(number, "")))
    assert "TMPDIR" not in said and ("another place" not in scratch_advice(OSError(number, "")))


def test_too_many_open_files(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from lcsb_mobile.io.storage import check_writable
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    check_writable(Path(sys.argv[1]))
except Exception as error:
    print(error)
"""
    assert "Too many open files; this process has as many files open as it may" in python(program, tmp_path / "a").stdout


def test_a_disk_that_is_read_only(random_bundle: RandomBundle, small_disk: Path, messages: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", small_disk / "a")
    line = lcsb_error(1, *run)
    assert "Read-only file system; nothing can be written to that disk: choose another place" in line and "space" not in line


@pytest.mark.parametrize("option", ["--report", "--adapter"])
def test_what_cannot_be_written_is_found_before_the_first_step(
    random_bundle: RandomBundle, messages: Path, tmp_path: Path, option: str
) -> None:
    """Not after the last: nothing was read or trained, and nothing is left."""
    (tmp_path / "file").write_text("x")
    for path, expected in ((tmp_path / "file" / "x", "a part of its path is a file"), (tmp_path, "it is a directory")):
        run = ("simulate", random_bundle.bundle, "--data", tmp_path / "absent", "--steps", 1, "--adapter", tmp_path / "a", "--force")
        line = lcsb_error(1, *run, option, path)
        assert f"{path}: cannot be written" in line and expected in line
    assert [path.name for path in tmp_path.iterdir() if path.name != "file"] == []
    assert "cannot be written" in lcsb_error(1, "bench", random_bundle.bundle, "--plot", tmp_path / "file" / "x")


def test_a_report_that_cannot_be_drawn_is_found_before_the_first_step(
    random_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", tmp_path / "a", "--report", tmp_path / "r")
    assert "a report needs matplotlib" in lcsb_error(2, *run)
    assert not (tmp_path / "a").exists()


def test_what_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "file")
    (tmp_path / "there").write_text("x")
    check_writable(tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_temporary_files_go_where_tmpdir_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert scratch_directory() == tmp_path
    monkeypatch.delenv("TMPDIR")
    assert scratch_directory() != tmp_path
    monkeypatch.setattr(storage.tempfile, "tempdir", None)


# A mapped file that is cut short

CUT = """
import os, sys
from pathlib import Path
import lcsb_mobile.cli.simulate as simulate
from lcsb_mobile.cli import main

def stepped(self, outcome, memory):
    os.truncate(Path(sys.argv[2]) / "weights.bin", 4096)

simulate.BarObserver.stepped = stepped
sys.argv[0] = "lcsb"
main()
"""


def test_weights_that_are_cut_short_in_a_run(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """One line, whichever thread of the runtime met it."""
    bundle = shutil.copytree(random_bundle.bundle, tmp_path / "bundle")
    run = ("simulate", bundle, "--data", messages, "--steps", 5, "--adapter", tmp_path / "a", "--threads", 2)
    done = python(CUT, *run)
    assert done.returncode == 1, done
    assert one_error(done.stdout, done.stderr).startswith(f"error: {bundle / 'weights.bin'}: was cut short, or its disk failed")


def test_which_files_were_cut_short(tmp_path: Path) -> None:
    path, page = tmp_path / "a file", mmap.PAGESIZE
    path.write_bytes(bytes(3 * page - 5))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert str(path) not in cut_short()
        os.truncate(path, page)
        assert cut_short() == [str(path)]
