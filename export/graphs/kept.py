"""What a block's forward keeps so that its backward need not repeat the products with the base matrices.

The cheapest set is a minimum cut, as in torch's partitioner for activation checkpointing (arXiv 2211.16691 describes the idea): between
the products, which are not to be repeated, and the values that the backward reads. Everything else (norms, attention's softmax and its
small products, activations, LoRA's) is computed again from what was kept; weights are decompressed again in any case.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import networkx
from torch.fx import Node

from lcsb_mobile.export.graphs.captured import CapturedGraph, ancestors, op_name

SOURCE, SINK = "source", "sink"


def values_to_keep(joint: CapturedGraph, incoming: Collection[str], gradients: Sequence[Node]) -> list[Node]:
    """`joint`: a forward and its backward; `incoming`: its inputs that are gradients, `gradients`: its results that are. The nodes to
    keep, in graph order: those of the fewest bytes in all."""
    order = list(joint.graph.nodes)
    backward = _descendants([node for node, name in zip(joint.placeholders, joint.inputs) if name in incoming])
    needed = ancestors(gradients)
    flow = networkx.DiGraph()
    flow.add_nodes_from((SOURCE, SINK))
    for index, node in enumerate(order):
        if node in backward or node not in needed or node.op == "placeholder":
            continue
        # Of equally large values the later one: less is computed again.
        flow.add_edge((node, "in"), (node, "out"), capacity=_bytes(node) * len(order) ** 2 - index)
        if _is_base_product(node) or op_name(node) == "computed_once":
            flow.add_edge(SOURCE, (node, "in"))  # no capacity: infinite
        for user in node.users:
            if user in backward:
                flow.add_edge((node, "out"), SINK)
            elif user in needed:
                flow.add_edge((node, "out"), (user, "in"))
    _, (above, _) = networkx.minimum_cut(flow, SOURCE, SINK)
    return [node for node in order if (node, "in") in above and (node, "out") not in above]


def _is_base_product(node: Node) -> bool:
    """A product with a decompressed matrix."""
    return op_name(node) == "mm" and any(_is_decompressed(source) for source in node.all_input_nodes)


def _is_decompressed(node: Node) -> bool:
    if op_name(node) == "permute":
        return _is_decompressed(node.all_input_nodes[0])
    return op_name(node).startswith("dequantize_")


def _bytes(node: Node) -> int:
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):  # a split: its parts are kept, if at all
        return sum(math.prod(part.shape) * part.element_size() for part in value)
    return int(math.prod(value.shape) * value.element_size())


def _descendants(nodes: Sequence[Node]) -> set[Node]:
    found: set[Node] = set()
    pending = list(nodes)
    while pending:
        for user in pending.pop().users:
            if user not in found:
                found.add(user)
                pending.append(user)
    return found
