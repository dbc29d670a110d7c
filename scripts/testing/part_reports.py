"""What a part's tests came to: from JUnit's XML, as pytest and Maven's surefire write it, or from a plain closing line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

CLOSING_LINE = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(frozen=True)
class Case:
    """One test. `reason`: why it was skipped."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""


def read_cases(paths: Iterable[Path]) -> list[Case]:
    """Each test of JUnit's files, once: a test that fails and whose clean-up fails too has two entries."""
    found: dict[str, Case] = {}
    for path in paths:
        try:
            read = [read_case(node) for node in ElementTree.parse(path).iter("testcase")]
        except ElementTree.ParseError as error:  # what wrote it was ended in the middle
            read = [Case(f"{path} ({error})", "failed")]
        for case in read:
            if case.name not in found or case.outcome == "failed":
                found[case.name] = case
    return list(found.values())


def read_case(node: ElementTree.Element) -> Case:
    name = "::".join(part for part in (node.get("classname"), node.get("name")) if part)
    if node.find("failure") is not None or node.find("error") is not None:
        return Case(name, "failed")
    skipped = node.find("skipped")
    if skipped is not None:
        return Case(name, "skipped", " ".join((skipped.get("message") or "no reason given").split()))
    return Case(name, "passed")


def count(cases: Iterable[Case]) -> Counts:
    outcomes = [case.outcome for case in cases]
    return Counts(outcomes.count("passed"), outcomes.count("failed"), outcomes.count("skipped"))


def read_closing_line(output: str) -> Counts | None:
    """The last one, if there is any."""
    found = CLOSING_LINE.findall(output)
    return Counts(*map(int, found[-1])) if found else None
