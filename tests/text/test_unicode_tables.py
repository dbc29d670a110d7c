"""What Kotlin, Swift and TypeScript know of Unicode is the same: scripts/golden/write_unicode_classes.py writes it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KOTLIN = ROOT / "android_demo/core/src/main/kotlin/lcsbmobile/core/text/UnicodeTables.kt"
SWIFT = ROOT / "ios_demo/Sources/LCSBKit/text/UnicodeTables.swift"
TYPESCRIPT = ROOT / "web_demo/kit/text/unicodeTables.ts"


def tables(path: Path, table: str) -> dict[str, list[int]]:
    """By name, without what parts its words in Kotlin."""
    found = re.findall(table, path.read_text(encoding="utf-8"), re.DOTALL)
    return {re.sub("[^a-z]", "", name.lower()): [int(word, 36) for word in re.findall("[0-9a-z]+", content)] for name, content in found}


def points(numbers: list[int], columns: int) -> list[int]:
    found: list[int] = []
    end = 0
    for place in range(0, len(numbers), columns):
        start = end + numbers[place]
        end = start + numbers[place + 1]
        found += range(start, end)
    return found


def test_all_twins_have_the_same_tables() -> None:
    kotlin = tables(KOTLIN, r"const val (\w+) =(.*?)\n\n?(?=    const|})")
    swift = tables(SWIFT, r'static let (\w+): StaticString = """(.*?)"""')
    assert list(swift) == [*kotlin, "composing", "decomposing"]
    assert tables(TYPESCRIPT, r"export const (\w+) = `(.*?)`;") == swift
    for name in kotlin:
        assert points(kotlin[name], 2) == points(swift[name], 3 if name == "joining" else 2), name
    assert len(points(kotlin["letters"], 2)) > 100_000 and len(points(kotlin["joining"], 2)) > 1000
