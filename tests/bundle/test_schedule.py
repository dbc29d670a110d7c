"""Schedules: what each method trains and propagates through, for any number of layers and subsets."""

from __future__ import annotations

from itertools import chain
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.bundle.schedule import SHUFFLED_ROUNDS, Method, Order, Partition, ScheduleConfig, Subset, make_schedule, partition_layers
from lcsb_mobile.errors import LcsbError, OptionError


@st.composite
def configs(draw: st.DrawFn) -> tuple[ScheduleConfig, int]:
    layers = draw(st.integers(1, 40))
    config = ScheduleConfig(
        method=draw(st.sampled_from(get_args(Method))),
        subsets=draw(st.integers(1, layers)),
        partition=draw(st.sampled_from([None, *get_args(Partition)])),
        order=draw(st.sampled_from(get_args(Order))),
        seed=draw(st.integers(0, 2**32)),
    )
    return config, layers


@given(configs())
def test_every_step_is_a_subset(case: tuple[ScheduleConfig, int]) -> None:
    config, layers = case
    for step in make_schedule(config, layers):
        step.check(layers)


@given(configs())
def test_each_round_trains_each_layer_once(case: tuple[ScheduleConfig, int]) -> None:
    config, layers = case
    steps = make_schedule(config, layers)
    k = config.subsets
    if config.method == "full":
        assert steps == (Subset(train=tuple(range(layers)), propagate=tuple(range(layers))),)
    elif config.method == "freeze":
        top = tuple(range(layers - layers // k, layers))
        assert steps == (Subset(train=top, propagate=top),)
    else:
        assert len(steps) == k * (SHUFFLED_ROUNDS if config.order == "shuffled" else 1)
        for start in range(0, len(steps), k):
            assert sorted(chain(*(step.train for step in steps[start : start + k]))) == list(range(layers))


@given(configs())
def test_what_is_propagated_through(case: tuple[ScheduleConfig, int]) -> None:
    config, layers = case
    for step in make_schedule(config, layers):
        if config.method == "lcsb-exact":
            assert step.propagate == tuple(range(step.train[0], layers))
        else:
            assert step.propagate == step.train


@given(st.integers(1, 60).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, layers))))
def test_partitions(case: tuple[int, int]) -> None:
    layers, k = case
    bands = partition_layers(layers, k, "contiguous")
    assert list(chain(*reversed(bands))) == list(range(layers))  # the first band is the top of the model
    assert {len(band) for band in bands} <= {layers // k, -(-layers // k)}
    interleaved = partition_layers(layers, k, "interleaved")
    assert interleaved == [tuple(layer for layer in range(layers) if layer % k == number) for number in range(k)]


@pytest.mark.parametrize(
    ("method", "trains"),
    [
        ("lcsb-exact", [(4, 5, 6), (2, 3), (0, 1)]),
        ("lcsb-identity", [(0, 3, 6), (1, 4), (2, 5)]),
        ("freeze", [(5, 6)]),
        ("full", [(0, 1, 2, 3, 4, 5, 6)]),
    ],
)
def test_default_partitions(method: Method, trains: list[tuple[int, ...]]) -> None:
    assert [step.train for step in make_schedule(ScheduleConfig(method=method, subsets=3), 7)] == trains


@pytest.mark.parametrize("method", ["lcsb-exact", "lcsb-identity"])
def test_shuffled_is_a_permutation_each_round(method: Method) -> None:
    cyclic = make_schedule(ScheduleConfig(method=method, subsets=5), 10)
    shuffled = ScheduleConfig(method=method, subsets=5, order="shuffled", seed=3)
    steps = make_schedule(shuffled, 10)
    rounds = [steps[start : start + 5] for start in range(0, len(steps), 5)]
    assert all(sorted(part, key=cyclic.index) == list(cyclic) for part in rounds)
    assert len(set(rounds)) > 1
    assert make_schedule(shuffled, 10) == steps
    assert make_schedule(msgspec.structs.replace(shuffled, seed=4), 10) != steps


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("subsets", [-1, 0, 8])
def test_impossible_numbers_of_subsets(method: Method, subsets: int) -> None:
    with pytest.raises(OptionError, match=f"subsets: expected 1 to 7 .*found {subsets}"):
        make_schedule(ScheduleConfig(method=method, subsets=subsets), 7)


def test_unknown_method() -> None:
    config: Any = ScheduleConfig(method="lisa")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="method: expected one of lcsb-exact, lcsb-identity, full, freeze, found 'lisa'"):
        make_schedule(config, 7)


@pytest.mark.parametrize(
    ("train", "propagate", "texts"),
    [
        ((), (), ["train to be non-empty"]),
        ((), (1,), ["train to be non-empty"]),
        ((0, 1), (1,), ["within propagate", "[0, 1] and [1]"]),
        ((1, 0), (0, 1), ["train: expected ascending layers from 0 to 3", "[1, 0]"]),
        ((1,), (1, 1), ["propagate: expected ascending layers", "[1, 1]"]),
        ((4,), (4,), ["train: expected ascending layers from 0 to 3", "[4]"]),
        ((0,), (0, 4), ["propagate: expected", "[0, 4]"]),
        ((-1,), (-1,), ["train: expected", "[-1]"]),
    ],
)
def test_subsets_that_are_refused(train: tuple[int, ...], propagate: tuple[int, ...], texts: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        Subset(train=train, propagate=propagate).check(4)
    assert all(text in str(caught.value) for text in texts), caught.value
    assert isinstance(caught.value, LcsbError)
    assert caught.value.exit_code == 2


def test_subsets_that_are_accepted() -> None:
    for train, propagate in [((0,), (0,)), ((3,), (3,)), ((0, 2), (0, 1, 2, 3)), ((2,), (0, 2))]:
        Subset(train=train, propagate=propagate).check(4)
