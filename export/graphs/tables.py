"""The tables that layers read, as a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lcsb_mobile.export.graphs.captured import CapturedGraph, capture, extract
from lcsb_mobile.export.models.tables import Tables


@dataclass(frozen=True)
class TableGraph:
    """`graph`: (int64 inputs, stored tables, constants) -> the tables. `consts`: those of its inputs that are constants of the program."""

    graph: CapturedGraph
    consts: Mapping[str, Tensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(node.meta["val"].shape) for name, node in zip(self.graph.outputs, self.graph.results)}

    def only(self, names: Iterable[str]) -> TableGraph:
        """The part that makes these."""
        results = dict(zip(self.graph.outputs, self.graph.results))
        inputs = dict(zip(self.graph.placeholders, self.graph.inputs))
        return TableGraph(extract(self.graph, inputs, {name: results[name] for name in names}), self.consts)


def capture_tables(tables: Tables, tokens: int) -> TableGraph:
    """Of `tokens` tokens."""
    examples = {name: torch.zeros(tokens, dtype=torch.int64) for name in tables.inputs}
    examples |= {name: tensor.clone() for name, tensor in {**tables.stored, **tables.consts}.items()}
    names = tuple(examples)

    def make(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(tables.make(dict(zip(names, args))).values())

    return TableGraph(capture(make, list(examples.values()), names, tuple(tables.make(examples))), tables.consts)
