"""What a program holds at once while it runs, from its graph: ONNX Runtime's order of execution and plan of buffers, walked through.

Nothing is run. The rules are those of ONNX Runtime's `Graph::ReverseDFSFrom` and `allocation_planner.cc` (one stream, no parallel
execution): an operator may write over an input that nothing else needs, and a value may take the buffer of an earlier one of its
shape, which until then is not given back. The program's outputs are the host's buffers and do not count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

ALIGNMENT = 256  # bytes; of the arena's blocks
VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Identity"}  # the output is the input's buffer
IN_PLACE = {"Add": 2, "Sub": 2, "Mul": 2, "Div": 2} | {
    kind: 1 for kind in ("Sigmoid", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Cast", "Sum")
}  # the output may be written over one of the first so many inputs
CONSTANT = {"Shape", "ConstantOfShape"}  # computed when the session is made, as all shapes are known then

# The arena's best fit leaves holes, the more the larger the blocks are. Fitted to the pages of the arena that single programs touched
# (ONNX Runtime 1.32): SmolLM2-135M's shape with 64, 128 and 256 tokens, Qwen2.5-0.5B's with 256, forward, backward, and both keeping.
HOLES = 1.25  # times what is held
LARGE_HOLES = 2  # blocks of the largest size

Shape = tuple[tuple[int, ...], int]  # dimensions and bytes of an element


def working_bytes(path: Path) -> int:
    """Bytes that the runtime's arena touches when the program runs, an estimate within some 10 %; of a program whose shapes are
    all known when it is exported."""
    held, largest = held_bytes(path)
    return round(HOLES * held + LARGE_HOLES * largest)


def held_bytes(path: Path) -> tuple[int, int]:
    """The most bytes held at once, and the size of the largest value."""
    graph = ir.load(path).graph
    buffers = _plan(graph, _shapes(path))
    changes: Counter[int] = Counter()
    for buffer in buffers:
        changes[buffer.first] += buffer.size
        changes[buffer.last + 1] -= buffer.size
    held = most = 0
    for position in sorted(changes):
        held += changes[position]
        most = max(most, held)
    return most, max((buffer.size for buffer in buffers), default=0)


class _Buffer:
    """Held from the execution of node `first` to that of node `last`. `uses`: of its value, still to come."""

    def __init__(self, first: int, shape: Shape | None) -> None:
        self.first = self.last = first
        self.shape = shape
        self.uses = 0
        self.size = 0 if shape is None else -(-math.prod(shape[0]) * shape[1] // ALIGNMENT) * ALIGNMENT


def _plan(graph: ir.Graph, shapes: Mapping[str, Shape]) -> list[_Buffer]:
    order = execution_order(graph)
    uses = Counter(x for node in order for x in node.inputs if x is not None)
    outputs = set(graph.outputs)
    held: dict[ir.Value, _Buffer] = {}
    buffers: list[_Buffer] = []
    free: list[_Buffer] = []  # the latest first
    for position, node in enumerate(order):
        for value in node.outputs:
            if value in outputs or node.op_type in CONSTANT:
                continue
            buffer = _taken_over(node, shapes.get(value.name or ""), held, free)
            if buffer is None and not (node.op_type in VIEWS and node.inputs[0] not in held):
                buffer = _Buffer(position, shapes.get(value.name or ""))
                buffers.append(buffer)
            if buffer is not None:
                held[value] = buffer
                buffer.uses += uses[value]
                buffer.last = position
        for value in node.inputs:
            if value is not None and value in held:
                buffer = held[value]
                buffer.last = position
                buffer.uses -= 1
                if not buffer.uses:
                    free.insert(0, buffer)
    return buffers


def _taken_over(node: ir.Node, shape: Shape | None, held: Mapping[ir.Value, _Buffer], free: list[_Buffer]) -> _Buffer | None:
    """The buffer of an input or of an earlier value that the node's output takes, if there is one."""
    if node.op_type in VIEWS:
        return held.get(node.inputs[0]) if node.inputs[0] is not None else None
    for value in node.inputs[: IN_PLACE.get(node.op_type, 0)]:
        buffer = held.get(value) if value is not None else None
        if buffer is not None and buffer.uses == 1 and buffer.shape == shape:
            return buffer
    for buffer in free:
        if buffer.shape == shape:
            free.remove(buffer)
            return buffer
    return None


def execution_order(graph: ir.Graph) -> list[ir.Node]:
    """Depth first, back from the nodes that nothing reads, the last of them first; of a node's inputs, too, the one whose node stands
    last in the file."""
    number = {node: position for position, node in enumerate(graph)}
    sources = {node: sorted({x.producer() for x in node.inputs if x is not None} & number.keys(), key=number.__getitem__) for node in graph}
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
            stack += [(node, True), *((source, False) for source in sources[node])]
    return order


def _shapes(path: Path) -> dict[str, Shape]:
    """Of every value whose dimensions are known, by its name."""
    model = ir.load(path)
    for node in model.graph:
        if node.op_type == "Slice":  # a tile's, whose start waits for the tile before (`tile_order`): a constant plus zero
            start = node.inputs[1].producer() if node.inputs[1] is not None else None
            if start is not None and start.op_type == "Add":
                node.replace_input_with(1, start.inputs[0])
        elif node.op_type == "MatMulNBits":  # unknown to the inference of shapes
            rows = model.graph.inputs[0].shape[0]  # type: ignore[index]
            node.outputs[0].shape = ir.Shape([rows, node.attributes["N"].as_int()])
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    found: dict[str, Shape] = {}
    for node in ShapeInferencePass()(model).model.graph:
        for value in node.outputs:
            if value.shape is not None and value.dtype is not None and all(isinstance(d, int) for d in value.shape):
                found[value.name or ""] = tuple(int(d) for d in value.shape), value.dtype.itemsize  # type: ignore[arg-type]
    return found
