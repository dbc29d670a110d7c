"""The example in ios_demo/README.md is the one that the Swift tests compile and run."""

from __future__ import annotations

import re
from pathlib import Path

IOS_DEMO = Path(__file__).parents[2] / "ios_demo"


def test_the_example_is_compiled() -> None:
    (shown,) = re.findall(r"```swift\n(import .*?)```", (IOS_DEMO / "README.md").read_text("utf-8"), re.DOTALL)
    (compiled,) = re.findall(r"// example\n(.*)// /\n", (IOS_DEMO / "Tests/LCSBKitTests/ReadmeExample.swift").read_text("utf-8"), re.DOTALL)
    assert shown == compiled
    assert len(shown.splitlines()) <= 21
