"""Writes what every port's verdict is held to: `write_verdict_vectors.py [DIRECTORY]` (tests/golden).

`verdicts.json`: paired losses with their verdicts, and which of the held-out examples are compared. The cases are written by hand, the
answers by this package. All losses are whole numbers of 1/1024, so that their differences are exact and equal ones tie.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from lcsb_mobile.runs.compare import spread
from lcsb_mobile.runs.verdict import judge

DIRECTORY = Path(__file__).resolve().parents[2] / "tests" / "golden"
SPREADS = ((1, 32), (31, 32), (32, 32), (33, 32), (100, 32), (1000, 7), (2**31, 6), (10, 2**20))


def losses(count: int, spread: int, shift: int) -> tuple[list[int], list[int]]:
    """By a formula: losses from 2 to 4, and changes within `spread` that fall by `shift`, in 1024ths."""
    before = [2048 + number * 7919 % 2048 for number in range(count)]
    changes = [(number * 104729 + 12345) % (2 * spread + 1) - spread - shift for number in range(count)]
    return before, [loss + change for loss, change in zip(before, changes, strict=True)]


def cases() -> dict[str, tuple[list[int], list[int]]]:
    """Name -> before, after, in 1024ths."""
    flat = [3072] * 40
    return {
        "one": ([3072], [2048]),
        "five, all lower": ([3000] * 5, [2900, 2800, 2700, 2600, 2500]),
        "six, all lower": ([3000] * 6, [2900, 2800, 2700, 2600, 2500, 2400]),
        "six, all higher by the same": ([3000] * 6, [3001] * 6),
        "six, all but the smallest lower": ([3000] * 6, [3001, 2800, 2700, 2600, 2500, 2400]),
        "nothing changed": (flat, flat),
        "six of forty changed, all lower": (flat, [3072 - number if number <= 6 else 3072 for number in range(1, 41)]),
        "five of forty changed, all lower": (flat, [3072 - number if number <= 5 else 3072 for number in range(1, 41)]),
        "most a little lower, few much higher": ([3000] * 20, [2990 - number for number in range(17)] + [9000, 9001, 9002]),
        "as many ties as pairs": ([3000] * 12, [2990, 3010] * 6),
        "32, distinct": losses(32, 4096, 700),
        "32, tied": losses(32, 3, 1),
        "32, hardly lower": losses(32, 512, 60),
        "32, higher": losses(32, 512, -300),
        "128, the most that is counted out": losses(128, 90, 3),
        "129, the least of the normal distribution": losses(129, 90, 3),
        "200, tied": losses(200, 5, 0),
        "200, higher": losses(200, 900, -150),
    }


def main(directory: Path = DIRECTORY) -> None:
    verdicts = [
        {
            "name": name,
            "before": (before := [loss / 1024 for loss in old]),
            "after": (after := [loss / 1024 for loss in new]),
            "verdict": msgspec.to_builtins(judge(before, after)),
        }
        for name, (old, new) in cases().items()
    ]
    spreads = [{"count": count, "most": most, "chosen": spread(count, most)} for count, most in SPREADS]
    rows = {"verdicts": verdicts, "spreads": spreads}
    body = ",\n".join(f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in values) + "\n]" for key, values in rows.items())
    (directory / "verdicts.json").write_text("{\n" + body + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
