"""Functions of tensors as graphs of core ATen operators, and parts of such graphs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

PRODUCTS = ("mm", "bmm")


def op_name(node: Node) -> str:
    """`aten.mul.Tensor` -> `mul`; a function of Python's own, such as getitem, by its name."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[-1] if schema else getattr(node.target, "__name__", str(node.target))


def sliced(node: Node) -> tuple[Node, int, int, int]:
    """Of a slice (source, axis, start, end); of a slice of a slice along one axis what both cut out: a runtime would copy the first."""
    given: Any = node.args
    source, axis, start, end = (*given, *(None, 0, 0, 2**31)[len(given) :])[:4]
    end = min(end, source.meta["val"].shape[axis])
    if op_name(source) == "slice":
        outer, outer_axis, offset, _ = sliced(source)
        if outer_axis == axis:
            return outer, axis, offset + start, offset + end
    return source, axis, start, end


def ancestors(nodes: Iterable[Node]) -> set[Node]:
    """All that the nodes are computed from, themselves not included."""
    found: set[Node] = set()
    pending = list(nodes)
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                pending.append(source)
    return found


@dataclass(frozen=True)
class CapturedGraph:
    """A graph of core ATen operators and the two lcsb ops; `inputs` and `outputs` name its placeholders and results. Every node has a fake
    tensor of its value, `meta["val"]`."""

    module: GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def graph(self) -> Graph:
        return self.module.graph

    @property
    def placeholders(self) -> list[Node]:
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    @property
    def results(self) -> list[Node]:
        return list(self.graph.output_node().args[0])  # type: ignore[arg-type]

    @property
    def flops(self) -> int:
        """Of the matrix products: 2 m k n each, times the batch of a `bmm`."""
        products = [node for node in self.graph.nodes if op_name(node) in PRODUCTS]
        return sum(2 * math.prod(node.meta["val"].shape) * node.args[0].meta["val"].shape[-1] for node in products)

    @property
    def decompressed_bytes(self) -> int:
        """Of float32 weights, each as often as the graph decompresses it."""
        results = [node.meta["val"] for node in self.graph.nodes if op_name(node).startswith("dequantize_")]
        return sum(result.numel() * result.element_size() for result in results)


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """To put them together takes longer than to capture a small graph."""
    return dict(core_aten_decompositions())


def capture(
    function: Callable[..., tuple[Tensor, ...]], args: Sequence[Tensor], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> CapturedGraph:
    """`function` of tensors as an ATen graph; what it decompresses stays compressed."""
    module = make_fx(function, decomposition_table=_decompositions(), tracing_mode="fake")(*args)
    module.graph.eliminate_dead_code()
    module.recompile()
    return CapturedGraph(module, inputs, outputs)


def extract(captured: CapturedGraph, inputs: Mapping[Node, str], outputs: Mapping[str, Node]) -> CapturedGraph:
    """The part of a graph that computes `outputs` from `inputs`, which may be inner nodes; inputs that it does not need are left out."""
    needed: set[Node] = set()
    pending = list(outputs.values())
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending.extend([] if node in inputs else node.all_input_nodes)
    used = {node: name for node, name in inputs.items() if node in needed}
    graph, copies = Graph(), {}
    for node, name in used.items():
        copies[node] = graph.placeholder(name.replace(".", "_"))
        copies[node].meta["val"] = node.meta["val"]
    for node in captured.graph.nodes:
        if node in needed and node not in used:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(tuple(copies[node] for node in outputs.values()))
    return CapturedGraph(GraphModule(captured.module, graph), tuple(used.values()), tuple(outputs))
