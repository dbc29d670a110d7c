"""Writes which characters the `tokenizers` library takes for letters, numbers and marks, as Kotlin, as Swift and as TypeScript, and for the
last two how it composes characters: `write_unicode_classes.py [KOTLIN SWIFT TYPESCRIPT]`.

Each version of Android, of iOS or of a browser knows another version of Unicode, and so does each part of the library (16 for letters, 9
for marks): asked of the device's own tables, a text would have other tokens on another one. The library is asked about every code point.
"""

from __future__ import annotations

import itertools
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
KOTLIN = ROOT / "android_demo/core/src/main/kotlin/lcsbmobile/core/text/UnicodeTables.kt"
SWIFT = ROOT / "ios_demo/Sources/LCSBKit/text/UnicodeTables.swift"
TYPESCRIPT = ROOT / "web_demo/kit/text/unicodeTables.ts"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
OTHER = "\ue000"  # for private use: of no class
LAST_MARK = "\u0345"  # of the highest combining class: any other mark goes before it
HANGUL = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))  # vowels and finals that compose by arithmetic

KOTLIN_HEAD = """\
package lcsbmobile.core.text

/**
 * Letters, numbers of regular expressions, what the Digits pre-tokenizer takes for numbers besides, and what normalisation joins to the
 * character before it or reorders, in the library tokenizers {version}: write_unicode_classes.py wrote this file. Two numbers a
 * range, in base 36: characters passed over since the last range, characters.
 */
internal object UnicodeTables {{
"""
SWIFT_HEAD = """\
/// What the library tokenizers {version} knows of Unicode: write_unicode_classes.py wrote this file. Numbers in base 36.
///
/// Letters, numbers of regular expressions, what the Digits pre-tokenizer takes for numbers besides: two numbers a range, characters passed
/// over since the last range and characters. What normalisation joins to the character before it or reorders: likewise, and the combining
/// class. What it puts together, and what it takes apart for good: characters passed over, the first part, the second or 0.
enum UnicodeTables {{
"""
TYPESCRIPT_HEAD = """\
// What the library tokenizers {version} knows of Unicode: write_unicode_classes.py wrote this file. Numbers in base 36.
//
// Letters, numbers of regular expressions, what the Digits pre-tokenizer takes for numbers besides: two numbers a range, characters passed
// over since the last range and characters. What normalisation joins to the character before it or reorders: likewise, and the combining
// class. What it puts together, and what it takes apart for good: characters passed over, the first part, the second or 0.
"""

Rows = list[tuple[int, ...]]


def characters() -> Iterator[str]:
    return (chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)


def members(belongs: Callable[[str], bool]) -> list[int]:
    return [ord(character) for character in characters() if belongs(character)]


def pair(character: str) -> str:
    """The one or two characters that one is the same as, by Unicode's own table; empty for none."""
    parts = unicodedata.decomposition(character).split()
    return "" if not parts or parts[0][0] == "<" else "".join(chr(int(part, 16)) for part in parts)


def composing() -> Rows:
    """(character, first, second) of those that two become."""
    normalize = normalizers.NFC().normalize_str
    pairs = ((character, pair(character)) for character in characters())
    return [(ord(whole), ord(parts[0]), ord(parts[1])) for whole, parts in pairs if len(parts) == 2 and normalize(parts) == whole]


def decomposing() -> Rows:
    """(character, first, second or 0) of those that are not left as they are."""
    normalize = normalizers.NFC().normalize_str
    changed = [character for character in characters() if normalize(character) != character]
    return [(ord(whole), *map(ord, f"{pair(whole)}\0"[:2])) for whole in changed]


def joining() -> dict[int, int]:
    """Marks of a combining class, and the second of two characters that become one; with their class, the same in every Unicode."""
    normalize = normalizers.NFC().normalize_str
    marks = members(lambda mark: mark == LAST_MARK or normalize(f"x{LAST_MARK}{mark}") != f"x{LAST_MARK}{mark}")
    seconds = {second for _, _, second in composing()}
    return {point: unicodedata.combining(chr(point)) for point in sorted({*marks, *seconds, *HANGUL})}


def classes() -> dict[str, list[int]]:
    letter, number = (pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (r"\p{L}", r"\p{N}"))
    digits = pre_tokenizers.Digits(individual_digits=True)

    def isolates(splitter: pre_tokenizers.PreTokenizer) -> Callable[[str], bool]:
        return lambda character: len(splitter.pre_tokenize_str(OTHER + character + OTHER)) == 3

    numbers, numeric = members(isolates(number)), members(isolates(digits))
    if set(numbers) - set(numeric):
        raise SystemExit("a number of regular expressions that Digits does not take for one: UnicodeClasses must be changed")
    more = [point for point in numeric if point not in set(numbers)]
    return {"LETTERS": members(isolates(letter)), "NUMBERS": numbers, "MORE_NUMERIC": more}


def ranges(points: list[int]) -> Rows:
    """(first, characters) of each range of points that follow each other."""
    groups = (list(group) for _, group in itertools.groupby(enumerate(points), key=lambda place: place[1] - place[0]))
    return [(group[0][1], len(group)) for group in groups]


def by_class(points: dict[int, int]) -> Rows:
    """(first, characters, class), where the class is one."""
    groups = ([point for point, _ in group] for _, group in itertools.groupby(points.items(), key=lambda each: each[1]))
    return [(*run, points[run[0]]) for group in groups for run in ranges(group)]


def base36(number: int) -> str:
    return (base36(number // 36) if number >= 36 else "") + DIGITS[number % 36]


def lines(rows: Rows, are_ranges: bool = True) -> list[str]:
    """The first number of each as its distance from the end of the row before."""
    ends = [0, *(row[0] + (row[1] if are_ranges else 1) for row in rows)]
    return textwrap.wrap(" ".join(base36(number) for end, row in zip(ends, rows, strict=False) for number in (row[0] - end, *row[1:])), 118)


def kotlin() -> str:
    tables = {name: ranges(points) for name, points in (classes() | {"JOINING": list(joining())}).items()}
    parts = {name: " +\n            ".join(f'"{line} "' for line in lines(rows)) for name, rows in tables.items()}
    written = (f"    const val {name} =\n        {part}" for name, part in parts.items())
    return KOTLIN_HEAD.format(version=tokenizers.__version__) + "\n\n".join(written) + "\n}\n"


def composing_tables() -> dict[str, list[str]]:
    """The lines of each, for a language that composes by itself."""
    tables = {name: lines(ranges(points)) for name, points in classes().items()}
    tables["JOINING"] = lines(by_class(joining()))
    return tables | {name: lines(rows, are_ranges=False) for name, rows in (("COMPOSING", composing()), ("DECOMPOSING", decomposing()))}


def swift(tables: dict[str, list[str]]) -> str:
    written = (f'    static let {camel(name)}: StaticString = """\n' + indented([*table, '"""']) for name, table in tables.items())
    return SWIFT_HEAD.format(version=tokenizers.__version__) + "\n\n".join(written) + "\n}\n"


def typescript(tables: dict[str, list[str]]) -> str:
    written = (f"\nexport const {name} = `\n{indented(table, 2)}`;\n" for name, table in tables.items())
    return TYPESCRIPT_HEAD.format(version=tokenizers.__version__) + "".join(written)


def camel(name: str) -> str:
    first, *others = name.lower().split("_")
    return first + "".join(map(str.title, others))


def indented(table: list[str], by: int = 8) -> str:
    return "\n".join(" " * by + line for line in table)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]] or [KOTLIN, SWIFT, TYPESCRIPT]
    tables = composing_tables()
    for path, content in zip(paths, (kotlin(), swift(tables), typescript(tables)), strict=True):
        path.write_text(content, encoding="utf-8")
