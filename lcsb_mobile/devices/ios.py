"""A bundle onto an iPhone or iPad, by Xcode's devicectl: into the demo app's own documents, where the app finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.devices.pushed import PushedBundle, files_for_device
from lcsb_mobile.errors import MissingDependencyError, OptionError, PhoneError

APPLICATION = "lcsbmobile.app"
TARGETS = ("onnxruntime", "coreml", "coreai")  # whether the phone's system has the runtime, the app says
FOLDER = "Documents"  # within the app's container; each directory in it that has a manifest is listed
WHERE_DEVICECTL_IS = (
    "it is a part of Xcode from 15 on, which needs a Mac: install it, open it once, then `sudo xcode-select -s /Applications/Xcode.app`; "
    "without one, copy the bundle onto the phone by the app's picker"
)


class DeviceCtl:
    """Xcode's `devicectl`, to one phone. `name`: what the phone is called."""

    def __init__(self, xcrun: str, identifier: str, name: str) -> None:
        self.xcrun, self.identifier, self.name = xcrun, identifier, name

    @classmethod
    def connect(cls, device: str | None) -> DeviceCtl:
        """To the phone of that name, identifier or UDID, or the only one there is. Raises MissingDependencyError without devicectl,
        PhoneError when no such phone is ready, OptionError when several are and none was named."""
        xcrun = find_devicectl()
        known = [phone for phone in _listed(xcrun) if device is None or device in phone.names]
        ready = [phone for phone in known if phone.missing is None]
        if len(ready) > 1:
            names = ", ".join(f"{phone.name} {phone.identifier}" for phone in ready)
            raise OptionError(f"device: {len(ready)} phones are connected ({names}); name one by its identifier with --device")
        if ready:
            return cls(xcrun, ready[0].identifier, ready[0].name)
        found = ", ".join(f"{phone.name} ({phone.missing})" for phone in known) or "none"
        raise PhoneError(
            f"no phone is ready: expected {device or 'one'}, found {found}; connect it, unlock it, trust this computer, and switch on "
            "Developer Mode under Settings, Privacy & Security"
        )

    def has(self, application: str) -> bool:
        arguments = ("info", "apps", "--device", self.identifier, "--bundle-id", application)
        found = _asked(self.xcrun, "look for the app", "device", *arguments)
        return any(app.get("bundleIdentifier") == application for app in found.get("apps", []))

    def copy(self, source: Path, application: str, destination: str) -> None:
        """A file under that path, or a directory's contents into that folder, which devicectl makes."""
        where = ("--domain-type", "appDataContainer", "--domain-identifier", application)
        paths = ("--source", str(source), "--destination", destination)
        _asked(self.xcrun, f"copy {source.name}", "device", "copy", "to", "--device", self.identifier, *where, *paths)


class _Listed:
    """A phone that devicectl knows. `missing`: what is in the way of using it."""

    def __init__(self, device: dict[str, Any]) -> None:
        properties, hardware = device.get("deviceProperties", {}), device.get("hardwareProperties", {})
        connection = device.get("connectionProperties", {})
        self.identifier = str(device.get("identifier", ""))
        self.name = str(properties.get("name", self.identifier))
        self.names = {self.identifier, self.name, hardware.get("udid")}
        self.is_phone = hardware.get("platform") == "iOS" and hardware.get("reality", "physical") == "physical"
        self.missing: str | None = None
        if connection.get("pairingState") != "paired":
            self.missing = "not paired"
        elif connection.get("tunnelState") == "unavailable":
            self.missing = "not connected"


def find_devicectl() -> str:
    """The path of `xcrun`, which finds devicectl."""
    xcrun = shutil.which("xcrun")
    if xcrun is None:
        raise MissingDependencyError(f"xcrun is not on PATH, so there is no devicectl; {WHERE_DEVICECTL_IS}")
    if _run([xcrun, "--find", "devicectl"]).returncode:
        raise MissingDependencyError(f"{xcrun} finds no devicectl; {WHERE_DEVICECTL_IS}")
    return xcrun


def push(directory: Path, name: str | None = None, device: str | None = None, application: str = APPLICATION) -> PushedBundle:
    """Copies the files of a bundle, which is verified before, the manifest last: the app lists what has one, and verifies it when it is
    chosen. `name`: of its folder on the phone, the directory's own unless given.

    Raises BundleError or IntegrityError for the bundle, OptionError for one that is no phone's or a bad name, and as `DeviceCtl.connect`
    does.
    """
    name = name or directory.resolve().name
    files = files_for_device(directory, TARGETS, name=name, app=application)
    phone = DeviceCtl.connect(device)
    if not phone.has(application):
        raise PhoneError(f"{phone.name}: the app {application} is not installed; build and install it first (ios_demo/README.md)")
    folder = f"{FOLDER}/{name}"
    with tempfile.TemporaryDirectory(dir=directory.resolve().parent, prefix=".pushed-") as beside:
        staged = Path(beside) / name
        _link(directory, staged, [file for file in files if file != MANIFEST_FILE])
        phone.copy(staged, application, folder)
    phone.copy(directory / MANIFEST_FILE, application, f"{folder}/{MANIFEST_FILE}")
    return PushedBundle(str(directory), phone.name, folder, sum(files.values()))


def _link(directory: Path, target: Path, files: list[str]) -> None:
    """Those files alone under their names in a directory of their own, on the same disk."""
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(directory / file, target / file)
        except OSError:  # a file system without links, or a link to another disk
            shutil.copyfile(directory / file, target / file)


def _listed(xcrun: str) -> list[_Listed]:
    devices = _asked(xcrun, "list the phones", "list", "devices").get("devices", [])
    return [phone for phone in map(_Listed, devices) if phone.is_phone]


def _asked(xcrun: str, doing: str, *arguments: str) -> dict[str, Any]:
    """What devicectl answers, of which only the JSON file is made for programs. Raises PhoneError naming what was being done."""
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory) / "answer.json"
        result = _run([xcrun, "devicectl", *arguments, "--json-output", str(answer)])
        if result.returncode:
            said = [line for line in (result.stderr or result.stdout).splitlines() if line.startswith("ERROR:")]
            reason = said[0].removeprefix("ERROR:").strip() if said else f"exit code {result.returncode}"
            raise PhoneError(f"devicectl could not {doing}: {reason}; try again, or copy it by the app's picker")
        try:
            found = msgspec.json.decode(answer.read_bytes())["result"]
        except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise PhoneError(f"devicectl could not {doing}: its answer is not what is known of it; update Xcode or this package") from error
    return found if isinstance(found, dict) else {}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise MissingDependencyError(f"{command[0]}: cannot be run: {error.strerror}; {WHERE_DEVICECTL_IS}") from error
