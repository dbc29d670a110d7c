"""Tiles of the weights, decompressed one after the other.

A block's MLP is captured in tiles (`blocks.Projections.rows` and `columns`), but nothing in the graph says that a tile is used up
before the next is decompressed: ONNX Runtime's order, a walk back from the outputs, recomputes the gates of all tiles first and then
holds all their weights. A data dependency says it: the `Slice` that cuts a tile out starts at its offset plus zero times a number
out of the last products of the tile before. Every runtime must respect that, and it costs a few scalar operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from torch.fx import Graph, Node

from lcsb_mobile.export.graphs.captured import CapturedGraph, ancestors, op_name
from lcsb_mobile.export.graphs.tiles import Cuts, stages, sweeps, tiles_behind
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder


def run_tiles_in_turn(b: GraphBuilder, captured: CapturedGraph, values: Mapping[Any, Any]) -> None:
    """`values`: node of the captured graph -> its lowered value. The builder's nodes are no longer in topological order afterwards;
    `save_model` sorts them."""
    for stage in stages(captured.graph):
        _run_stage_in_turn(b, captured, values, stage)


def _run_stage_in_turn(b: GraphBuilder, captured: CapturedGraph, values: Mapping[Any, Any], stage: Cuts) -> None:
    turns: list[tuple[list[Node], list[Node]]] = []  # (the slices that cut a tile out, the last products with it)
    position = {node: index for index, node in enumerate(captured.graph.nodes)}
    for cuts in sweeps(captured.graph, stage):
        last = _last_products(captured.graph, cuts)
        # The forward uses the tiles upwards, autograd downwards.
        order = sorted(last, key=lambda tile: max(position[product] for product in last[tile]))
        turns += [([node for node, number in cuts.items() if number == tile], last[tile]) for tile in order]
    for (_, before), (waiting, _) in itertools.pairwise(turns):
        token = _zero(b, [values[product] for product in before])
        for node in waiting:
            cut: ir.Node = values[node].producer()
            cut.replace_input_with(1, b.op("Add", cut.inputs[1], token))


def _last_products(graph: Graph, cuts: Mapping[Node, int]) -> dict[int, list[Node]]:
    """Tile -> the matrix products that come of this tile alone, and that none of the same needs: once they are there, nothing of the
    tile is needed any more but themselves."""
    behind = tiles_behind(graph, cuts)
    last: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if len(behind[node]) == 1 and op_name(node) == "mm":
            (tile,) = behind[node]
            needed = ancestors([node])
            last[tile] = [product for product in last.get(tile, []) if product not in needed] + [node]
    return last


def _zero(b: GraphBuilder, results: list[ir.Value]) -> ir.Value:
    """int64 [1] of 0, known once all `results` [T, N] are."""
    first = [b.op("Slice", result, b.ints(0, 0), b.ints(1, 1), b.ints(0, 1)) for result in results]
    total = first[0] if len(first) == 1 else b.op("Sum", *first)
    whole = b.op("Cast", b.op("Reshape", total, b.ints(1)), to=ir.DataType.INT64.value)
    return b.op("Mul", whole, b.ints(0))
