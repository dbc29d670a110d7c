"""Writes which characters the `tokenizers` library takes for letters, numbers and marks, as Kotlin: `write_unicode_classes.py [FILE]`.

Each Android version knows another version of Unicode, and so does each part of the library (16 for letters, 9 for marks): asked of the
phone's own tables, a text would have other tokens on another phone. The library is asked about every code point.
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

FILE = Path(__file__).resolve().parents[2] / "android_demo/core/src/main/kotlin/lcsbmobile/core/text/UnicodeTables.kt"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
OTHER = "\ue000"  # for private use: of no class
LAST_MARK = "\u0345"  # of the highest combining class: any other mark goes before it
HANGUL = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))  # vowels and finals that compose by arithmetic

HEAD = """\
package lcsbmobile.core.text

/**
 * Letters, numbers of regular expressions, what the Digits pre-tokenizer takes for numbers besides, and what normalisation joins to the
 * character before it or reorders, in the library tokenizers {version}: write_unicode_classes.py wrote this file. Two numbers a
 * range, in base 36: characters passed over since the last range, characters.
 */
internal object UnicodeTables {{
"""


def members(splits: Callable[[str], bool]) -> list[int]:
    return [point for point in range(0x110000) if not 0xD800 <= point < 0xE000 and splits(chr(point))]


def joining() -> list[int]:
    """Marks of a combining class, and the second of two characters that become one."""
    normalize = normalizers.NFC().normalize_str
    marks = members(lambda mark: mark == LAST_MARK or normalize(f"x{LAST_MARK}{mark}") != f"x{LAST_MARK}{mark}")
    seconds = set()
    for composed in map(chr, range(0x110000)):
        parts = unicodedata.decomposition(composed).split() if not "\ud800" <= composed <= "\udfff" else []
        pair = "".join(chr(int(part, 16)) for part in parts) if len(parts) == 2 and parts[0][0] != "<" else ""
        if pair and normalize(pair) == composed:
            seconds.add(ord(pair[1]))
    return sorted({*marks, *seconds, *HANGUL})


def base36(number: int) -> str:
    return (base36(number // 36) if number >= 36 else "") + DIGITS[number % 36]


def ranges(points: list[int]) -> Iterator[str]:
    """(gap, length) of each range of numbers that follow each other."""
    end = 0
    for _, group in itertools.groupby(enumerate(points), key=lambda pair: pair[1] - pair[0]):
        run = [point for _, point in group]
        yield f"{base36(run[0] - end)} {base36(len(run))}"
        end = run[-1] + 1


def table(name: str, points: list[int]) -> str:
    lines = textwrap.wrap(" ".join(ranges(points)), 118)
    return f"    const val {name} =\n        " + " +\n        ".join(f'"{line} "' for line in lines) + "\n"


def text() -> str:
    letter, number = (pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (r"\p{L}", r"\p{N}"))
    digits = pre_tokenizers.Digits(individual_digits=True)

    def isolates(splitter: pre_tokenizers.PreTokenizer) -> Callable[[str], bool]:
        return lambda character: len(splitter.pre_tokenize_str(OTHER + character + OTHER)) == 3

    numbers, numeric = members(isolates(number)), members(isolates(digits))
    if set(numbers) - set(numeric):
        raise SystemExit("a number of regular expressions that Digits does not take for one: UnicodeClasses.kt must be changed")
    more = [point for point in numeric if point not in set(numbers)]
    tables = (("LETTERS", members(isolates(letter))), ("NUMBERS", numbers), ("MORE_NUMERIC", more), ("JOINING", joining()))
    return HEAD.format(version=tokenizers.__version__) + "\n".join(table(*each) for each in tables) + "}\n"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    path.write_text(text(), encoding="utf-8")
