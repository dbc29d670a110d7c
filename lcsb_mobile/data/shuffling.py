"""A seeded order of any number of things, the same in every language. Specification and test vectors: docs/data.md.

The numbers are SplitMix64's (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), whose output
number i is a hash of i: no state goes from one to the next, so they are computed as arrays, and each alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lcsb_mobile.data.spool import Spool

UInt64Array = npt.NDArray[np.uint64]

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
LOW = np.uint64(2**32 - 1)
CHUNK = 1 << 14


def splitmix64(seed: int, positions: UInt64Array) -> UInt64Array:
    """Outputs number `positions` (from 0) of the generator that starts at `seed`, which is taken modulo 2^64."""
    z = (positions + np.uint64(1)) * np.uint64(GAMMA) + np.uint64(seed & MASK)
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(multiplier)
    return z ^ (z >> np.uint64(31))


def shuffled(count: int, seed: int, epoch: int) -> UInt64Array:
    """The numbers from 0 to `count` - 1 in the order of `epoch`, in a mapped file that may be written to. `count` is at most 2^32.

    Number i's hash is output i of the generator that starts at output `epoch` of the generator that starts at `seed`. They are ordered
    by its upper 32 bits, then by i: a sort of 64-bit integers whose lower half is i.
    """
    start = int(splitmix64(seed, np.array([epoch & MASK], np.uint64))[0])
    keys = Spool(np.uint64)
    for first in range(0, count, CHUNK):
        numbers = np.arange(first, min(first + CHUNK, count), dtype=np.uint64)
        keys.append(splitmix64(start, numbers) & ~LOW | numbers)
    order = keys.mapped(writable=True)
    order.sort()
    order &= LOW
    return order
