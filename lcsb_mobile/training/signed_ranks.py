"""Wilcoxon's signed ranks: are paired differences rather of one sign? It knows no losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcsb_mobile.arrays import Int64Array

SIGNIFICANCE = 0.05  # the largest p that is called a difference
LEAST_EXAMPLES = 6  # of fewer no losses give a p as small: 2 / 2^n is above it
EXACT = 128  # differences, up to which p is counted out


@dataclass(frozen=True, eq=False)
class SignedRanks:
    """The differences that are not zero, ranked by size, equal ones by the mean of their ranks (Wilcoxon, Biometrics Bulletin 1, 1945).

    `ranks`: int64 [differences], times two, so that they are whole; `positive` and `negative` are the sums of theirs. Differences of zero
    are left out, as Wilcoxon did and as R and SciPy do by default: whoever has the losses finds the same p there.
    """

    ranks: Int64Array
    positive: int
    negative: int

    def p(self) -> float:
        """Two-sided: the probability of sums as unequal, if each difference were as likely of the other sign."""
        return min(1.0, 2 * (self._exact_tail() if len(self.ranks) <= EXACT else self._normal_tail()))

    def _exact_tail(self) -> float:
        """Of all ways to sign the ranks the share whose positive ones sum to as much as the larger sum."""
        ways = np.zeros(int(self.ranks.sum()) + 1)  # by sum: the share of the ways to sign the ranks so far
        ways[0] = 1.0
        for rank in self.ranks.tolist():
            ways[rank:] += ways[:-rank].copy()
            ways /= 2
        return math.fsum(ways[max(self.positive, self.negative) :])

    def _normal_tail(self) -> float:
        """The same by the normal distribution with this mean and variance, which is that of the ranks as tied; corrected for continuity by
        half a rank."""
        deviation = math.sqrt(math.fsum(rank * rank for rank in self.ranks.tolist())) / 2
        beyond = max(0.0, abs(self.positive - self.negative) / 2 - 1)
        return math.erfc(beyond / deviation / math.sqrt(2)) / 2


def signed_ranks(differences: Sequence[float]) -> SignedRanks:
    values = np.array([difference for difference in differences if difference != 0], np.float64)
    _, group, sizes = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks = (2 * last - sizes + 1)[group].astype(np.int64)  # of equal ones the first rank and the last, added
    positive = int(ranks[values > 0].sum())
    return SignedRanks(ranks, positive, int(ranks.sum()) - positive)
