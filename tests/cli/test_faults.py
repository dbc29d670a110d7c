"""Disks that fill up, and processes that are killed: no half of a bundle, nothing lost."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, left_behind, one_error, python

from lcsb_mobile import tiny
from lcsb_mobile.bundle.directory import Bundle

MAIN = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"


def test_a_full_disk(random_bundle: RandomBundle, small_disk: Path, messages: Path) -> None:
    assert "No space left" in lcsb_error(1, "export", random_bundle.checkpoint, "--output", small_disk / "b", *EXPORT)
    assert list(small_disk.iterdir()) == []
    (small_disk / "filler").write_bytes(bytes(50_000))
    run = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", small_disk / "a")
    assert "No space left" in lcsb_error(1, *run)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_files_that_may_not_grow(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """The same without root: a limit of 64 KB a file."""
    limit = 1 << 16
    done = python(
        *(MAIN, "export", random_bundle.checkpoint, "--output", tmp_path / "b", *EXPORT),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "cannot be written" in one_error(done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_may_not_be_written(random_bundle: RandomBundle, tmp_path: Path, messages: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in lcsb_error(1, "export", random_bundle.checkpoint, "--output", tmp_path / "file" / "b", *EXPORT)


def test_a_killed_export_leaves_nothing(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """SIGKILL at two moments after the temporary directory was made; then an export to the same place, beside what both left."""
    output = tmp_path / "b"
    arguments = ["export", str(random_bundle.checkpoint), "--output", str(output), *(str(option) for option in EXPORT)]
    for seconds in (0.1, 1.5):
        before = left_behind(tmp_path, ".b.")
        with subprocess.Popen([sys.executable, "-c", MAIN, *arguments], stderr=subprocess.DEVNULL) as process:
            while left_behind(tmp_path, ".b.") == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(seconds)
            process.kill()
        if output.exists():  # it was quicker
            Bundle.open(output)
            shutil.rmtree(output)
        for name in left_behind(tmp_path, ".b."):
            assert "not a bundle" in lcsb_error(2, "verify", tmp_path / name)
    lcsb(*arguments)
    Bundle.open(output)


def test_quickstart_on_tiny(tmp_path: Path) -> None:
    """What `make demo` shows, after a quarter of its steps: the loss falls by 15 %."""
    result = lcsb_json("quickstart", "--output", tmp_path / "demo", "--steps", 100)["simulate"]
    assert result["eval_loss_after"] <= 0.85 * result["eval_loss_before"]
    assert len(result["samples"]) == 2 and tiny.MESSAGES.is_file()
