"""`lcsb ios push` against a stand-in for xcrun, which answers as devicectl is known to and keeps what is pushed. No phone and no Mac was at
hand."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest
from helpers.bundles import RandomBundle, lcsb, lcsb_error, lcsb_json
from helpers.hostile import edit, put

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.devices.ios import APPLICATION, TARGETS, DeviceCtl, find_devicectl, push
from lcsb_mobile.devices.pushed import files_for_device
from lcsb_mobile.errors import IntegrityError, MissingDependencyError, OptionError, PhoneError
from lcsb_mobile.targets import Target

XCRUN = """#!{python}
import json, shutil, sys
from pathlib import Path
phone = Path({phone!r})
arguments = sys.argv[1:]
with open(phone / "log", "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments == ["--find", "devicectl"]:
    sys.exit("xcrun: error: unable to find utility" if (phone / "without-devicectl").exists() else 0)
assert arguments[0] == "devicectl" and arguments[-2] == "--json-output", arguments
command, options = arguments[1:-2], dict(zip(arguments, arguments[1:]))
answer = {{"info": {{"outcome": "success"}}, "result": {{}}}}
if command == ["list", "devices"]:
    answer["result"]["devices"] = json.loads((phone / "devices").read_text())
elif command[:3] == ["device", "info", "apps"]:
    installed = (phone / "installed").read_text().split()
    answer["result"]["apps"] = [{{"bundleIdentifier": name}} for name in installed if name == options["--bundle-id"]]
else:
    assert command[:3] == ["device", "copy", "to"] and options["--domain-type"] == "appDataContainer", command
    source = Path(options["--source"])
    if (phone / "refused").exists() and (phone / "refused").read_text() in source.name:
        sys.exit("13:06:01  Acquired tunnel connection.\\nERROR: No space left. (NSPOSIXErrorDomain error 28.)\\n  NSURL = x")
    target = phone / options["--device"] / options["--domain-identifier"] / options["--destination"]
    shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copyfile(source, target)
Path(arguments[-1]).write_text((phone / "answer").read_text() if (phone / "answer").exists() else json.dumps(answer))
"""


def listed(name: str, paired: bool = True, tunnel: str = "disconnected", **hardware: str) -> dict[str, Any]:
    """A phone as `devicectl list devices` has it."""
    return {
        "identifier": f"ID-{name}",
        "deviceProperties": {"name": name},
        "hardwareProperties": {"platform": "iOS", "reality": "physical", "udid": f"UDID-{name}"} | hardware,
        "connectionProperties": {"pairingState": "paired" if paired else "unsupported", "tunnelState": tunnel},
    }


def know(phone: Path, *devices: dict[str, Any]) -> None:
    (phone / "devices").write_text(json.dumps(devices))


@pytest.fixture
def exported(random_bundle: RandomBundle) -> Path:
    return random_bundle.bundle


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One phone, with the app on it; its files lie under the directory."""
    phone = tmp_path / "phone"
    phone.mkdir()
    (phone / "installed").write_text(APPLICATION)
    know(phone, listed("Ada"))
    program = tmp_path / "bin" / "xcrun"
    program.parent.mkdir()
    program.write_text(XCRUN.format(python=sys.executable, phone=str(phone)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return phone


def calls(phone: Path) -> list[list[str]]:
    return [json.loads(line) for line in (phone / "log").read_text().splitlines()]


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def pushed(phone: Path, name: str) -> Path:
    return phone / "ID-Ada" / APPLICATION / "Documents" / name


def test_every_file_arrives_and_the_manifest_last(exported: Path, phone: Path) -> None:
    result = push(exported)
    assert files_of(pushed(phone, "bundle")) == files_of(exported)
    assert (result.phone, result.folder) == ("Ada", "Documents/bundle")
    assert result.size == sum(map(len, files_of(exported).values()))
    first, last = (call for call in calls(phone) if "copy" in call)
    assert last[-4:-2] == ["--destination", "Documents/bundle/manifest.json"]
    assert first[first.index("--destination") + 1] == "Documents/bundle"
    assert [path.name for path in exported.parent.iterdir() if path.name.startswith(".pushed")] == []


def test_what_is_no_part_of_the_bundle_stays_here(bundle: Path, phone: Path) -> None:
    whole = files_of(bundle)
    (bundle / "messages.jsonl").write_text("private")
    push(bundle)
    assert files_of(pushed(phone, "bundle")) == whole


def test_targets_that_the_app_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Bundle.open(exported).manifest
    for target in get_args(Target):
        changed = msgspec.structs.replace(manifest, target=target)
        monkeypatch.setattr(Bundle, "open", lambda _, found=changed: SimpleNamespace(manifest=found))
        if target in ("onnxruntime", "coreml", "coreai"):
            assert "manifest.json" in files_for_device(exported, TARGETS, name="mine")
        else:
            said = f"runs bundles of target onnxruntime or coreml or coreai, found {target}; export it with --target onnxruntime"
            with pytest.raises(OptionError, match=said):
                files_for_device(exported, TARGETS, name="mine")


def test_half_a_copy_has_no_manifest(exported: Path, phone: Path) -> None:
    (phone / "refused").write_text("manifest.json")
    said = r"devicectl could not copy manifest\.json: No space left\. \(NSPOSIXErrorDomain error 28\.\); try again"
    with pytest.raises(PhoneError, match=said):
        push(exported, name="mine")
    assert "weights.bin" in files_of(pushed(phone, "mine")) and "manifest.json" not in files_of(pushed(phone, "mine"))


def test_command(exported: Path, phone: Path) -> None:
    result = lcsb_json("ios", "push", exported, "--name", "smol-1", "--device", "UDID-Ada")
    assert result["folder"] == "Documents/smol-1"
    assert "next: open the app" in lcsb("ios", "push", exported)


def test_another_app(exported: Path, phone: Path) -> None:
    (phone / "installed").write_text("org.example.mine")
    push(exported, application="org.example.mine")
    assert (phone / "ID-Ada/org.example.mine/Documents/bundle/manifest.json").is_file()


def test_xcrun_is_missing(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = lcsb_error(2, "ios", "push", exported)
    assert message.startswith("error: xcrun is not on PATH, so there is no devicectl; it is a part of Xcode from 15 on, which needs a Mac")


def test_devicectl_is_missing(exported: Path, phone: Path) -> None:
    (phone / "without-devicectl").touch()
    message = lcsb_error(2, "ios", "push", exported)
    assert "/xcrun finds no devicectl; it is a part of Xcode from 15 on" in message and "sudo xcode-select -s" in message


def test_xcrun_cannot_be_run(phone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "xcrun").write_text("#!/nowhere\n")
    with pytest.raises(MissingDependencyError, match=r"xcrun: cannot be run: No such file or directory; it is a part of Xcode"):
        find_devicectl()


@pytest.mark.parametrize(
    ("devices", "device", "kind", "expected"),
    [
        ([], None, PhoneError, "no phone is ready: expected one, found none; connect it, unlock it, trust this computer"),
        ([listed("A", paired=False)], None, PhoneError, r"found A \(not paired\)"),
        ([listed("A", tunnel="unavailable")], None, PhoneError, r"found A \(not connected\)"),
        ([listed("A"), listed("B")], None, OptionError, r"device: 2 phones are connected \(A ID-A, B ID-B\); name one by its identifier"),
        ([listed("A")], "B", PhoneError, "expected B, found none"),
        ([listed("Watch", platform="watchOS"), listed("A", reality="virtual")], None, PhoneError, "found none"),
    ],
)
def test_phones_that_are_not_ready(
    phone: Path, devices: list[dict[str, Any]], device: str | None, kind: type[Exception], expected: str
) -> None:
    know(phone, *devices)
    with pytest.raises(kind, match=expected):
        DeviceCtl.connect(device)


@pytest.mark.parametrize("device", ["B", "ID-B", "UDID-B"])
def test_one_of_two_phones(phone: Path, device: str) -> None:
    know(phone, listed("A"), listed("B", tunnel="connected"), listed("C", paired=False))
    assert DeviceCtl.connect(device).identifier == "ID-B"


def test_the_app_is_not_installed(exported: Path, phone: Path) -> None:
    (phone / "installed").write_text("")
    assert "Ada: the app lcsbmobile.app is not installed; build and install it first" in lcsb_error(1, "ios", "push", exported)


@pytest.mark.parametrize("answer", ["", "{}", '{"result": 3'])
def test_an_answer_that_nobody_knows(phone: Path, answer: str) -> None:
    (phone / "answer").write_text(answer)
    with pytest.raises(PhoneError, match="devicectl could not list the phones: its answer is not what is known of it"):
        DeviceCtl.connect(None)


def test_bundles_that_no_phone_takes(exported: Path, phone: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "damaged"))
    edit(damaged, put("files/weights.bin/sha256", "0" * 64))
    with pytest.raises(IntegrityError):
        push(damaged)
    assert not (phone / "log").exists()


def test_names_are_plain(exported: Path, phone: Path) -> None:
    with pytest.raises(OptionError, match="name: expected letters"):
        push(exported, name="../x")
    with pytest.raises(OptionError, match="app: expected letters"):
        push(exported, application="a b")
