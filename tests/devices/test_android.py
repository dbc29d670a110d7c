"""`lcsb android push` against a stand-in for adb, which answers as adb does and keeps what is pushed. No phone was at hand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from helpers.bundles import RandomBundle, lcsb, lcsb_error, lcsb_json
from helpers.hostile import edit, put

from lcsb_mobile.devices.android import APPLICATION, Adb, find_adb, push
from lcsb_mobile.devices.pushed import NAME
from lcsb_mobile.errors import IntegrityError, OptionError, PhoneError

ADB = """#!{python}
import os, shutil, subprocess, sys
from pathlib import Path
phone = Path({phone!r})
said = (phone / "said").read_text() if (phone / "said").exists() else ""
arguments = sys.argv[1:]
with open(phone / "log", "a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments == ["devices"]:
    print("List of devices attached\\n" + (phone / "devices").read_text() + "\\n")
    sys.exit()
assert arguments[0] == "-s"
if arguments[2] == "push":
    target = Path(str(phone) + arguments[4])
    if said and said in arguments[3]:
        sys.exit("adb: error: failed to copy: remote couldn't create file: Permission denied")
    assert target.parent.is_dir()
    shutil.copy(arguments[3], target)
elif arguments[3] == "df -k /sdcard":
    print("Filesystem 1K-blocks Used Available Use% Mounted on\\n/dev/fuse 9 9 " + (phone / "free").read_text() + " 51% /storage/emulated")
else:
    command = arguments[3].replace("pm path ", f"cat {{phone}}/installed/").replace("/sdcard", f"{{phone}}/sdcard")
    sys.exit(subprocess.run(["sh", "-c", command], stderr=subprocess.DEVNULL).returncode)
"""


@pytest.fixture
def exported(random_bundle: RandomBundle) -> Path:
    return random_bundle.bundle


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One phone, with the app on it; its files lie under the directory."""
    phone = tmp_path / "phone"
    (phone / "sdcard").mkdir(parents=True)
    (phone / "installed").mkdir()
    (phone / "installed" / APPLICATION).write_text("package:/data/app/base.apk\n")
    (phone / "devices").write_text("PHONE1\tdevice")
    (phone / "free").write_text("9000000")
    program = tmp_path / "bin" / "adb"
    program.parent.mkdir()
    program.write_text(ADB.format(python=sys.executable, phone=str(phone)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    return phone


def pushed_files(phone: Path, name: str) -> dict[str, bytes]:
    folder = phone / "sdcard/Android/data" / APPLICATION / "files/bundles" / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_every_file_arrives_and_the_manifest_last(exported: Path, phone: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = push(exported, progress=lambda done, total: seen.append((done, total)))
    assert pushed_files(phone, "bundle") == files_of(exported)
    assert (result.phone, result.size) == ("PHONE1", sum(map(len, files_of(exported).values())))
    assert seen[-1] == (result.size, result.size) and seen == sorted(seen)
    calls = (phone / "log").read_text().splitlines()
    assert calls[-1].endswith("/.manifest.json " + result.folder + "/manifest.json") and "push" not in calls[-1]
    assert ".manifest.json" in calls[-2] and "push" in calls[-2]


def test_a_second_push_hides_the_first_until_it_is_whole(exported: Path, phone: Path) -> None:
    push(exported, name="mine")
    (phone / "said").write_text("weights.bin")
    with pytest.raises(PhoneError, match=r"adb could not copy weights\.bin: adb: error: .*Permission denied; try again"):
        push(exported, name="mine")
    assert "manifest.json" not in pushed_files(phone, "mine")


def test_command(exported: Path, phone: Path) -> None:
    result = lcsb_json("android", "push", exported, "--name", "smol-1", "--serial", "PHONE1")
    assert result["folder"] == f"/sdcard/Android/data/{APPLICATION}/files/bundles/smol-1"
    assert "next: open the app" in lcsb("android", "push", exported)


def test_adb_is_missing(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    message = lcsb_error(2, "android", "push", exported)
    assert message.startswith(f"error: adb is not on PATH nor in {tmp_path}/sdk/platform-tools; install the Android SDK platform tools")


def test_adb_of_the_sdk(phone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "sdk" / "platform-tools"
    tools.mkdir(parents=True)
    shutil.move(tmp_path / "bin" / "adb", tools / "adb")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert find_adb() == str(tools / "adb")


@pytest.mark.parametrize(
    ("devices", "serial", "kind", "expected"),
    [
        ("", None, PhoneError, "no phone is ready: expected one, found none; connect it"),
        ("A\toffline", None, PhoneError, r"found A \(offline\)"),
        ("A\tunauthorized", None, PhoneError, "A: the phone has not allowed this computer; unlock it"),
        ("A\tdevice\nB\tdevice", None, OptionError, r"serial: 2 phones are connected \(A, B\); name one with --serial"),
        ("A\tdevice", "B", PhoneError, r"expected B, found A \(device\)"),
    ],
)
def test_phones_that_are_not_ready(phone: Path, devices: str, serial: str | None, kind: type[Exception], expected: str) -> None:
    (phone / "devices").write_text(devices)
    with pytest.raises(kind, match=expected):
        Adb.connect(serial)


def test_one_of_two_phones(phone: Path) -> None:
    (phone / "devices").write_text("A\tdevice\nB\tdevice\nC\tunauthorized")
    assert Adb.connect("B").serial == "B"


def test_the_app_is_not_installed(exported: Path, phone: Path) -> None:
    (phone / "installed" / APPLICATION).unlink()
    assert "the app lcsbmobile.app is not installed; build and install it first" in lcsb_error(1, "android", "push", exported)


def test_too_little_storage(exported: Path, phone: Path) -> None:
    (phone / "free").write_text("60000")
    assert "PHONE1: 61.4 MB are free, and the bundle takes" in lcsb_error(1, "android", "push", exported)
    assert not (phone / "sdcard" / "Android").exists()


@pytest.mark.training_api
def test_bundles_of_a_target_that_the_app_does_not_run(random_training_bundle: RandomBundle, phone: Path) -> None:
    refused = lcsb_error(2, "android", "push", random_training_bundle.bundle)
    assert "the app runs bundles of target onnxruntime, found onnxruntime-training" in refused
    assert not (phone / "log").exists()


def test_bundles_that_no_phone_takes(exported: Path, phone: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "damaged"))
    edit(damaged, put("files/weights.bin/sha256", "0" * 64))
    with pytest.raises(IntegrityError):
        push(damaged)
    assert not (phone / "log").exists()


@pytest.mark.parametrize("name", ["../x", "a b", "a;reboot", "", ".hidden", "é"])
def test_names_are_plain(exported: Path, phone: Path, name: str) -> None:
    assert not NAME.fullmatch(name)
    if name:
        with pytest.raises(OptionError, match="name: expected letters"):
            push(exported, name=name)
