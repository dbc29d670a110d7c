"""The order in which a captured graph's nodes stand, where that is the order in which a runtime executes them: the one of the least memory
among depth-first walks back from the results, in which a tile of the weights is used up before the next is cut out.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Graph, GraphModule, Node

from lcsb_mobile.export.graphs.captured import CapturedGraph, op_name, sliced
from lcsb_mobile.export.graphs.tiles import turns

# What has no memory of its own, or will have none.
VIEWS = {"view", "permute", "unsqueeze", "squeeze", "expand", "getitem", "alias", "clone", "computed_once"}

Waits = Mapping[Node, Sequence[Node]]  # node -> what must stand before it though it takes nothing of it


def sorted_module(captured: CapturedGraph) -> GraphModule:
    """The graph in the order of the least memory."""
    waits = tile_waits(captured.graph)
    choices = [depth_first(captured, waits, last_first, top_down) for last_first in (False, True) for top_down in (False, True)]
    order = min(choices, key=peak_bytes)
    graph, copies = Graph(), dict[Node, Node]()
    for node in order:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
        if op_name(node) == "slice":
            source, *bounds = sliced(node)
            copies[node].args = (copies[source], *bounds)
    graph.output(tuple(copies[result] for result in captured.results))
    graph.eliminate_dead_code()  # slices of which only parts were wanted
    return GraphModule(captured.module, graph)


def tile_waits(graph: Graph) -> dict[Node, list[Node]]:
    """A tile's cuts wait for the last products with the tile before it."""
    waits: dict[Node, list[Node]] = {}
    for stage in turns(graph):
        for before, after in itertools.pairwise(stage):
            for cut in after.cuts:
                waits.setdefault(cut, []).extend(before.last)
    return waits


def depth_first(captured: CapturedGraph, waits: Waits, last_first: bool, top_down: bool) -> list[Node]:
    """All of the nodes but the output, inputs first. `last_first`: of a node's operands the one that stands last in the captured graph
    is computed first; `top_down`: of the results the last."""
    position = {node: number for number, node in enumerate(captured.graph.nodes)}
    order: dict[Node, None] = dict.fromkeys(captured.placeholders)

    def needed(node: Node) -> list[Node]:
        operands = sorted(node.all_input_nodes, key=position.__getitem__, reverse=last_first)
        return [source for source in (*waits.get(node, ()), *operands) if source not in order]

    for result in reversed(captured.results) if top_down else captured.results:
        pending = [result]
        while pending:
            node = pending[-1]
            if missing := needed(node):
                pending.append(missing[0])
            else:
                order.setdefault(node)
                pending.pop()
    return list(order)


def peak_bytes(order: Sequence[Node]) -> int:
    """The most that the values hold which are needed again, views with what they are of."""
    owner: dict[Node, Node] = {}
    uses = Counter[Node]()
    for node in order:
        source = node.all_input_nodes[0] if node.all_input_nodes else node
        owner[node] = owner.get(source, source) if op_name(node) in VIEWS and node.all_input_nodes else node
        uses[owner[node]] += len(node.users)
    live = peak = 0
    for node in order:
        live += _bytes(node) if owner[node] is node else 0
        peak = max(peak, live)
        for source in node.all_input_nodes:
            held = owner[source]
            uses[held] -= 1
            live -= _bytes(held) if not uses[held] else 0
    return peak


def _bytes(node: Node) -> int:
    """Of what a node computes; inputs are not held here."""
    value: Any = node.meta.get("val")
    if node.op == "placeholder" or value is None:
        return 0
    parts = value if isinstance(value, (tuple, list)) else [value]
    return sum(math.prod(part.shape) * part.element_size() for part in parts)
