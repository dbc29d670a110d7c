"""Captured ATen graph -> MIL function: one small rule an operator.

Nothing is folded, merged or moved afterwards, since no pass of coremltools runs: recomputation stays recomputation, and a weight stays as
compressed as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import CHUNK_START, is_gradient, plain_name
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.coreml.constants import Array, Constant, Table, zeros
from lcsb_mobile.export.graphs.captured import CapturedGraph, op_name
from lcsb_mobile.export.graphs.order import peak_bytes, sorted_module
from lcsb_mobile.io.bounded import one_line

DTYPES = {"float32": "fp32", "float16": "fp16", "int64": "int32", "int32": "int32", "bool": "bool"}
NUMPY: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16, "int32": np.int32, "bool": np.bool_}
FLOATS = ("fp32", "fp16")
FEW = 10  # elements
# Operands that would be added where they are missing, as a constant for each operator.
DEFAULTS: dict[str, dict[str, Any]] = {
    "concat": {"interleave": False},
    "gather": {"batch_dims": 0, "validate_indices": False},
    "log": {"epsilon": np.float32(1e-45)},
}
BROADCASTING = {"mul", "add", "sub", "div", "where", "maximum"}  # of two tensors whose shapes may differ

# What the operator adds under the root by itself: nothing beside a norm's own epsilon, which its default of 1e-12 is not.
NOTHING = np.float32(1e-30)
LEAST = np.float32(1e-30)  # of a gradient's largest element, so that nothing is divided by zero


@dataclass(frozen=True)
class Program:
    """What is lowered, and how its inputs and outputs look from outside. `tables`: those of the graph's inputs that are weights; with
    `rows` they are that many rows from the input `start` on. `half`: products are computed in float16. `name`: what errors say."""

    name: str
    captured: CapturedGraph
    consts: Mapping[str, Tensor]
    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    tables: Mapping[str, Table]
    rows: int | None = None
    half: bool = False


@dataclass(frozen=True)
class Lowered:
    """A function of coremltools' MIL. `constants`: what stands in the place of its constants, by the name of the operation; the function
    itself has zeros there. `working_bytes`: of its values, in the order of its operations."""

    function: Any
    constants: Mapping[str, Constant]
    working_bytes: int


def lower(program: Program) -> Lowered:
    """Raises UnsupportedModelError for an operator without a rule, or a tensor that the format does not hold."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, types

    held = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}
    if bad := [f"{x.name} of {x.dtype}" for x in (*program.inputs, *program.outputs) if x.dtype not in held]:
        raise UnsupportedModelError(f"{program.name}: a function of Core ML takes and returns {', '.join(held)}, found {', '.join(bad)}")
    mb.name_count.clear()  # names are unique within a function; else they would tell what was written before
    feeds = {plain_name(x.name): mb.placeholder(x.shape, held[x.dtype]) for x in program.inputs}
    try:
        with Function(feeds, opset_version=ct.target.iOS18) as function:
            lowering = _Lowering(mb, program, {x.name: function.inputs[plain_name(x.name)] for x in program.inputs})
            function.set_outputs(lowering.run())
    except (ValueError, TypeError) as error:  # coremltools', of operands that an operator does not take
        raise UnsupportedModelError(f"{program.name}: coremltools refuses it: {one_line(error)}") from error
    return Lowered(function, lowering.constants, peak_bytes(list(lowering.graph.nodes)))


def _shape(node: Node) -> list[int]:
    return list(node.meta["val"].shape)


def _is_float(x: Any) -> bool:
    return bool(x.meta["val"].is_floating_point()) if isinstance(x, Node) else isinstance(x, float)


def _is_transpose(node: Any) -> bool:
    return isinstance(node, Node) and op_name(node) == "permute" and list(node.args[1]) == [1, 0]  # type: ignore[arg-type]


def _strip_transposes(node: Any) -> tuple[Any, bool]:
    """A matrix's source and whether it is transposed: a product transposes as it reads."""
    transposed = False
    while _is_transpose(node):
        node, transposed = node.args[0], not transposed
    return node, transposed


def _has_whole_operand(node: Node) -> bool:
    whole = [x for x in node.all_input_nodes if op_name(x) != "expand" and x.meta["val"].shape == node.meta["val"].shape]
    return op_name(node) in BROADCASTING and bool(whole)


def _dtype(variable: Any) -> str:
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(variable.dtype))


class _Lowering:
    """`values`: of each node a variable, several, a Table, an array of the graph, or a function that makes it once it is needed."""

    def __init__(self, builder: Any, program: Program, feeds: Mapping[str, Any]) -> None:
        self.builder, self.program, self.feeds = builder, program, feeds
        self.values: dict[Node, Any] = {}
        self.constants: dict[str, Constant] = {}
        self._made: dict[Constant, Any] = {}
        self._casts: dict[tuple[int, str], Any] = {}
        self._literals: dict[object, Any] = {}
        self._count: dict[str, int] = {}
        self.graph = sorted_module(program.captured).graph
        self._unscale: Any = None  # of the results of a backward pass whose gradient was scaled

    def run(self) -> list[Any]:
        scaled = self._scaled_gradients() if self.program.half else {}
        names = iter(self.program.captured.inputs)
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._input(next(names), scaled)
            elif node.op == "output":
                return self._outputs(node.args[0])
            else:
                self.values[node] = self._lowered(node)
        raise AssertionError("a captured graph ends with its output node")

    def op(self, kind: str, **operands: Any) -> Any:
        """With operands that are variables, or plain values. Plain ones of one value are one constant: they are most of a program."""
        return self._op(kind, **{name: self._literal(x) for name, x in {**DEFAULTS.get(kind, {}), **operands}.items()})

    def _op(self, kind: str, **operands: Any) -> Any:
        """Under a name of its number, so that a program is written alike each time."""
        number = self._count[kind] = self._count.get(kind, -1) + 1
        return getattr(self.builder, kind)(name=f"{kind}_{number}", **operands)

    def _literal(self, x: Any) -> Any:
        if isinstance(x, (list, tuple)) and any(hasattr(part, "op") for part in x):
            return [self._literal(part) for part in x]
        if hasattr(x, "op"):
            return x
        value = np.array(x, np.int32)[()] if isinstance(x, (list, tuple, int)) and not isinstance(x, bool) else x
        key = (type(value).__name__, str(getattr(value, "dtype", "")), np.shape(value), np.asarray(value).tobytes())
        if key not in self._literals:
            self._literals[key] = self._op("const", val=value)
        return self._literals[key]

    # What goes in and out

    def _input(self, name: str, scaled: Mapping[str, Any]) -> Any:
        if name in self.feeds:
            return scaled.get(name, self.feeds[name])
        if name in self.program.consts:
            return self.program.consts[name].numpy()
        table = self.program.tables[name]
        return self._rows(table, self.program.rows) if self.program.rows and len(table.shape) > 1 else table

    def _rows(self, table: Table, count: int) -> Any:
        """Cut out when the program runs."""
        begin = self.op("concat", values=[self.feeds[CHUNK_START], np.zeros(len(table.shape) - 1, np.int32)], axis=0)
        size = np.array([count, *table.shape[1:]], np.int32)
        return self.op("slice_by_size", x=self._constant(table), begin=begin, size=size)

    def _outputs(self, results: Sequence[Node]) -> list[Any]:
        """Under their names, and in their dtypes. What is an input or another output too, gets a variable of its own."""
        outputs: list[Any] = []
        for described, result in zip(self.program.outputs, results, strict=True):
            name, value = plain_name(described.name), self.value(result, "fp32")
            if self._unscale is not None:
                value = self.op("mul", x=value, y=self._unscale)
            value = self._as(value, DTYPES[described.dtype])
            if value.op is None or value.op.op_type == "const" or any(value is other for other in outputs):
                value = self.op("identity", x=value)
            value.name = name
            outputs.append(value)
        return outputs

    def _scaled_gradients(self) -> dict[str, Any]:
        """A backward pass is linear in its gradients: they are scaled by a power of two that brings the largest element to between a half
        and one, where float16 resolves it and a sum of thousands does not overflow, and the results are scaled back."""
        gradients = {name: x for name, x in self.feeds.items() if is_gradient(name)}
        if not gradients:
            return {}
        largest: Any = LEAST
        for x in gradients.values():
            axes = list(range(len(x.shape)))
            peak = self.op("reduce_max", x=self.op("abs", x=x), axes=axes, keep_dims=True)
            largest = self.op("maximum", x=self.op("reshape", x=peak, shape=[1]), y=largest)
        exponent = self.op("ceil", x=self.op("mul", x=self.op("log", x=largest), y=np.float32(1 / np.log(2))))
        self._unscale = self.op("exp2", x=exponent)
        scale = self.op("exp2", x=self.op("mul", x=exponent, y=np.float32(-1)))
        return {name: self.op("mul", x=x, y=scale) for name, x in gradients.items()}

    # Values

    def value(self, x: Any, dtype: str | None = None) -> Any:
        """A node's variable, or a number as a constant of `dtype`. A float is in the type that is asked for, else in its own."""
        if not isinstance(x, Node):
            return NUMPY[dtype or "fp32"](x)
        found = self.values[x]
        if isinstance(found, Table):
            found = self._constant(found)
        elif isinstance(found, np.ndarray):
            found = self._array(found)
        elif callable(found):
            found = self.values[x] = found()
        return found if dtype is None or isinstance(found, np.generic) else self._as(found, dtype)

    def floats(self, x: Any) -> Any:
        return self.value(x, "fp32")

    def _as(self, variable: Any, dtype: str) -> Any:
        own = _dtype(variable)
        if own == dtype or own not in FLOATS or dtype not in FLOATS:
            return variable
        if (key := (id(variable), dtype)) not in self._casts:
            self._casts[key] = self.op("cast", x=variable, dtype=dtype)
        return self._casts[key]

    def _constant(self, constant: Constant) -> Any:
        if constant not in self._made:
            made = self._op("const", val=zeros(constant))
            self.constants[made.op.name] = constant
            self._made[constant] = made
        return self._made[constant]

    def _array(self, array: np.ndarray) -> Any:
        """One that weighs nothing, or that the file of weights has no type for, stands in the program itself."""
        array = array.astype(NUMPY[DTYPES[array.dtype.name]])
        if array.ndim == 0:
            return array[()]
        return self._literal(array) if array.size < FEW or array.dtype == np.bool_ else self._constant(Array.of(array))

    # Operators

    def _lowered(self, node: Node) -> Any:
        name = op_name(node)
        if name in SIMPLE:
            number = "fp32" if any(map(_is_float, node.args)) else "int32"
            names = ("x",) if len(node.args) == 1 else ("x", "y")
            return self.op(SIMPLE[name], **{key: self.value(x, number) for key, x in zip(names, node.args, strict=True)})
        if name not in RULES:
            raise UnsupportedModelError(
                f"{self.program.name}: operator {node.target} has no rule for Core ML; supported: {', '.join(sorted(RULES | SIMPLE))}"
            )
        return RULES[name](self, node, *node.args)

    def alias(self, node: Node, x: Node, *_: Any) -> Any:
        return self.values[x]

    def negative(self, node: Node, x: Node) -> Any:
        return self.op("mul", x=self.floats(x), y=np.float32(-1))

    def product(self, node: Node, left: Node, right: Node) -> Any:
        (a, trans_a), (b, trans_b) = _strip_transposes(left), _strip_transposes(right)
        dtype = "fp16" if self.program.half else "fp32"
        if trans_b and not trans_a and op_name(b).startswith("dequantize_") and self.value(b).op.op_type.startswith("constexpr_"):
            bias = np.zeros(_shape(b)[0], NUMPY[dtype])
            return self.op("linear", x=self.value(a, dtype), weight=self.value(b, dtype), bias=bias)
        return self.op("matmul", x=self.value(a, dtype), y=self.value(b, dtype), transpose_x=trans_a, transpose_y=trans_b)

    def reshape(self, node: Node, x: Node, *_: Any) -> Any:
        return self.op("reshape", x=self.value(x), shape=_shape(node))

    def expand(self, node: Node, x: Node, *_: Any) -> Any:
        """Left out where every user broadcasts it against an operand that has the whole shape."""
        if all(_has_whole_operand(user) for user in node.users):
            return self.values[x]
        shape, old = _shape(node), _shape(x)
        aligned = [1] * (len(shape) - len(old)) + old
        value = self.value(x) if aligned == old else self.op("reshape", x=self.value(x), shape=aligned)
        return self.op("tile", x=value, reps=[new // size for new, size in zip(shape, aligned)])

    def permute(self, node: Node, x: Node, order: list[int]) -> Any:
        """A transposed matrix only where something else than a product needs it."""
        source, transposed = _strip_transposes(node)
        if not transposed and source is not node:  # two transposes that cancel, as autograd leaves them
            return self.values[source]
        if _is_transpose(node):
            return lambda: self.op("transpose", x=self.value(x), perm=list(order))
        return self.op("transpose", x=self.value(x), perm=list(order))

    def reduce(self, node: Node, x: Node, axes: list[int], keepdim: bool = False) -> Any:
        kind = {"mean": "reduce_mean", "sum": "reduce_sum", "amax": "reduce_max"}[op_name(node)]
        return self.op(kind, x=self.floats(x), axes=list(axes), keep_dims=bool(keepdim))

    def slice(self, node: Node, x: Node, axis: int = 0, start: int = 0, end: int = 2**31, step: int = 1) -> Any:
        shape = _shape(x)
        end = min(end, shape[axis])
        if isinstance(self.values[x], Table):
            return self.values[x].sliced(axis, start, end)
        first, last, steps = [0] * len(shape), list(shape), [1] * len(shape)
        first[axis], last[axis], steps[axis] = start, end, step
        return self.op("slice_by_index", x=self.value(x), begin=first, end=last, stride=steps)

    def split(self, node: Node, x: Node, sizes: list[int], axis: int = 0) -> Any:
        parts = self.op("split", x=self.value(x), split_sizes=list(sizes), axis=axis) if len(sizes) > 1 else self.value(x)
        return tuple(parts) if isinstance(parts, (tuple, list)) else (parts,)

    def getitem(self, node: Node, x: Node, index: int) -> Any:
        return self.values[x][index]

    def cat(self, node: Node, parts: list[Node], axis: int = 0) -> Any:
        kinds = {_dtype(self.value(x)) for x in parts}
        return self.op("concat", values=[self.value(x, None if len(kinds) == 1 else "fp32") for x in parts], axis=axis)

    def softmax(self, node: Node, x: Node, axis: int, *_: Any) -> Any:
        return self.op("softmax", x=self.floats(x), axis=axis)

    def rsqrt(self, node: Node, x: Node) -> Any:
        return self.op("rsqrt", x=self.floats(x), epsilon=NOTHING)

    def power(self, node: Node, x: Node, exponent: float) -> Any:
        value = self.floats(x)
        if exponent not in (2, 3):
            return self.op("pow", x=value, y=np.float32(exponent))
        square = self.op("mul", x=value, y=value)
        return square if exponent == 2 else self.op("mul", x=square, y=value)

    def gather(self, node: Node, x: Node, axis: int, index: Node) -> Any:
        return self.op("gather", x=self.value(x), indices=self.value(index), axis=axis)

    def cast(self, node: Node, x: Node) -> Any:
        dtype = DTYPES[str(node.meta["val"].dtype).removeprefix("torch.")]
        value = self.value(x)
        return value if _dtype(value) == dtype else self.op("cast", x=value, dtype=dtype)

    def full(self, node: Node, shape: list[int], fill: float, *_: Any) -> Any:
        """The gradient of a part of a split that is not used."""
        return self.op("fill", shape=list(shape), value=np.float32(fill))

    def where(self, node: Node, condition: Node, x: Node, y: Node) -> Any:
        """One of the two has the whole shape."""
        number = "fp32" if _is_float(node) else "int32"
        a, b = self.value(x, number), self.value(y, number)
        if _shape(node) not in (_shape(x), _shape(y)):
            whole = self.op("fill", shape=_shape(node), value=NUMPY[number](1))
            a = self.op("mul", x=whole, y=a)
        return self.op("select", cond=self.value(condition), a=a, b=b)

    def dequantize(self, node: Node, packed: Node, scale: Node) -> Any:
        """Of constants an operator that says how they are compressed; of rows that were chosen when the program runs, by arithmetic."""
        nibbles = op_name(node) == "dequantize_int4"
        if not isinstance(self.values[packed], Table):
            return self._rows_decompressed(node, packed, scale, nibbles)
        data, scales = self.values[packed], self.value(scale)
        if not self.program.half:  # exactly: the scales are float16, and the weights are their products with integers in float32
            scales = self.op("constexpr_blockwise_shift_scale", data=scales, scale=np.ones((1, 1), np.float32))
        if nibbles:
            values = self._constant(Table(data.weight, data.dtype, data.shape, data.bounds, nibbles=True))
        else:
            rows, groups, size = data.shape
            values = self._constant(Table(data.weight, data.dtype, (rows, groups * size), data.bounds))
        return self.op("constexpr_blockwise_shift_scale", data=values, scale=scales)

    def _rows_decompressed(self, node: Node, packed: Node, scale: Node, nibbles: bool) -> Any:
        """All values but the last product are small integers, so nothing else is rounded."""
        values = self.op("cast", x=self.value(packed), dtype="fp32")
        if nibbles:
            high = self.op("floor", x=self.op("mul", x=values, y=np.float32(1 / 16)))
            low = self.op("sub", x=values, y=self.op("mul", x=high, y=np.float32(16)))
            values = self.op("sub", x=self.op("concat", values=[low, high], axis=2), y=np.float32(8))
        scales = self.op("reshape", x=self.floats(scale), shape=[*_shape(scale), 1])
        return self.op("reshape", x=self.op("mul", x=values, y=scales), shape=_shape(node))


SIMPLE = {
    "mul": "mul",
    "add": "add",
    "sub": "sub",
    "div": "real_div",
    "maximum": "maximum",
    "abs": "abs",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "gt": "greater",
    "bitwise_and": "logical_and",
    "logical_and": "logical_and",
}

RULES: dict[str, Callable[..., Any]] = {
    "mm": _Lowering.product,
    "bmm": _Lowering.product,
    "neg": _Lowering.negative,
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
    "rsqrt": _Lowering.rsqrt,
    "pow": _Lowering.power,
    "index_select": _Lowering.gather,
    "_to_copy": _Lowering.cast,
    "full": _Lowering.full,
    "where": _Lowering.where,
    "clone": _Lowering.alias,
    "alias": _Lowering.alias,
    "computed_once": _Lowering.alias,
    "dequantize_int4": _Lowering.dequantize,
    "dequantize_int8": _Lowering.dequantize,
}
