"""The workflow for Linux and macOS names what there is. Nothing of it is run here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/testing"))

from parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
JOBS = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf-8"))["jobs"]


def test_what_it_runs_is_there() -> None:
    goals = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    lines = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    for line in lines:
        if "make " in line:
            assert set(line.partition("make ")[2].split()) <= goals, line
        elif "run_parts.py " in line:
            assert set(line.partition("run_parts.py ")[2].split()) <= {part.name for part in PARTS}, line
        else:
            assert line == "sudo apt-get update"
    assert any(line.endswith("make test") for line in lines) and "make demo" in lines


def test_the_lowest_and_the_newest_python_on_three_systems() -> None:
    matrix = JOBS["pythons"]["strategy"]["matrix"]
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    known = re.findall(r"Python :: (3\.\d+)", project)
    assert matrix["python"] == [known[0], known[-1]] and f'requires-python = ">={known[0]}"' in project
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"} and "ubuntu-24.04-arm" in matrix["os"]
