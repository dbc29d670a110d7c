"""What a program holds at once while it runs, from its graph: ONNX Runtime's order of execution and plan of buffers, walked through.

Nothing is run. The rules are those of ONNX Runtime's `Graph::ReverseDFSFrom` and `allocation_planner.cc` (one stream, sequential
execution): a value takes the buffer of an earlier one of the same shape that nothing needs any more, if that is known before the run,
and such a buffer is not given back in between. That some operators write over their input is left out (some 5 % too much), and so are
fusions. The program's outputs are the host's buffers and do not count.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

ALIGNMENT = 256  # bytes; of the arena's blocks
VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Identity"}  # the output is the input's buffer
CONSTANT = {"Shape", "ConstantOfShape", "Range"}  # computed when the session is made, as all shapes and ends are known then

# The arena's best fit leaves holes, the more the larger the blocks are. Fitted to the pages of the arena that single programs touched
# (ONNX Runtime 1.32): SmolLM2-135M's shape with 64, 128 and 256 tokens, Qwen2.5-0.5B's with 256; forward, backward, and both keeping.
HOLES = 1.1  # times what is held
LARGE_HOLES = 2.2  # blocks of the largest size

Shape = tuple[tuple[int, ...], int]  # dimensions and bytes of an element


def working_bytes(path: Path, free: int | None = None) -> int | None:
    """Bytes that the runtime's arena touches when the program runs: an estimate, within some 10 %. None for a program with a loop.
    `free`: the size of dimensions that the program leaves open."""
    if any(node.op_type == "Loop" for node in ir.load(path).graph):
        return None
    held, largest = held_bytes(path, free)
    return round(HOLES * held + LARGE_HOLES * largest)


def held_bytes(path: Path, free: int | None = None) -> tuple[int, int]:
    """The most bytes held at once, and the size of the largest value."""
    buffers = _plan(ir.load(path).graph, _shapes(path, False, free), _shapes(path, True, free))
    changes: Counter[int] = Counter()
    for buffer in buffers:
        changes[buffer.first] += buffer.size
        changes[buffer.last + 1] -= buffer.size
    held = itertools.accumulate(changes[position] for position in sorted(changes))
    return max(held, default=0), max((buffer.size for buffer in buffers), default=0)


class _Buffer:
    """Held from the execution of node `first` to that of node `last`. `uses`: of its values, still to come."""

    def __init__(self, first: int, planned: Shape | None, actual: Shape | None) -> None:
        self.first = self.last = first
        self.planned = planned
        self.uses = 0
        self.size = 0 if actual is None else -(-math.prod(actual[0]) * actual[1] // ALIGNMENT) * ALIGNMENT


def _plan(graph: ir.Graph, planned: Mapping[str, Shape], actual: Mapping[str, Shape]) -> list[_Buffer]:
    """`planned`: the shapes known before the run, by which buffers are used again."""
    order = execution_order(graph)
    uses = Counter(x for node in order for x in node.inputs if x is not None)
    held: dict[ir.Value | None, _Buffer] = {}
    buffers: list[_Buffer] = []
    free: list[_Buffer] = []  # the latest first
    for position, node in enumerate(order):
        for value in node.outputs:
            if value.is_graph_output() or node.op_type in CONSTANT:
                continue
            if node.op_type in VIEWS:
                buffer = held.get(node.inputs[0])
            else:
                shape = planned.get(value.name or "")
                buffer = next((b for b in free if shape is not None and b.planned == shape), None)
                if buffer is None:
                    buffer = _Buffer(position, shape, actual.get(value.name or ""))
                    buffers.append(buffer)
                else:
                    free.remove(buffer)
            if buffer is not None:
                held[value] = buffer
                buffer.uses += uses[value]
                buffer.last = position
        for read in node.inputs:
            if read in held:
                held[read].last = position
                held[read].uses -= 1
                if not held[read].uses:
                    free.insert(0, held[read])
    return buffers


def execution_order(graph: ir.Graph) -> list[ir.Node]:
    """Depth first, back from the nodes that nothing reads, the last of them first; of a node's inputs, too, the one whose node stands
    last in the file."""
    number = {node: position for position, node in enumerate(graph)}
    sources: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        producers = {x.producer() for x in node.inputs if x is not None}
        sources[node] = sorted((producer for producer in producers if producer is not None), key=number.__getitem__)
    read = {source for found in sources.values() for source in found}
    stack = [(node, False) for node in graph if node not in read]
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((source, False) for source in sources[node])
    return order


def _shapes(path: Path, resolve: bool, free: int | None) -> dict[str, Shape]:
    """Of the values whose dimensions are known, by name. `resolve`: of tiles too, which the runtime does not know before the run."""
    model = ir.load(path)
    for value in model.graph.inputs if free is not None else ():
        if value.shape is not None:
            value.shape = ir.Shape([size if isinstance(size, int) else free for size in value.shape])
    for node in model.graph:
        if node.op_type == "MatMulNBits":  # unknown to the inference of shapes
            rows = model.graph.inputs[0].shape[0]  # type: ignore[index]
            node.outputs[0].shape = ir.Shape([rows, node.attributes["N"].as_int()])
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        elif resolve and node.op_type == "Slice":  # a tile's, whose start is a constant plus zero (`tile_order`)
            start = node.inputs[1].producer() if node.inputs[1] is not None else None
            if start is not None and start.op_type == "Add":
                node.replace_input_with(1, start.inputs[0])
    found: dict[str, Shape] = {}
    for node in ShapeInferencePass()(model).model.graph:
        for value in node.outputs:
            if value.shape is not None and value.dtype is not None and all(isinstance(d, int) for d in value.shape):
                found[value.name or ""] = tuple(int(d) for d in value.shape), int(value.dtype.itemsize)  # type: ignore[arg-type]
    return found
