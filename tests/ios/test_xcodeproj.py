"""The Xcode project is what its script writes, and hangs together. That Xcode opens and builds it was not seen: there is none on Linux."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import make_xcodeproj as xcode
import pytest
from check_xcodeproj import faults, parsed

IOS_DEMO = Path(__file__).parents[2] / "ios_demo"
PBXPROJ = "LCSBMobile.xcodeproj/project.pbxproj"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    for name in ("App", xcode.PROJECT):
        shutil.copytree(IOS_DEMO / name, tmp_path / name)
    shutil.copy(IOS_DEMO / "Package.swift", tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_the_script_gives_exactly_what_is_checked_in() -> None:
    directory = IOS_DEMO / xcode.PROJECT
    there = {path.relative_to(directory).as_posix(): path.read_text("utf-8") for path in directory.rglob("*") if path.is_file()}
    assert there == xcode.files(), "run: python scripts/ios/make_xcodeproj.py"


def test_it_hangs_together() -> None:
    assert faults(IOS_DEMO, xcode.PROJECT) == []


def test_it_is_read_back_as_it_was_meant() -> None:
    assert parsed(xcode.project_text(xcode.make_project())) == xcode.make_project()


@pytest.mark.parametrize("text", ["{ a = b }", "( a b )", "{ a = b; } c", "{ = b; }", "{ a = }; }", "@"])
def test_what_is_no_property_list(text: str) -> None:
    with pytest.raises(ValueError):
        parsed(text)


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (PBXPROJ, "path = App;", "path = Ap;", "Ap: named, and there is no such file"),
        (PBXPROJ, "App/Info.plist", "App/Infos.plist", "App/Infos.plist: named, and there is no such file"),
        (PBXPROJ, "relativePath = .;", "relativePath = x;", "x/Package.swift: named, and there is no such file"),
        (
            PBXPROJ,
            "productName = AppUI;",
            "productName = AppU;",
            "AppU: linked, and no library of Package.swift",
        ),
        ("App/Info.plist", "(PRODUCT_BUNDLE_IDENTIFIER).night", "(PRODUCT_BUNDLE_IDENTIFIER).day", ".day: permitted, and not used in App/"),
    ],
)
def test_what_does_not_hang_together(demo: Path, file: str, old: str, new: str, fault: str) -> None:
    assert faults(demo, xcode.PROJECT) == []
    edit(demo / file, old, new)
    assert any(fault in each for each in faults(demo, xcode.PROJECT))


def test_an_object_that_is_not_there(demo: Path) -> None:
    edit(demo / PBXPROJ, f"\t\t{xcode.identity('folder')} = ", f"\t\t{'0' * 24} = ")
    assert {each[26:] for each in faults(demo, xcode.PROJECT)} == {
        "used, and there is no such object",
        "PBXFileSystemSynchronizedRootGroup is used by nothing",
    }


def test_the_tiny_model_rides_in_the_app(demo: Path) -> None:
    """The script that copies it runs as Xcode would run it."""
    tiny, sample, made = demo / "tiny", demo / "messages.jsonl", demo / "made"
    sample.write_text("{}")
    files = {"INPUT_FILE_0": tiny, "INPUT_FILE_1": sample, "OUTPUT_FILE_0": made}
    environment = {f"SCRIPT_{name}": str(path) for name, path in files.items()} | {"PATH": "/usr/bin:/bin"}

    def run() -> str:
        done = subprocess.run(["/bin/sh", "-c", xcode.COPY_DEMO], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert run().startswith("warning: no tiny model rides in the app")
    tiny.mkdir()
    (tiny / "manifest.json").write_text("{}")
    assert run() == "" and run() == ""
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*")) == ["sample.jsonl", "tiny", "tiny/manifest.json"]
