"""A directory of a run's checkpoints: one process at a time, the last two kept, the newest good one found.

Specification: docs/run_checkpoint.md.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.errors import OutputExistsError, RunBusyError, RunCheckpointError, StorageError
from lcsb_mobile.io.files import storage_errors
from lcsb_mobile.runs.checkpoint import RunCheckpoint, RunIdentity, checkpoint_files, newest_good, write_checkpoint

KEPT = 2
LOCK_FILE = "lock"

# A process has its lock once: opening and closing the file again, even to find it locked, would give the lock away.
_held: set[Path] = set()


def _busy(path: Path, holder: str) -> RunBusyError:
    return RunBusyError(f"{path}: another run, {holder}, uses these checkpoints; wait for it, or choose another directory")


class RunDirectory:
    """Locked from its making to `close`, or the end of the process, whatever ends it."""

    def __init__(self, path: Path) -> None:
        """Makes the directory if need be. Raises RunBusyError when another process holds it, StorageError."""
        self.path = path
        with storage_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._key = path.resolve()
            if self._key in _held:
                raise _busy(path, "of this process")
            self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise _busy(path, f"process {holder}") from error
        _held.add(self._key)
        try:
            self._begin()
        except StorageError:
            self.close()
            raise

    def _begin(self) -> None:
        """Writes who has the lock, and removes what a process left that was killed while it wrote."""
        with storage_errors(self.path):
            os.truncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            for left in self.path.glob(".step-*"):
                left.unlink()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._lock)
        _held.discard(self._key)

    def files(self) -> list[Path]:
        """The checkpoints, the newest first."""
        return checkpoint_files(self.path)

    def start_anew(self, force: bool) -> None:
        """Raises OutputExistsError when there are checkpoints; with `force` they are removed."""
        files = self.files()
        if files and not force:
            raise OutputExistsError(
                f"{self.path}: already holds checkpoints of a run; go on with it by --resume, choose another directory, "
                "or pass --force to remove them"
            )
        self._remove(files)

    def newest(
        self, layout: AdapterLayout, identity: RunIdentity, warn: Callable[[str], None], lower_rate: bool = False
    ) -> RunCheckpoint | None:
        """The newest good checkpoint, or None when there is none at all. `warn` is told of damaged ones that were passed over, and of a
        learning rate that is lower from here on (`check_identity`).

        Raises RunCheckpointError when all are damaged (none is removed), or when the newest good one is of another run.
        """
        files = self.files()
        if not files:
            return None
        file, checkpoint, faults = newest_good(files, layout)
        check_identity(file, checkpoint.place.identity, identity, lower_rate)
        for fault in faults:
            warn(f"{fault}; going on from {file.name}")
        if (then := checkpoint.place.identity.train.learning_rate) != (now := identity.train.learning_rate):
            warn(f"going on at a learning rate of {now:g}, which was {then:g} up to step {checkpoint.place.step}")
        if file in files[:KEPT]:
            self._remove(files[KEPT:])  # a process was killed after it had written and before it removed
        return checkpoint

    def write(self, checkpoint: RunCheckpoint) -> Path:
        """Then removes those older than the last two. Raises StorageError; what was there before then still is."""
        path = self.path / f"step-{checkpoint.place.step:08}.safetensors"
        write_checkpoint(path, checkpoint)
        self._remove(self.files()[KEPT:])
        return path

    def _remove(self, files: list[Path]) -> None:
        with storage_errors(self.path):
            for file in files:
                file.unlink()


def check_identity(path: Path, found: RunIdentity, wanted: RunIdentity, lower_rate: bool = False) -> None:
    """Raises RunCheckpointError naming what differs. Where the rate does not depend on it, a run may become longer or shorter; with
    `lower_rate` it may go on at a lower one, as after a loss that was not finite."""
    faults = []
    slower = lower_rate and wanted.train.learning_rate < found.train.learning_rate
    free = {"steps"} if wanted.train.lr_schedule == "constant" else set()
    free |= {"learning_rate"} if slower else set()
    for field in RunIdentity.__struct_fields__:
        before, now = getattr(found, field), getattr(wanted, field)
        if field == "train":
            faults += [
                f"{name}: {old} then, {new} now"
                for name in type(before).__struct_fields__
                if (old := getattr(before, name)) != (new := getattr(now, name)) and name not in free
            ]
        elif before != now:
            faults.append(f"{field.replace('_', ' ')}: {_short(before)} then, {_short(now)} now")
    if faults:
        raise RunCheckpointError(
            f"{path}: is of another run: {'; '.join(faults)}; go on with what it was begun with, or choose another directory"
        )


def _short(value: object) -> str:
    if isinstance(value, str):
        return f"{value[:12]}…"
    return "another schedule" if isinstance(value, tuple) else str(value)
