"""ATen graph -> ONNX nodes: one small rule an operator, for the operators that captured blocks consist of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from torch.fx import Node

from lcsb_mobile.config import Programs
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.graphs.captured import CapturedGraph, op_name, sliced
from lcsb_mobile.export.onnx.dequantize import dequantize, dequantize_on_gpu, matmul_nbits
from lcsb_mobile.export.onnx.graph_builder import DTYPES, GraphBuilder
from lcsb_mobile.export.onnx.tile_order import run_tiles_in_turn


def lower(
    b: GraphBuilder, captured: CapturedGraph, feeds: Mapping[str, ir.Value], accuracy_level: int = 0, programs: Programs = "cpu"
) -> tuple[ir.Value, ...]:
    """Appends the graph's nodes to `b`, its inputs taken from `feeds` by name; returns its outputs in order.

    With an `accuracy_level`, products `x Wᵀ` with whole int4 matrices become `MatMulNBits` of that level (4: activations rounded to int8).
    For a gpu `programs` use operators that it has kernels for; the graph has int4 matrices, with scales fed as float32, and no tiles.
    """
    lowering = _Lowering(b, accuracy_level, programs)
    names = iter(captured.inputs)
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            lowering.values[node] = feeds[next(names)]
        elif node.op == "output":
            run_tiles_in_turn(b, captured, lowering.values)
            return tuple(lowering.values[result] for result in node.args[0])
        else:
            lowering.values[node] = lowering.lower(node)
    raise AssertionError("a captured graph ends with its output node")


def _shape(node: Node) -> list[int]:
    return list(node.meta["val"].shape)


def _is_transpose(node: Any) -> bool:
    return isinstance(node, Node) and op_name(node) == "permute" and list(node.args[1]) == [1, 0]  # type: ignore[arg-type]


def _strip_transposes(node: Any) -> tuple[Any, int]:
    """A matrix's source and whether it is transposed: Gemm transposes as it reads, which costs nothing."""
    transposed = 0
    while _is_transpose(node):
        node, transposed = node.args[0], 1 - transposed
    return node, transposed


class _Lowering:
    def __init__(self, b: GraphBuilder, accuracy_level: int, programs: Programs) -> None:
        self.b = b
        self.accuracy_level, self.programs = accuracy_level, programs
        self.values: dict[Any, Any] = {}

    def lower(self, node: Node) -> Any:
        name = op_name(node)
        if name in SIMPLE:
            return self.b.op(SIMPLE[name], *(self.operand(x) for x in node.args))
        if name not in RULES:
            raise UnsupportedModelError(
                f"operator {node.target} in a captured block has no ONNX lowering; supported: {', '.join(sorted(RULES | SIMPLE))}"
            )
        return RULES[name](self, node, *node.args)

    def operand(self, x: Any) -> ir.Value:
        return self.values[x] if isinstance(x, Node) else self.b.scalar(x)

    def alias(self, node: Node, x: Node, *_: Any) -> Any:
        return self.values[x]

    def mm(self, node: Node, left: Node, right: Node) -> ir.Value:
        (a, trans_a), (c, trans_c) = _strip_transposes(left), _strip_transposes(right)
        if self.accuracy_level and trans_c and not trans_a and op_name(c) == "dequantize_int4":
            packed, scale = (self.values[source] for source in c.args)
            return matmul_nbits(self.b, self.values[a], packed, scale, _shape(c), self.accuracy_level)
        return self.b.op("Gemm", self.values[a], self.values[c], transA=trans_a, transB=trans_c)

    def reshape(self, node: Node, x: Node, *_: Any) -> ir.Value:
        return self.b.op("Reshape", self.values[x], self.b.ints(*_shape(node)))

    def expand(self, node: Node, x: Node, *_: Any) -> ir.Value:
        return self.b.op("Expand", self.values[x], self.b.ints(*_shape(node)))

    def permute(self, node: Node, x: Node, order: list[int]) -> Any:
        source, transposed = _strip_transposes(node)
        if not transposed and source is not node:  # two transposes that cancel, as autograd leaves them
            return self.values[source]
        return self.b.op("Transpose", self.values[x], perm=list(order))

    def reduce(self, node: Node, x: Node, axes: list[int], keepdim: bool = False) -> ir.Value:
        kind = "ReduceMean" if op_name(node) == "mean" else "ReduceSum"
        return self.b.op(kind, self.values[x], self.b.ints(*axes), keepdims=int(keepdim))

    def slice(self, node: Node, *_: Any) -> ir.Value:
        x, axis, start, end = sliced(node)
        return self.b.op("Slice", self.values[x], self.b.ints(start), self.b.ints(end), self.b.ints(axis))

    def split(self, node: Node, x: Node, sizes: list[int], axis: int = 0) -> tuple[ir.Value, ...]:
        return self.b.ops("Split", self.values[x], self.b.ints(*sizes), names=[None] * len(sizes), axis=axis)

    def getitem(self, node: Node, x: Node, index: int) -> Any:
        return self.values[x][index]

    def cat(self, node: Node, parts: list[Node], axis: int = 0) -> ir.Value:
        return self.b.op("Concat", *(self.values[x] for x in parts), axis=axis)

    def softmax(self, node: Node, x: Node, axis: int, *_: Any) -> ir.Value:
        return self.b.op("Softmax", self.values[x], axis=axis)

    def rsqrt(self, node: Node, x: Node) -> ir.Value:
        return self.b.op("Reciprocal", self.b.op("Sqrt", self.values[x]))

    def power(self, node: Node, x: Node, exponent: float) -> ir.Value:
        return self.b.op("Pow", self.values[x], self.b.const(exponent, np.float32))

    def gather(self, node: Node, x: Node, axis: int, index: Node) -> ir.Value:
        return self.b.op("Gather", self.values[x], self.values[index], axis=axis)

    def cast(self, node: Node, x: Node) -> ir.Value:
        return self.b.op("Cast", self.values[x], to=DTYPES[str(node.meta["val"].dtype).removeprefix("torch.")].value)

    def full(self, node: Node, shape: list[int], fill: float, *_: Any) -> ir.Value:
        """The gradient of a part of a split that is not used."""
        return self.b.op("Expand", self.b.scalar(fill), self.b.ints(*shape))

    def dequantize(self, node: Node, packed: Node, scale: Node) -> ir.Value:
        bits = 4 if op_name(node) == "dequantize_int4" else 8
        if self.programs == "gpu":
            return dequantize_on_gpu(self.b, self.values[packed], self.values[scale], bits, columns=_shape(node)[1])
        group_size = _shape(packed)[-1] * (2 if bits == 4 else 1)
        return dequantize(self.b, self.values[packed], self.values[scale], bits, group_size, columns=_shape(node)[1])


SIMPLE = {
    "mul": "Mul",
    "add": "Add",
    "sub": "Sub",
    "div": "Div",
    "neg": "Neg",
    "abs": "Abs",
    "exp": "Exp",
    "relu": "Relu",
    "bmm": "MatMul",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "eq": "Equal",
    "lt": "Less",
    "gt": "Greater",
    "bitwise_and": "And",
    "logical_and": "And",
    "where": "Where",
}

RULES: dict[str, Callable[..., Any]] = {
    "mm": _Lowering.mm,
    "view": _Lowering.reshape,
    "unsqueeze": _Lowering.reshape,
    "squeeze": _Lowering.reshape,
    "expand": _Lowering.expand,
    "permute": _Lowering.permute,
    "mean": _Lowering.reduce,
    "sum": _Lowering.reduce,
    "slice": _Lowering.slice,
    "split_with_sizes": _Lowering.split,
    "getitem": _Lowering.getitem,
    "cat": _Lowering.cat,
    "_softmax": _Lowering.softmax,
    "rsqrt": _Lowering.rsqrt,
    "index_select": _Lowering.gather,
    "_to_copy": _Lowering.cast,
    "full": _Lowering.full,
    "pow": _Lowering.power,
    "clone": _Lowering.alias,
    "alias": _Lowering.alias,
    "computed_once": _Lowering.alias,
    "dequantize_int4": _Lowering.dequantize,
    "dequantize_int8": _Lowering.dequantize,
}
