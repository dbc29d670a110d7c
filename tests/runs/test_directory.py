"""A directory of checkpoints: one process at a time, the last two kept, the newest good one found, nothing lost when the disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from helpers.bundles import python
from helpers.run_checkpoints import IDENTITY, LAYOUT, assert_equal, make_checkpoint

from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import OutputExistsError, RunBusyError, RunCheckpointError, StorageError
from lcsb_mobile.runs.checkpoint import RunIdentity, checkpoint_files, write_checkpoint
from lcsb_mobile.runs.directory import RunDirectory, check_identity


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "a" / "run") as directory:
        assert directory.newest(LAYOUT, IDENTITY, no_warning) is None
        for step in (0, 9, 10):
            directory.write(make_checkpoint(step))
        assert names(directory.path) == ["lock", "step-00000009.safetensors", "step-00000010.safetensors"]
        found = directory.newest(LAYOUT, IDENTITY, no_warning)
        assert found is not None
        assert_equal(found, make_checkpoint(10))


def test_the_newest_is_that_of_the_highest_number(tmp_path: Path) -> None:
    for step in (7, 100_000_000, 99_999_999):
        (tmp_path / f"step-{step:08}.safetensors").touch()
    assert [file.name[5:-12] for file in checkpoint_files(tmp_path)] == ["100000000", "99999999", "00000007"]


def test_what_a_killed_process_did_not_remove_is_removed(tmp_path: Path) -> None:
    """It was killed after it had written the newest. An older one stays while it is the good one."""
    with RunDirectory(tmp_path) as directory:
        for step in (5, 6, 7):
            write_checkpoint(tmp_path / f"step-{step:08}.safetensors", make_checkpoint(step))
        newest, second, oldest = directory.files()
        whole = newest.read_bytes()
        for file in (newest, second):
            file.write_bytes(b"spoilt")
        assert directory.newest(LAYOUT, IDENTITY, lambda text: None) is not None and oldest.exists()
        newest.write_bytes(whole)
        assert directory.newest(LAYOUT, IDENTITY, no_warning) is not None
        assert names(tmp_path) == ["lock", second.name, newest.name]


def test_a_damaged_one_is_passed_over_and_left(tmp_path: Path) -> None:
    warnings: list[str] = []
    with RunDirectory(tmp_path) as directory:
        directory.write(make_checkpoint(3))
        newest = directory.write(make_checkpoint(4))
        raw = bytearray(newest.read_bytes())
        raw[-5] ^= 16
        newest.write_bytes(raw)
        found = directory.newest(LAYOUT, IDENTITY, warnings.append)
        assert found is not None
        assert_equal(found, make_checkpoint(3))
        assert len(warnings) == 1 and "step-00000004.safetensors: damaged" in warnings[0] and "from step-00000003" in warnings[0]
        directory.files()[1].write_bytes(b"")
        with pytest.raises(RunCheckpointError, match=r"step-00000004.*damaged.*step-00000003.*no good checkpoint is left"):
            directory.newest(LAYOUT, IDENTITY, warnings.append)
        assert names(tmp_path) == ["lock", "step-00000003.safetensors", "step-00000004.safetensors"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000004.safetensors.x7").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    with RunDirectory(tmp_path):
        assert names(tmp_path) == ["lock", "notes.txt"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from lcsb_mobile.runs.directory import RunDirectory
directory = RunDirectory(Path({str(tmp_path)!r}))
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunBusyError, match=rf"another run, process {other.pid}, uses these checkpoints"):
            RunDirectory(tmp_path)
        other.kill()
    with RunDirectory(tmp_path):  # the lock went with its process
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_process_has_it_once(tmp_path: Path) -> None:
    with RunDirectory(tmp_path):
        with pytest.raises(RunBusyError, match="another run, of this process"):
            RunDirectory(tmp_path)
        locked = python(
            "import sys; from pathlib import Path; from lcsb_mobile.runs.directory import *; RunDirectory(Path(sys.argv[1]))", tmp_path
        )
        assert "RunBusyError" in locked.stderr  # being refused did not give the lock away
    RunDirectory(tmp_path).close()


def test_the_lock_goes_with_its_process_though_a_child_lives_on(tmp_path: Path) -> None:
    """As the process that watches the memory does, until it has begun: killed in between, a run left its directory locked."""
    forked = """
import os, sys, time
from pathlib import Path
from lcsb_mobile.runs.directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
if os.fork() == 0:
    os.close(1), os.close(2)
    time.sleep(20)
os._exit(0)
"""
    assert python(forked, tmp_path).returncode == 0
    RunDirectory(tmp_path).close()


def test_a_new_run_replaces_no_other_without_force(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as directory:
        directory.start_anew(force=False)
        directory.write(make_checkpoint(4))
        with pytest.raises(OutputExistsError, match="go on with it by --resume"):
            directory.start_anew(force=False)
        directory.start_anew(force=True)
        assert names(tmp_path) == ["lock"]


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunDirectory(tmp_path) as directory:
        directory.write(make_checkpoint(3))
        directory.write(make_checkpoint(4))
        if call == "write":
            monkeypatch.setattr("lcsb_mobile.runs.checkpoint.write_digested", full)
        else:
            monkeypatch.setattr(f"lcsb_mobile.io.files.os.{call}", full)
        with pytest.raises(StorageError, match=r"step-00000005.safetensors: cannot be written: No space left on device"):
            directory.write(make_checkpoint(5))
        monkeypatch.undo()
        assert names(tmp_path) == ["lock", "step-00000003.safetensors", "step-00000004.safetensors"]
        found = directory.newest(LAYOUT, IDENTITY, no_warning)
        assert found is not None and found.place.step == 4


def test_a_file_size_limit_that_the_system_enforces(tmp_path: Path) -> None:
    """The write itself fails, in the middle of a file, as it does on a full disk."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from lcsb_mobile.errors import StorageError
from lcsb_mobile.runs.directory import RunDirectory
from helpers.run_checkpoints import make_checkpoint
directory = RunDirectory(Path({str(tmp_path)!r}))
directory.write(make_checkpoint(3))
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    directory.write(make_checkpoint(4))
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "step-00000004.safetensors: cannot be written: File too large" in done.stdout
    assert names(tmp_path) == ["lock", "step-00000003.safetensors"]


def changed(**fields: object) -> RunIdentity:
    return msgspec.structs.replace(IDENTITY, **fields)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (changed(bundle="e" * 64), r"bundle: aaaaaaaaaaaa… then, eeeeeeeeeeee… now"),
        (changed(data="e" * 64), "data: bbbbbbbbbbbb… then, eeeeeeeeeeee… now"),
        (changed(evaluation_data="e" * 64), "evaluation data: None then, eeeeeeeeeeee… now"),
        (changed(tokens="e" * 64), "tokens: cccccccccccc… then, eeeeeeeeeeee… now"),
        (changed(initial_adapter="e" * 64), "initial adapter: None then"),
        (changed(hold_out=0.2), "hold out: 0.1 then, 0.2 now"),
        (changed(seed=6), "seed: 5 then, 6 now"),
        (changed(schedule=(Subset((0,), (0,)),)), "schedule: another schedule then"),
        (changed(train=msgspec.structs.replace(IDENTITY.train, learning_rate=2e-3)), r"learning_rate: 0.001 then, 0.002 now"),
        (changed(train=msgspec.structs.replace(IDENTITY.train, accumulation=3)), "accumulation: 2 then, 3 now"),
        (changed(seed=6, hold_out=0.3), "hold out: .*; seed: "),
    ],
)
def test_another_run_is_refused(now: RunIdentity, reason: str) -> None:
    with pytest.raises(RunCheckpointError, match=f"F: is of another run: .*{reason}"):
        check_identity(Path("F"), IDENTITY, now)


def test_a_run_may_become_longer_where_the_rate_does_not_depend_on_it() -> None:
    longer = changed(train=msgspec.structs.replace(IDENTITY.train, steps=80))
    check_identity(Path("F"), IDENTITY, longer)
    cosine, longer_cosine = (
        changed(train=msgspec.structs.replace(IDENTITY.train, lr_schedule="cosine", steps=steps)) for steps in (40, 80)
    )
    check_identity(Path("F"), cosine, cosine)
    with pytest.raises(RunCheckpointError, match="steps: 40 then, 80 now"):
        check_identity(Path("F"), cosine, longer_cosine)
