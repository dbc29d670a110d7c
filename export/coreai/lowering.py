"""ATen graph -> Core AI operations: one small rule an operator, for the operators that captured graphs consist of.

Core AI has no negation and no shifts of integers, and its transposes are operations; int64 is int32 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node

from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import is_gradient
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.graphs.captured import PRODUCTS, op_name

ZERO_POINT = 8  # of a nibble
DTYPES: dict[torch.dtype, type[np.generic]] = {
    torch.int64: np.int32,
    torch.int32: np.int32,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.bool: np.bool_,
}

Value = Any  # coreai.authoring.Value


def lower(name: str, graph: Graph, names: Sequence[str], feeds: Mapping[str, Value], half_products: bool = False) -> list[Value]:
    """Appends a captured graph's operations to the function that is being built, in the order in which they stand; its inputs are taken
    from `feeds` by `names`. Returns its outputs in order. `name`: of the program, for what is said of an operator without a rule."""
    lowering = _Lowering(name, half_products)
    inputs = iter(names)
    for node in graph.nodes:
        if node.op == "placeholder":
            lowering.values[node] = feeds[next(inputs)]
        elif node.op == "output":
            return [lowering.values[result] for result in node.args[0]]
        else:
            lowering.values[node] = lowering.lower(node)
    raise AssertionError("a graph ends with its output node")


def lower_program(
    name: str,
    graph: Graph,
    names: Sequence[str],
    consts: Mapping[str, Tensor],
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    half_products: bool,
) -> Callable[[Mapping[str, Value]], list[Value]]:
    """What builds a program of its inputs; `graph`, `names` as in `lower`. float16 at the border is float32 inside, if it is no weight."""
    halves = {x.name for x in inputs if x.dtype == "float16" and x.weight is None}

    incoming = [x.name for x in inputs if is_gradient(x.name)] if half_products else []

    def build(feeds: Mapping[str, Value]) -> list[Value]:
        """A backward is linear in its gradients, so they are scaled into float16's range and the results back."""
        ai, constant = _authoring()
        wide = {key: ai.cast(x, np.float32) if key in halves else x for key, x in feeds.items()}
        fixed = {key: constant(x.numpy().astype(DTYPES[x.dtype])) for key, x in consts.items() if key in names}
        largest = _largest([wide[key] for key in incoming]) if incoming else None
        if largest is not None:
            wide |= {key: ai.broadcasting_divide(wide[key], _reshaped(largest, wide[key])) for key in incoming}
        results = lower(name, graph, names, {**wide, **fixed}, half_products)
        if largest is not None:
            results = [ai.broadcasting_mul(r, _reshaped(largest, r)) for r in results]
        return [ai.cast(r, np.float16) if o.dtype == "float16" else r for r, o in zip(results, outputs, strict=True)]

    return build


def _authoring() -> tuple[Any, Any]:
    """coreai's functions, and the one that makes constants."""
    from coreai import authoring
    from coreai.authoring.constant import constant

    return authoring, constant


def _largest(values: Sequence[Value]) -> Value:
    """The largest magnitude of all elements, [1], and at least the smallest normal number."""
    ai, constant = _authoring()
    found = constant(np.array([np.finfo(np.float32).tiny]))
    for x in values:
        rank = len(x.type.shape)
        found = ai.broadcasting_maximum(found, ai.reshape(ai.reduce_max(ai.abs_(x), _ints(range(rank))), _ints([1])))
    return found


def _reshaped(scalar: Value, like: Value) -> Value:
    """[1] with as many dimensions as another value."""
    ai, _ = _authoring()
    return ai.reshape(scalar, _ints([1] * len(like.type.shape)))


def _shape(node: Node) -> list[int]:
    return list(node.meta["val"].shape)


def _dtype(node: Node) -> type[np.generic]:
    return DTYPES[node.meta["val"].dtype]


def _ints(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def _is_factor(node: Node) -> bool:
    """Whether it is a decompressed matrix, transposed or not, that nothing but products takes: with products in float16 it is float16
    itself. Its elements are those of the float32 matrix rounded, since a scale times an integer is exact there."""
    if op_name(node) == "permute":
        return _is_factor(node.args[0])  # type: ignore[arg-type]
    return op_name(node).startswith("dequantize_") and all(_is_product(user) for user in _users(node))


def _users(node: Node) -> Iterator[Node]:
    for user in node.users:
        if op_name(user) == "permute":
            yield from _users(user)
        else:
            yield user


def _is_product(node: Node) -> bool:
    return op_name(node) in PRODUCTS


def _is_transpose(node: Any) -> bool:
    return isinstance(node, Node) and op_name(node) == "permute" and list(node.args[1]) == [1, 0]  # type: ignore[arg-type]


class _Lowering:
    def __init__(self, program: str, half_products: bool) -> None:
        self.ai, self.constant = _authoring()
        self.program, self.half_products = program, half_products
        self.values: dict[Any, Any] = {}

    def lower(self, node: Node) -> Any:
        name = op_name(node)
        if name in BINARY:
            return getattr(self.ai, BINARY[name])(*(self.operand(x, node) for x in node.args[:2]))
        if name in UNARY:
            return getattr(self.ai, UNARY[name])(self.values[node.args[0]])
        if name not in RULES:
            known = ", ".join(sorted({*BINARY, *UNARY, *RULES}))
            raise UnsupportedModelError(f"operator {node.target} in program {self.program} has no Core AI lowering; supported: {known}")
        return RULES[name](self, node, *node.args)

    def operand(self, x: Any, node: Node) -> Value:
        """A number takes the dtype of the other operand."""
        if isinstance(x, Node):
            return self.values[x]
        (other,) = (y for y in node.args[:2] if isinstance(y, Node))
        return self.constant(np.array(x, _dtype(other)))

    def alias(self, node: Node, x: Node, *_: Any) -> Any:
        return self.values[x]

    def product(self, node: Node, left: Node, right: Node) -> Value:
        if not self.half_products:
            return self.ai.batch_matmul(self.values[left], self.values[right])
        halves = [self.values[x] if _is_factor(x) else self.ai.cast(self.values[x], np.float16) for x in (left, right)]
        return self.ai.cast(self.ai.batch_matmul(*halves), np.float32)

    def reshape(self, node: Node, x: Node, *_: Any) -> Value:
        return self.ai.reshape(self.values[x], _ints(_shape(node)))

    def expand(self, node: Node, x: Node, *_: Any) -> Value:
        return self.ai.broadcast_to(self.values[x], _ints(_shape(node)))

    def transposed(self, x: Value, order: Sequence[int]) -> Value:
        return self.ai.transpose(x, np.array(order, np.uint32))

    def permute(self, node: Node, x: Node, order: list[int]) -> Any:
        if _is_transpose(node) and _is_transpose(x):  # two that cancel, as autograd leaves them
            return self.values[x.args[0]]
        return self.transposed(self.values[x], order)

    def reduce(self, node: Node, x: Node, axes: list[int] | int, keepdim: bool = False, *_: Any) -> Value:
        axes = [axes] if isinstance(axes, int) else list(axes) or list(range(len(_shape(x))))
        kept = getattr(self.ai, REDUCTIONS[op_name(node)])(self.values[x], _ints(axes))
        return kept if keepdim else self.ai.reshape(kept, _ints(_shape(node)))

    def slice(self, node: Node, x: Node, axis: int = 0, start: int = 0, end: int = 2**31, *_: Any) -> Value:
        shape = _shape(x)
        begins, ends = [0] * len(shape), list(shape)
        begins[axis], ends[axis] = start, min(end, shape[axis])
        return self.ai.slice_(self.values[x], _ints(begins), _ints(ends), _ints([1] * len(shape)))

    def split(self, node: Node, x: Node, sizes: list[int], axis: int = 0) -> list[Value]:
        """Slices, of which only those that are used stay."""
        shape, starts = _shape(x), np.cumsum([0, *sizes])
        parts = []
        for start, size in zip(starts, sizes):
            begins, ends = [0] * len(shape), list(shape)
            begins[axis], ends[axis] = int(start), int(start) + size
            parts.append(self.ai.slice_(self.values[x], _ints(begins), _ints(ends), _ints([1] * len(shape))))
        return parts

    def getitem(self, node: Node, x: Node, index: int) -> Any:
        return self.values[x][index]

    def cat(self, node: Node, parts: list[Node], axis: int = 0) -> Value:
        rank = len(_shape(node))
        return self.ai.concat(np.array(axis % rank, np.int32), [self.values[x] for x in parts])

    def softmax(self, node: Node, x: Node, axis: int, *_: Any) -> Value:
        return self.ai.softmax(self.values[x], np.array(axis % len(_shape(x)), np.int32))

    def negate(self, node: Node, x: Node) -> Value:
        return self.ai.broadcasting_mul(self.values[x], self.constant(np.array(-1, _dtype(x))))

    def less(self, node: Node, x: Any, y: Any) -> Value:
        return self.ai.broadcasting_greater(self.operand(y, node), self.operand(x, node))

    def power(self, node: Node, x: Node, exponent: float) -> Value:
        value = self.values[x]
        if exponent in (2, 3):
            square = self.ai.broadcasting_mul(value, value)
            return square if exponent == 2 else self.ai.broadcasting_mul(square, value)
        return self.ai.broadcasting_pow(value, self.constant(np.array(exponent, _dtype(x))))

    def where(self, node: Node, condition: Node, x: Node, y: Node) -> Value:
        return self.ai.broadcasting_where(*(self.values[z] for z in (condition, x, y)))

    def gather(self, node: Node, x: Node, axis: int, index: Node) -> Value:
        """Slices of the first dimension, by indices [C, 1]."""
        value, order = self.values[x], list(range(len(_shape(x))))
        order[0], order[axis] = axis, 0
        front = value if axis == 0 else self.transposed(value, order)
        found = self.ai.gather_nd(front, self.ai.reshape(self.values[index], _ints([*_shape(index), 1])))
        return found if axis == 0 else self.transposed(found, order)

    def cast(self, node: Node, x: Node) -> Value:
        return self.ai.cast(self.values[x], _dtype(node))

    def full(self, node: Node, shape: list[int], fill: float, *_: Any) -> Value:
        """The gradient of a part of a split that is not used."""
        return self.ai.broadcast_to(self.constant(np.array(fill, _dtype(node)).reshape([1] * len(shape))), _ints(shape))

    def dequantize(self, node: Node, packed: Node, scale: Node) -> Value:
        """packed uint8 [N, K/G, G/2] or int8 [N, K/G, G], scale float16 [N, K/G] -> float32 [N, K].

        A byte divided by [1, 16] has the low and the high nibble behind each other, as their elements stand in the group, without a
        concatenation, which takes eight times as long on the desktop's build. What is above a nibble is subtracted."""
        data, (rows, groups, width) = self.values[packed], _shape(packed)
        nibbles = op_name(node) == "dequantize_int4"
        if nibbles:
            sixteen = self.constant(np.array(16, np.uint8))
            bytes_twice = self.ai.reshape(data, _ints([rows, groups, 1, width]))
            parts = self.ai.broadcasting_floor_divide(bytes_twice, self.constant(np.array([[[[1], [16]]]], np.uint8)))
            above = self.ai.broadcasting_mul(self.ai.broadcasting_floor_divide(parts, sixteen), sixteen)
            data = self.ai.reshape(self.ai.broadcasting_sub(parts, above), _ints([rows, groups, 2 * width]))
        blocks, dtype = [rows, groups, 1], np.float16 if self.half_products and _is_factor(node) else np.float32
        scales = self.ai.reshape(self.ai.cast(self.values[scale], dtype), _ints(blocks))
        zero = np.full(blocks, ZERO_POINT, np.uint8) if nibbles else np.zeros(blocks, np.int8)
        return self.ai.reshape(self.ai.blockwise_shift_scale(data, scales, zero, np.zeros(blocks, dtype)), _ints(_shape(node)))


# By the names of coreai.authoring's functions.
BINARY = {
    "mul": "broadcasting_mul",
    "add": "broadcasting_add",
    "sub": "broadcasting_sub",
    "div": "broadcasting_divide",
    "maximum": "broadcasting_maximum",
    "eq": "broadcasting_equal",
    "gt": "broadcasting_greater",
    "bitwise_and": "broadcasting_and",
    "logical_and": "broadcasting_and",
}
UNARY = {
    "abs": "abs_",
    "exp": "exp",
    "log": "log",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
}
REDUCTIONS = {"mean": "reduce_mean", "sum": "reduce_sum", "amax": "reduce_max"}

RULES: dict[str, Callable[..., Any]] = {
    "mm": _Lowering.product,
    "bmm": _Lowering.product,
    "neg": _Lowering.negate,
    "lt": _Lowering.less,
    "pow": _Lowering.power,
    "where": _Lowering.where,
    "view": _Lowering.reshape,
    "unsqueeze": _Lowering.reshape,
    "squeeze": _Lowering.reshape,
    "expand": _Lowering.expand,
    "permute": _Lowering.permute,
    "mean": _Lowering.reduce,
    "sum": _Lowering.reduce,
    "amax": _Lowering.reduce,
    "slice": _Lowering.slice,
    "split_with_sizes": _Lowering.split,
    "getitem": _Lowering.getitem,
    "cat": _Lowering.cat,
    "_softmax": _Lowering.softmax,
    "index_select": _Lowering.gather,
    "_to_copy": _Lowering.cast,
    "full": _Lowering.full,
    "clone": _Lowering.alias,
    "alias": _Lowering.alias,
    "computed_once": _Lowering.alias,
    "dequantize_int4": _Lowering.dequantize,
    "dequantize_int8": _Lowering.dequantize,
}
