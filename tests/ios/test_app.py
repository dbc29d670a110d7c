"""What the app says of itself to the system and to the App Store, against its code. No Xcode read these files here."""

from __future__ import annotations

import json
import plistlib
import re
import zlib
from pathlib import Path
from typing import Any

import make_assets
import pytest

IOS_DEMO = Path(__file__).parents[2] / "ios_demo"
APP = IOS_DEMO / "App"
INFO = plistlib.loads((APP / "Info.plist").read_bytes())
PRIVACY = plistlib.loads((APP / "PrivacyInfo.xcprivacy").read_bytes())
# What is in the app: the tests and the stand-ins are not.
SOURCES = [path for folder in ("App", "Sources") for ending in ("swift", "c", "h") for path in (IOS_DEMO / folder).rglob(f"*.{ending}")]
CODE = "\n".join(path.read_text("utf-8") for path in SOURCES if "lcsb-swift" not in path.parts)

# Apple's list of the functions for which an app must give a reason, of each category.
REASONED = {
    "FileTimestamp": r"\.creationDate\b|\.modificationDate\b|fileModificationDate|contentModificationDate|creationDateKey"
    r"|\bgetattrlist\w*\(|\bfgetattrlist\(|\b[fl]?stat(at)?\(",
    "SystemBootTime": r"\bsystemUptime\b|\bmach_absolute_time\(",
    "DiskSpace": r"volume(Available|Total)Capacity|\bsystem(Free)?Size\b|\bf?statv?fs\(",
    "ActiveKeyboards": r"\bactiveInputModes\b",
    "UserDefaults": r"\bUserDefaults\b|@AppStorage",
}


def test_nothing_is_tracked_or_collected() -> None:
    assert PRIVACY["NSPrivacyTracking"] is False
    assert PRIVACY["NSPrivacyTrackingDomains"] == PRIVACY["NSPrivacyCollectedDataTypes"] == []


@pytest.mark.parametrize("category", REASONED)
def test_functions_that_need_a_reason_have_one(category: str) -> None:
    declared = {each["NSPrivacyAccessedAPIType"] for each in PRIVACY["NSPrivacyAccessedAPITypes"]}
    used = re.findall(REASONED[category], CODE)
    assert bool(used) == (f"NSPrivacyAccessedAPICategory{category}" in declared), used


def test_there_is_no_network() -> None:
    assert not re.findall(r"\bURLSession|\bNWConnection|\bCFSocket|\bsocket\(|https?://", CODE)


def test_the_entitlements_are_memory_alone() -> None:
    assert plistlib.loads((APP / "LCSBMobile.entitlements").read_bytes()) == {"com.apple.developer.kernel.increased-memory-limit": True}


def test_background_work_is_declared() -> None:
    """The project's own check holds the identifiers to the code."""
    assert INFO["UIBackgroundModes"] == ["processing"]
    assert all(name.startswith("$(PRODUCT_BUNDLE_IDENTIFIER).") for name in INFO["BGTaskSchedulerPermittedIdentifiers"])


def test_files_that_are_opened_with_the_app_are_of_known_types() -> None:
    declared = {each["UTTypeIdentifier"] for each in INFO["UTImportedTypeDeclarations"]}
    opened = {name for each in INFO["CFBundleDocumentTypes"] for name in each["LSItemContentTypes"]}
    assert {name for name in opened if not name.startswith("public.")} == declared
    extensions = [
        ending for each in INFO["UTImportedTypeDeclarations"] for ending in each["UTTypeTagSpecification"]["public.filename-extension"]
    ]
    assert extensions == ["jsonl", "safetensors"] and {"public.plain-text", "public.folder"} < opened
    assert INFO["LSSupportsOpeningDocumentsInPlace"] and INFO["UIFileSharingEnabled"]


def pixels(png: bytes) -> bytes:
    at = png.index(b"IDAT")
    return zlib.decompress(png[at + 4 : at + 4 + int.from_bytes(png[at - 4 : at], "big")])


def test_the_assets_are_what_the_script_draws() -> None:
    directory = APP / "Assets.xcassets"
    there = {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    made = make_assets.files()
    icon = "AppIcon.appiconset/icon.png"
    assert pixels(there.pop(icon)) == pixels(made.pop(icon)), "run: python scripts/ios/make_assets.py"
    assert there == made


def sentences(entry: dict[str, Any], language: str) -> list[str]:
    """All forms of a sentence of a string catalog."""
    found = entry["localizations"][language]
    units = [found["stringUnit"]] if "stringUnit" in found else [each["stringUnit"] for each in found["variations"]["plural"].values()]
    return [unit["value"] for unit in units]


CATALOGS = {path.name: json.loads(path.read_text("utf-8"))["strings"] for path in APP.glob("*.xcstrings")}


def test_both_languages_have_every_sentence_with_the_same_places() -> None:
    assert set(CATALOGS) == {"InfoPlist.xcstrings", "Localizable.xcstrings"}
    for name, strings in CATALOGS.items():
        for key, entry in strings.items():
            assert set(entry["localizations"]) == {"en", "de"}, f"{name}: {key}"
            english, german = (
                {tuple(sorted(re.findall(r"%(?:\d+\$)?(?:@|lld)", form))) for form in sentences(entry, language)}
                for language in ("en", "de")
            )
            assert english == german, f"{name}: {key}"


def test_the_views_sentences_are_in_the_catalog() -> None:
    """Every literal in the views that looks like a key, but for names of pictures."""
    used: set[str] = set()
    for path in (IOS_DEMO / "Sources/AppUI").glob("*.swift"):
        code = re.sub(r"///?.*", "", path.read_text("utf-8"))
        code = re.sub(r'(systemImage: |systemName: .* \? "[^"]*" : |systemName: )"[^"]*"', "", code)
        code = re.sub(r"var symbol: String \{.*?\n    \}", "", code, flags=re.DOTALL)
        used |= set(re.findall(r'"([a-z][a-z_]*)"', code))
    assert len(used) > 50
    assert used <= CATALOGS["Localizable.xcstrings"].keys()
