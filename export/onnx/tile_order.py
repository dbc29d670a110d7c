"""Tiles of the weights, decompressed one after the other.

A block's MLP is captured in tiles (`blocks.Projections.rows` and `columns`), but nothing in the graph says that a tile is used up
before the next is decompressed: ONNX Runtime's order, a walk back from the outputs, recomputes the gates of all tiles first and then
holds all their weights. A data dependency says it: the `Slice` that cuts a tile out starts at its offset plus zero times a number
out of the last products of the tile before. Every runtime must respect that, and it costs a few scalar operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.tiles import turns
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder


def run_tiles_in_turn(b: GraphBuilder, captured: CapturedGraph, values: Mapping[Any, Any]) -> None:
    """`values`: node of the captured graph -> its lowered value. The builder's nodes are no longer in topological order afterwards;
    `save_model` sorts them."""
    for stage in turns(captured.graph):
        for before, after in itertools.pairwise(stage):
            token = zero_after(b, [values[product] for product in before.last], ir.DataType.INT64)
            for node in after.cuts:
                cut: ir.Node = values[node].producer()
                cut.replace_input_with(1, b.op("Add", cut.inputs[1], token))


def zero_after(b: GraphBuilder, results: Sequence[ir.Value], dtype: ir.DataType) -> ir.Value:
    """[1] of 0, an integer, known once all `results` [T, N] are."""
    first = [b.op("Slice", result, b.ints(0, 0), b.ints(1, 1), b.ints(0, 1)) for result in results]
    total = first[0] if len(first) == 1 else b.op("Sum", *first)
    whole = b.op("Cast", b.op("Reshape", total, b.ints(1)), to=dtype.value)
    return b.op("Mul", whole, b.const([0], dtype.numpy()))
