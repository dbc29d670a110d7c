"""Gradle's wrapper in android_demo is Gradle's own: a jar in a repository runs on every machine that builds it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

DEMO = Path(__file__).parents[2] / "android_demo"
# By version: Gradle's checksums of gradle-VERSION-wrapper.jar and gradle-VERSION-bin.zip (https://gradle.org/release-checksums). The
# jar's stands in wrapper-checksums.json of github.com/gradle/actions too.
CHECKSUMS = {
    "9.3.1": (
        "b3a875ddc1f044746e1b1a55f645584505f4a10438c1afea9f15e92a7c42ec13",
        "b266d5ff6b90eada6dc3b20cb090e3731302e553a27c5d3e4df1f0d76beaff06",
    )
}


def test_the_wrapper_is_gradles() -> None:
    stated = dict(line.split("=", 1) for line in (DEMO / "gradle/wrapper/gradle-wrapper.properties").read_text().splitlines())
    version = re.fullmatch(r"https\\://services\.gradle\.org/distributions/gradle-([\d.]+)-bin\.zip", stated["distributionUrl"])
    assert version
    jar, distribution = CHECKSUMS[version[1]]
    assert stated["distributionSha256Sum"] == distribution
    assert hashlib.sha256((DEMO / "gradle/wrapper/gradle-wrapper.jar").read_bytes()).hexdigest() == jar


def test_the_wrappers_scripts_start_its_jar() -> None:
    """On Unix the script needs its mark as executable, on Windows its ends of lines."""
    assert (DEMO / "gradlew").stat().st_mode & 0o111 == 0o111
    unix, windows = (DEMO / "gradlew").read_bytes(), (DEMO / "gradlew.bat").read_bytes()
    assert b"\r" not in unix and windows.count(b"\r\n") == windows.count(b"\n")
    assert b"/gradle/wrapper/gradle-wrapper.jar" in unix and rb"\gradle\wrapper\gradle-wrapper.jar" in windows
