"""The workflow for iOS names what there is. Nothing of it is run here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import make_xcodeproj as xcode
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ios.yml").read_text())
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["xcode"]["steps"]
PACKAGE = (ROOT / "ios_demo/Package.swift").read_text()


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for step in STEPS for line in step.get("run", "").splitlines()]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_what_it_runs_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *arguments in commands():
        if program == "make":
            assert set(arguments) <= targets
        elif "/" in program:
            assert (ROOT / program).is_file()
        else:
            assert program in ("xcodebuild", "mv") or program.startswith("PHONE="), program


def test_what_xcode_builds_is_there() -> None:
    build, test = (command for command in commands() if command[0] == "xcodebuild")
    project = ROOT / option(build, "-project")
    assert project.name == xcode.PROJECT and project.is_dir()
    assert (project / f"xcshareddata/xcschemes/{option(build, '-scheme')}.xcscheme").is_file()
    # A package's own scheme is called so where it has several products.
    (package,) = re.findall(r'^let package = Package\(\n    name: "(\w+)"', PACKAGE, re.MULTILINE)
    assert option(test, "-scheme") == f"{package}-Package" and PACKAGE.count(".library(") > 1
    (only,) = (word.removeprefix("-only-testing:") for word in test if word.startswith("-only-testing:"))
    target, name = only.split("/")
    assert f'.testTarget(name: "{target}"' in PACKAGE
    source = next((ROOT / "ios_demo/Tests" / target).rglob(f"{name}.swift")).read_text()
    assert f"class {name}: XCTestCase" in source and "GoldenTrace" in source


def test_the_simulators_name_is_found() -> None:
    """Of what simctl prints; sed's basic expressions are close enough to Python's here."""
    (line,) = (line for step in STEPS for line in step.get("run", "").splitlines() if "simctl" in line)
    (pattern,) = re.findall(r"s/(.*)/\\1/p", line)
    pattern = pattern.replace(r"\(", "<").replace(r"\)", ">").replace("(", r"\(").replace(")", r"\)").replace("<", "(").replace(">", ")")
    found = re.match(
        pattern.replace(r"\{", "{").replace(r"\}", "}"), "    iPhone 16 Pro (8F0A6D1E-27B4-4C52-9C51-8A3F5E6B7C1D) (Shutdown) "
    )
    assert found and found[1] == "8F0A6D1E-27B4-4C52-9C51-8A3F5E6B7C1D"


def test_actions_are_of_a_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@v\d+(\.\d+\.\d+)?", action) for action in used), used
