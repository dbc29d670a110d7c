"""The tiles of matrices in a captured graph: which nodes cut them out of the packed weights, and what comes of which tile.

Matrices that are walked through together, tile by tile, as an MLP's three are, are a *stage*; others are stages of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx
from torch.fx import Graph, Node

from lcsb_mobile.export.graphs.captured import ancestors, op_name

DEQUANTIZE = ("dequantize_int4", "dequantize_int8")

Cuts = dict[Node, int]  # slices that cut a tile out of packed weights or their scales -> the tile's number


def stages(graph: Graph) -> list[Cuts]:
    """Tiles of two matrices are of one stage where a product with the one comes of a single tile of the other, of the same number."""
    dequantizing = [node for node in graph.nodes if op_name(node) in DEQUANTIZE]
    dequantized = {node: [source for source in node.all_input_nodes if source.op != "placeholder"] for node in dequantizing}
    cuts = _numbers([cut for found in dequantized.values() for cut in found])
    tensors: dict[Node, Any] = {cut: cut.args[0] for cut in cuts}
    behind = {tensor: tiles_behind(graph, {cut: cuts[cut] for cut in cuts if tensors[cut] is tensor}) for tensor in set(tensors.values())}
    together = networkx.Graph()
    together.add_nodes_from(behind)
    for node, found in dequantized.items():
        for cut in found:
            together.add_edge(tensors[found[0]], tensors[cut])
            for product in products(node):
                same = [tensor for tensor in behind if behind[tensor][product] == {cuts[cut]}]
                together.add_edges_from((tensors[cut], tensor) for tensor in same)
    order = {tensor: number for number, tensor in reversed(list(enumerate(tensors.values())))}
    parts = sorted(networkx.connected_components(together), key=lambda part: min(order[tensor] for tensor in part))
    return [{cut: number for cut, number in cuts.items() if tensors[cut] in part} for part in parts]


def _numbers(cuts: list[Node]) -> Cuts:
    starts = defaultdict[object, set[int]](set)  # (tensor, axis) -> where its tiles begin, which may be of any sizes
    places: dict[Node, Any] = {cut: cut.args[:3] for cut in cuts}
    for tensor, axis, start in places.values():
        starts[tensor, axis].add(start)
    numbers = {key: {start: number for number, start in enumerate(sorted(found))} for key, found in starts.items()}
    return {cut: numbers[tensor, axis][start] for cut, (tensor, axis, start) in places.items()}


def tiles_behind(graph: Graph, cuts: Mapping[Node, int]) -> dict[Node, frozenset[int]]:
    """Each node -> the tiles, of those that are cut out by `cuts`, that it comes of."""
    behind: dict[Node, frozenset[int]] = {}
    for node in graph.nodes:
        inherited = frozenset[int]().union(*(behind[source] for source in node.all_input_nodes))
        behind[node] = inherited | {cuts[node]} if node in cuts else inherited
    return behind


def products(node: Node) -> Iterator[Node]:
    """The matrix products with a decompressed tile, transposed or not."""
    for user in node.users:
        if op_name(user) == "mm":
            yield user
        elif op_name(user) == "permute":
            yield from products(user)


def sweeps(graph: Graph, cuts: Cuts) -> list[Cuts]:
    """A stage's cuts in the order in which they are wanted: those whose products come of one tile alone, then those whose products need
    what only all tiles together give (a gradient that has passed a norm after the MLP)."""
    behind = tiles_behind(graph, cuts)
    late = {cut for cut in cuts if all(len(behind[product]) > 1 for user in cut.users for product in products(user))}
    return [part for part in ({c: n for c, n in cuts.items() if c not in late}, {c: n for c, n in cuts.items() if c in late}) if part]


@dataclass(frozen=True)
class Turn:
    """A tile's: the slices that cut it out, and the last products with it. Once they are there, nothing of the tile is needed any more but
    themselves, and the next may be cut out."""

    cuts: tuple[Node, ...]
    last: tuple[Node, ...]


def turns(graph: Graph) -> list[list[Turn]]:
    """Of each stage, in the order in which the tiles are to be used up."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    return [[turn for cuts in sweeps(graph, stage) for turn in _turns_of_sweep(graph, cuts, position)] for stage in stages(graph)]


def _turns_of_sweep(graph: Graph, cuts: Cuts, position: Mapping[Node, int]) -> list[Turn]:
    last = _last_products(graph, cuts)
    # The forward uses the tiles upwards, autograd downwards.
    order = sorted(last, key=lambda tile: max(position[product] for product in last[tile]))
    return [Turn(tuple(node for node, number in cuts.items() if number == tile), tuple(last[tile])) for tile in order]


def _last_products(graph: Graph, cuts: Cuts) -> dict[int, list[Node]]:
    """Tile -> the matrix products that come of this tile alone, and that none of the same needs."""
    behind = tiles_behind(graph, cuts)
    last: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if len(behind[node]) == 1 and op_name(node) == "mm":
            (tile,) = behind[node]
            needed = ancestors([node])
            last[tile] = [product for product in last.get(tile, []) if product not in needed] + [node]
    return last


def decompress_for_each_sweep(graph: Graph) -> None:
    """Gives products of the later sweep decompressions of their own where they share one with the earlier: else every tile is held in float
    from the one to the other."""
    for cuts in stages(graph):
        behind = tiles_behind(graph, cuts)
        for node in list(graph.nodes):
            if op_name(node) in DEQUANTIZE and not cuts.keys().isdisjoint(node.all_input_nodes):
                found = list(products(node))
                late = [product for product in found if len(behind[product]) > 1]
                if 0 < len(late) < len(found):
                    _decompress_again(graph, node, late)


def _decompress_again(graph: Graph, dequantized: Node, late: list[Node]) -> None:
    copies: dict[Node, Node] = {}
    inner = {dequantized, *dequantized.all_input_nodes}

    def copy(node: Node) -> Node:
        """The tile's cut, decompression and transposes once more; everything else as it is."""
        if node not in inner and not (op_name(node) == "permute" and copy_needed(node)):
            return node
        if node not in copies:
            copies[node] = graph.node_copy(node, copy)
        return copies[node]

    def copy_needed(node: Node) -> bool:
        while op_name(node) == "permute":
            node = node.all_input_nodes[0]
        return node is dequantized

    first = min(late, key=list(graph.nodes).index)
    with graph.inserting_before(first):
        for product in late:
            for operand in product.all_input_nodes:
                if (again := copy(operand)) is not operand:
                    product.replace_input_with(operand, again)
