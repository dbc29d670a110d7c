"""Which layers a step trains, and through which it propagates: the cyclic schedule, written out as data."""

from __future__ import annotations

import random
from typing import Literal, get_args

from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError

Method = Literal["lcsb-exact", "lcsb-identity", "full", "freeze"]
Partition = Literal["contiguous", "interleaved"]
Order = Literal["cyclic", "shuffled"]

SHUFFLED_ROUNDS = 16  # a shuffled schedule is written out as that many permutations of the subsets, then repeats


class Subset(Record, frozen=True):
    """One step's layers, ascending. `train`: their LoRA gradients are computed. `propagate`: the gradient passes through
    their true Jacobian; it contains `train`. Every other layer above min(train) is the identity; below it nothing runs."""

    train: tuple[int, ...]
    propagate: tuple[int, ...]

    def check(self, num_layers: int) -> None:
        """Raises OptionError unless the layers are ascending, within the model, and train is not empty and in propagate."""
        for name, layers in (("train", self.train), ("propagate", self.propagate)):
            if list(layers) != sorted(set(layers)) or any(not 0 <= layer < num_layers for layer in layers):
                raise OptionError(f"{name}: expected ascending layers from 0 to {num_layers - 1}, found {list(layers)}")
        if not self.train or not set(self.train) <= set(self.propagate):
            raise OptionError(f"expected train to be non-empty and within propagate, found {list(self.train)} and {list(self.propagate)}")


class ScheduleConfig(Record, frozen=True):
    """How a schedule is made. `partition=None` takes the method's own: contiguous for lcsb-exact, interleaved for
    lcsb-identity (as published, arXiv 2602.13073)."""

    method: Method = "lcsb-exact"
    subsets: int = 4
    partition: Partition | None = None
    order: Order = "cyclic"
    seed: int = 0


def partition_layers(num_layers: int, subsets: int, partition: Partition) -> list[tuple[int, ...]]:
    """K disjoint subsets that cover all layers; contiguous bands are listed from the top of the model down."""
    if partition == "interleaved":
        return [tuple(range(k, num_layers, subsets)) for k in range(subsets)]
    bounds = [num_layers * k // subsets for k in range(subsets + 1)]
    return [tuple(range(bounds[k], bounds[k + 1])) for k in reversed(range(subsets))]


def make_schedule(config: ScheduleConfig, num_layers: int) -> tuple[Subset, ...]:
    """The steps of one cycle.

    `full` and `freeze` have one step (all layers; the top 1/K of them). The lcsb methods have K steps, or
    K * SHUFFLED_ROUNDS when shuffled. Raises OptionError when K is not from 1 to the number of layers.
    """
    if config.method not in get_args(Method):
        raise OptionError(f"method: expected one of {', '.join(get_args(Method))}, found {config.method!r}")
    k = config.subsets
    if not 1 <= k <= num_layers:
        raise OptionError(f"subsets: expected 1 to {num_layers} (the model's layers), found {k}")
    everything = tuple(range(num_layers))
    if config.method == "full":
        return (Subset(train=everything, propagate=everything),)
    if config.method == "freeze":
        top = everything[-max(1, num_layers // k) :]
        return (Subset(train=top, propagate=top),)
    exact = config.method == "lcsb-exact"
    layers = partition_layers(num_layers, k, config.partition or ("contiguous" if exact else "interleaved"))
    cycle = [Subset(train=train, propagate=everything[train[0] :] if exact else train) for train in layers]
    if config.order == "cyclic":
        return tuple(cycle)
    generator = random.Random(config.seed)
    return tuple(subset for _ in range(SHUFFLED_ROUNDS) for subset in generator.sample(cycle, k))
