"""A bundle onto an Android phone, by adb: into the demo app's own folder on the shared storage, where the app finds it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.devices.pushed import PushedBundle, files_for_device
from lcsb_mobile.errors import MissingDependencyError, OptionError, PhoneError
from lcsb_mobile.formatting import megabytes

APPLICATION = "lcsbmobile.app"
TARGETS = ("onnxruntime",)
FOLDER = "/sdcard/Android/data/{application}/files/bundles"
WHERE_ADB_IS = "install the Android SDK platform tools (https://developer.android.com/tools/releases/platform-tools) and put adb on PATH"
SPARE_BYTES = 64 << 20  # for the state and the checkpoints of a run


class Adb:
    """The Android debug bridge, to one phone."""

    def __init__(self, program: str, serial: str) -> None:
        self.program, self.serial = program, serial

    @classmethod
    def connect(cls, serial: str | None) -> Adb:
        """To the phone with that serial number, or the only one there is. Raises MissingDependencyError without adb, PhoneError when no
        such phone is ready, OptionError when several are and none was named."""
        program = find_adb()
        listing = _run([program, "devices"], "list the phones")
        states = dict(line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
        ready = [name for name, state in states.items() if state.strip() == "device"]
        if serial is None and len(ready) > 1:
            raise OptionError(f"serial: {len(ready)} phones are connected ({', '.join(ready)}); name one with --serial")
        if serial is None and len(ready) == 1:
            return cls(program, ready[0])
        if serial in ready:
            return cls(program, serial)
        waiting = {name: state for name, state in states.items() if serial in (None, name)}
        if any(state.strip() == "unauthorized" for state in waiting.values()):
            raise PhoneError(f"{', '.join(waiting)}: the phone has not allowed this computer; unlock it and confirm USB debugging")
        found = ", ".join(f"{name} ({state.strip()})" for name, state in states.items()) or "none"
        raise PhoneError(f"no phone is ready: expected {serial or 'one'}, found {found}; connect it and switch on USB debugging")

    def run(self, doing: str, *arguments: str) -> str:
        """Raises PhoneError naming what was being done."""
        return _run([self.program, "-s", self.serial, *arguments], doing)

    def shell(self, doing: str, command: str) -> str:
        return self.run(doing, "shell", command)


def find_adb() -> str:
    """On PATH, or in the SDK that ANDROID_HOME names."""
    home = os.environ.get("ANDROID_HOME") or os.environ.get("ANDROID_SDK_ROOT")
    places = [shutil.which("adb"), shutil.which("adb", path=str(Path(home) / "platform-tools")) if home else None]
    program = next(filter(None, places), None)
    if program is None:
        raise MissingDependencyError(f"adb is not on PATH{f' nor in {home}/platform-tools' if home else ''}; {WHERE_ADB_IS}")
    return program


def push(
    directory: Path,
    name: str | None = None,
    serial: str | None = None,
    application: str = APPLICATION,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PushedBundle:
    """Copies the files of a bundle, which is verified before; the manifest last and under its name only when all others are there, so
    the app never sees half a bundle. `name`: of its folder on the phone, the directory's own unless given. `progress`: bytes.

    Raises BundleError or IntegrityError for the bundle, OptionError for one that is no phone's or a bad name, and as `Adb.connect` does.
    """
    name = name or directory.resolve().name
    files = files_for_device(directory, TARGETS, name=name, package=application)
    adb = Adb.connect(serial)
    if not adb.shell("look for the app", f"pm path {application} || true").strip():
        raise PhoneError(f"{adb.serial}: the app {application} is not installed; build and install it first (android_demo/README.md)")
    parent = FOLDER.format(application=application)
    _check_space(adb, sum(files.values()))
    _send(adb, directory, f"{parent}/{name}", files, progress)
    return PushedBundle(str(directory), adb.serial, f"{parent}/{name}", sum(files.values()))


def _check_space(adb: Adb, needed: int) -> None:
    """Where `df` says how much there is."""
    fields = adb.shell("ask for its free storage", "df -k /sdcard").splitlines()[-1:]
    free = re.findall(r"\s(\d+)\s+\d+%", fields[0]) if fields else []
    if free and int(free[0]) * 1024 < needed + SPARE_BYTES:
        raise PhoneError(
            f"{adb.serial}: {megabytes(int(free[0]) * 1024)} are free, and the bundle takes {megabytes(needed)} and its state some more; "
            "free some storage on the phone"
        )


def _send(adb: Adb, directory: Path, folder: str, files: dict[str, int], progress: Callable[[int, int], None]) -> None:
    adb.shell("make the folder", f"mkdir -p {folder} && rm -f {folder}/{MANIFEST_FILE}")
    total, done = sum(files.values()), 0
    for file in sorted(files, key=lambda file: file == MANIFEST_FILE):
        sent = f"{folder}/{file}" if file != MANIFEST_FILE else f"{folder}/.{MANIFEST_FILE}"
        if "/" in file:
            adb.shell("make the folder", f"mkdir -p {shlex.quote(str(PurePosixPath(sent).parent))}")
        adb.run(f"copy {file}", "push", str(directory / file), sent)
        done += files[file]
        progress(done, total)
    adb.shell("finish", f"mv {folder}/.{MANIFEST_FILE} {folder}/{MANIFEST_FILE}")


def _run(command: Sequence[str], doing: str) -> str:
    try:
        result = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise PhoneError(f"{command[0]}: cannot be run: {error.strerror}; {WHERE_ADB_IS}") from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise PhoneError(
            f"adb could not {doing}: {said[-1] if said else f'exit code {result.returncode}'}; try again, or copy it by the app's picker"
        )
    return result.stdout
