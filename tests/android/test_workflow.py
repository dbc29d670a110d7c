"""The workflow for Android names what there is. Nothing of it is run here; its Gradle tasks are looked for by android_demo/gradle-check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/android.yml").read_text())
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["gradle"]["steps"]


def commands() -> list[tuple[Path, str]]:
    """Each line that a step runs, and where: of the emulator's step, its script."""
    found = []
    for step in STEPS:
        options = step.get("with", {})
        folder = step.get("working-directory", options.get("working-directory", "."))
        found += [(ROOT / folder, line) for line in (step.get("run") or options.get("script") or "").splitlines()]
    return found


def test_what_it_runs_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    modules = re.findall(r'":([\w-]+)"', (ROOT / "android_demo/settings.gradle.kts").read_text())
    tasks = []
    for folder, line in commands():
        program, *arguments = line.split()
        if program == "make":
            assert set(arguments) <= targets, line
        elif program == "./gradlew":
            assert (folder / program).is_file(), folder
            tasks += arguments
        else:
            assert program in ("echo", "sudo"), line
    assert {task.split(":")[1] for task in tasks} == set(modules)
    assert ":app:connectedDebugAndroidTest" in tasks and ":core:test" in tasks and ":app:testDebugUnitTest" in tasks


def test_actions_are_of_a_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@v\d+(\.\d+\.\d+)?", action) for action in used), used
