"""The range of every number that is asked for, in one table: options of the command line, and the fields of the same names in Python.

Each value in them can be computed with, and stands in a manifest that every reader takes (`bundle.checks`). So a value is refused here,
before any work, or by nothing. A test holds each verb's numbers to the table, and the table to the manifest's own ranges.
"""

from __future__ import annotations

from typing import NamedTuple

from lcsb_mobile.errors import OptionError

MOST_INTEGER = 2**53  # what every reader of JSON has exactly
MOST_STEPS = 2**31 - 1
NO_CLIPPING = 1e30  # what a manifest says of a gradient that is never scaled down: no norm reaches it


class Range(NamedTuple):
    """From `least` to `most`. `above`, `below`: these bounds are no values themselves. `off`: 0 is one too, and means none.
    `values`: these and no others."""

    least: float
    most: float
    above: bool = False
    below: bool = False
    off: bool = False
    values: tuple[int, ...] = ()

    def holds(self, value: float) -> bool:
        if self.values or (self.off and value == 0):
            return value in self.values or (self.off and value == 0)
        return (self.least < value if self.above else self.least <= value) and (value < self.most if self.below else value <= self.most)

    def expected(self, value: float) -> str:
        """What it is not within: the bound that it breaks, or both of a share and for what is no number."""
        if self.values:
            return " or ".join(map(str, self.values))
        low = "0 or more" if (self.least, self.above) == (0, False) else f"{'more than' if self.above else 'at least'} {self.least:.16g}"
        low = f"0, which is none, or {low}" if self.off else low
        high = f"{'less than' if self.below else 'at most'} {self.most:.16g}"
        if value != value or self.most <= 1:
            return f"{low} and {high}"
        return high if value > self.most else low


RANGES: dict[str, Range] = {
    # of a bundle
    "rank": Range(1, 2**16),
    "alpha": Range(1e-9, 1e9),
    "subsets": Range(1, 2**12),
    "bits": Range(4, 8, values=(4, 8)),
    "embedding-bits": Range(4, 8, values=(4, 8)),
    "accuracy-level": Range(0, 4, values=(0, 2, 4)),
    "group-size": Range(2, 2**16),
    "seq-len": Range(8, 2**14),  # a mask [T, T] of more is none that a runner makes a buffer for
    "data seq-len": Range(1, 2**20),  # where nothing is trained, a text may be cut shorter
    "layers": Range(1, 2**12),
    "weight-decay": Range(0, 1e3),
    "clip-norm": Range(1e-30, NO_CLIPPING, off=True),
    "seed": Range(0, MOST_INTEGER),
    # of a run
    "steps": Range(1, MOST_STEPS),
    "lr": Range(0, 1e30, above=True),
    "warmup": Range(0, MOST_STEPS),
    "accumulation": Range(1, 2**20),
    "hold-out": Range(0, 1, above=True, below=True),
    "eval-every": Range(0, MOST_STEPS),
    "checkpoint-every": Range(1, MOST_STEPS),
    "memory-budget": Range(1, MOST_INTEGER),
    "threads": Range(1, 2**10),
    "examples": Range(6, 2**20),  # of fewer no verdict can come
    # of generation
    "max-tokens": Range(1, 2**20),
    "temperature": Range(0, 1e3),
    "top-p": Range(0, 1, above=True),
    # of what is shown and measured
    "preview": Range(0, 2**20),
    "rounds": Range(1, 10**6),
    # of a server
    "port": Range(0, 2**16 - 1),
}


def range_of(option: str, verb: str = "") -> Range:
    return RANGES.get(f"{verb} {option}") or RANGES[option]


def check_ranges(values: dict[str, float | None], verb: str = "") -> None:
    """Options by name, None for those not given. Raises OptionError with all that are outside their range."""
    faults = [
        f"{option}: expected {range_of(option, verb).expected(value)}, found {value}"
        for option, value in values.items()
        if value is not None and not range_of(option, verb).holds(value)
    ]
    if faults:
        raise OptionError("; ".join(faults))
