"""What a run occupies, and what it keeps: peak memory by steps and kept layers, and the choice that a budget allows. Nothing is run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import Record
from lcsb_mobile.errors import MemoryBudgetError, OptionError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.planning.memory import predicted_peak
from lcsb_mobile.ranges import RANGES
from lcsb_mobile.targets import TARGETS, targets_of

ALL = 10**6  # more layers than any model has


class Plan(Record, frozen=True):
    """`keep`: that many of the top layers keep their activations. Bytes of anonymous memory; `least_bytes`: the least that the run can
    do with, which is with nothing kept or, in a shallow model, with everything: then no program that recomputes is needed."""

    keep: int
    predicted_peak_bytes: int
    least_bytes: int


def plan_run(
    manifest: Manifest,
    subsets: Sequence[Subset],
    base: int,
    budget: int | None,
    keep: int | None,
    accumulation: int = 1,
    estimated: bool = False,
    samples: bool = False,
) -> Plan:
    """What a run of these steps keeps. `base`: anonymous bytes of the process with its runtime imported, measured or `estimated`; `budget`:
    the most bytes allowed, None for no limit; `keep` None: as many layers as the budget allows, none without one; `accumulation`:
    sequences a step; `samples`: texts are written before and after.

    Raises MemoryBudgetError when the run cannot fit, OptionError for a target that cannot keep or whose memory is not known.
    """
    layers = manifest.model.num_hidden_layers
    keeping = TARGETS[manifest.target].keeps_activations
    if keep and not keeping:
        others = " or ".join(targets_of("block programs"))
        raise OptionError(f"keep: target {manifest.target} recomputes every layer; expected none, or a bundle of target {others}")
    if keep is not None and keep < 0:
        raise OptionError(f"keep: expected 0 or more layers, found {keep}")
    choices = range(layers + 1 if keeping else 1)
    peaks = [predicted_peak(manifest, subsets, count, base, accumulation, samples) for count in choices]
    least = min(peaks)
    process = f"{megabytes(base)} of it this process{', by an estimate' if estimated else ' as it is now'}"
    if budget is not None and least > budget:
        raise MemoryBudgetError(
            f"the run is predicted to need at least {megabytes(least)}, {process}; more than the "
            f"{megabytes(budget)} allowed; nothing was run; allow more, or export with a --seq-len shorter than {manifest.seq_len} or a "
            f"--rank below {manifest.lora.rank}"
        )
    fitting = max(count for count, peak in enumerate(peaks) if budget is None or peak <= budget)
    chosen = (0 if budget is None else fitting) if keep is None else min(keep, layers)
    if budget is not None and peaks[chosen] > budget:
        raise MemoryBudgetError(
            f"keeping {chosen} layers is predicted to take {megabytes(peaks[chosen])}, {process}; "
            f"more than the {megabytes(budget)} allowed; nothing was run; keeping {fitting} fits, and the least for this run is "
            f"{megabytes(least)}; allow more, or keep that many"
        )
    return Plan(chosen, peaks[chosen], least)


# Options ----------------------------------------------------------------------------------------------------------------------

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
COUNT = re.compile(r"\d{1,6}", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of "512MB" (10^6), "512MiB" (2^20), "2GB", "1.5GiB", "64kB" or plain "512000000". Raises OptionError."""
    match = SIZE.fullmatch(text)
    unit = UNITS.get(match[2].lower()) if match else None
    most = RANGES["memory-budget"].most
    count = math.floor(min(float(match[1]) * unit, 2 * most)) if match and unit else 0
    if not 1 <= count <= most:
        raise OptionError(f"expected a size such as 512MB, 512MiB, 2GB, 2GiB or a number of bytes, found {text!r}")
    return count


def parse_keep(text: str) -> int:
    """Layers of "none", "all" (ALL, which `plan_run` cuts to the model's) or a number. Raises OptionError."""
    if text == "none":
        return 0
    if text == "all":
        return ALL
    if not COUNT.fullmatch(text):
        raise OptionError(f"keep: expected none, all or a number of layers, found {text!r}")
    return int(text)
