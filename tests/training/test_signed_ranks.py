"""Signed ranks, against every way to sign them, one by one, and against SciPy's answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.ranges import RANGES
from lcsb_mobile.training.signed_ranks import EXACT, LEAST_EXAMPLES, SIGNIFICANCE, signed_ranks


def all_ways(differences: list[int]) -> float:
    """The share of the ways to sign the ranks that make the two sums as unequal as they are, or more."""
    found = np.array([difference for difference in differences if difference], np.int64)
    sizes = np.abs(found)
    ranks = [(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes]
    signs = 1 - 2 * (np.arange(2 ** len(found))[:, None] >> np.arange(len(found)) & 1)
    sums = np.abs(signs @ np.array(ranks))
    return float(np.mean(sums >= abs(np.sign(found) @ np.array(ranks))))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=12) | st.lists(st.integers(-1000, 1000), max_size=12, unique_by=abs))
def test_counted_out(differences: list[int]) -> None:
    assert signed_ranks(differences).p() == all_ways(differences)  # shares of 4096 are exact


def test_the_fewest_that_can_differ() -> None:
    """What `LEAST_EXAMPLES` says of all losses, and the range of the option that follows from it."""
    for count in range(1, 10):
        assert (signed_ranks(range(1, count + 1)).p() <= SIGNIFICANCE) == (count >= LEAST_EXAMPLES)
    assert RANGES["examples"].least == LEAST_EXAMPLES


# scipy.stats.wilcoxon of SciPy 1.17.1, of (37 k + 11) mod m - c for k = 0 … n - 1: method "exact" up to 128, where none are equal, and
# "approx" with correction=True beyond.
@pytest.mark.parametrize(
    ("count", "modulus", "centre", "p"),
    [
        (20, 211, 100.25, 0.9854354858398438),
        (60, 211, 80.25, 0.007832139006540118),
        (128, 211, 92.25, 0.02329621669671811),
        (129, 211, 92.25, 0.022879806697865674),
        (500, 97, 45, 0.025591042389762512),
    ],
)
def test_scipy(count: int, modulus: int, centre: float, p: float) -> None:
    differences = [(37 * number + 11) % modulus - centre for number in range(count)]
    assert signed_ranks(differences).p() == pytest.approx(p, rel=1e-11)


def test_the_normal_distribution_goes_on_where_counting_ends() -> None:
    ranks = signed_ranks([(37 * number + 11) % 211 - 92.25 for number in range(EXACT)])
    assert ranks._normal_tail() == pytest.approx(ranks._exact_tail(), rel=0.02)  # that good is the approximation there
    assert signed_ranks([1.0] * (EXACT + 1)).p() < 1e-25
    assert signed_ranks([1.0, -1.0] * EXACT).p() == 1.0
