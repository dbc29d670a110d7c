"""SplitMix64 and the orders made of it: against a slow reference, and against the vectors that the ports read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.data.shuffling import CHUNK, shuffled, splitmix64

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[1] / "golden" / "data_pipeline.json").read_text())
SEEDS = st.integers(-(2**70), 2**70)


class Generator:
    """The generator as its paper has it: a state that grows by a constant, and a mix of it. Java's SplittableRandom."""

    def __init__(self, seed: int) -> None:
        self.state = seed % 2**64

    def next(self) -> int:
        self.state = z = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31


def outputs(seed: int, count: int) -> list[int]:
    generator = Generator(seed)
    return [generator.next() for _ in range(count)]


@given(SEEDS, st.integers(1, 9))
def test_is_the_papers_generator(seed: int, count: int) -> None:
    assert splitmix64(seed, np.arange(count, dtype=np.uint64)).tolist() == outputs(seed, count)


def test_published_outputs() -> None:
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert splitmix64(1234567, np.arange(5, dtype=np.uint64)).tolist() == expected  # of seed 1234567, as Rosetta Code lists them


@given(st.integers(0, 60), SEEDS, st.integers(0, 5))
def test_order_is_a_sort_by_hash(count: int, seed: int, epoch: int) -> None:
    hashes = outputs(outputs(seed, epoch + 1)[epoch], count)
    assert shuffled(count, seed, epoch).tolist() == sorted(range(count), key=lambda number: (hashes[number] >> 32, number))


def test_the_epoch_before_the_first() -> None:
    """Output -1 is that of the state a step back."""
    before = Generator(Generator(5).state - 0x9E3779B97F4A7C15).next()
    hashes = outputs(before, 40)
    assert shuffled(40, 5, -1).tolist() == sorted(range(40), key=hashes.__getitem__)


def test_long_orders_are_permutations() -> None:
    """Several chunks long; and long enough that some upper halves of the hashes are equal."""
    count = 40 * CHUNK + 3
    order = shuffled(count, 1, 0)
    hashes = splitmix64(int(splitmix64(1, np.zeros(1, np.uint64))[0]), np.arange(count, dtype=np.uint64)) >> np.uint64(32)
    assert len(np.unique(hashes)) < count
    assert np.array_equal(order, np.lexsort([np.arange(count), hashes]))


def test_positions_are_even() -> None:
    """Every number comes first equally often: in 200 of 2,000 epochs, within five standard deviations of 13."""
    firsts = np.bincount([int(shuffled(10, 3, epoch)[0]) for epoch in range(2_000)], minlength=10)
    assert abs(firsts - 200).max() < 65


@pytest.mark.parametrize("case", VECTORS["splitmix64"], ids=lambda case: case["seed"])
def test_generator_vectors(case: dict[str, Any]) -> None:
    assert [f"{output:016x}" for output in outputs(case["seed"], 8)] == case["outputs"]


@pytest.mark.parametrize("case", VECTORS["orders"], ids=lambda case: f"{case['seed']} {case['epoch']} {case['count']}")
def test_order_vectors(case: dict[str, Any]) -> None:
    assert shuffled(case["count"], case["seed"], case["epoch"]).tolist() == case["order"]
