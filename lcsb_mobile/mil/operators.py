"""MIL's operators in NumPy, a rule each: of those that the programs of a fine-tune consist of.

The definitions are coremltools' (`converters/mil/mil/ops/defs`, opset iOS 18). A rule takes an operation's operands by name, arrays or
texts, a list where the operator takes one, and the types of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lcsb_mobile.mil.package import TensorType

Rule = Callable[..., Any]
LISTS = ("values",)  # parameters that take several
DTYPES = {"fp32": np.float32, "fp16": np.float16, "int32": np.int32, "int8": np.int8, "uint8": np.uint8, "bool": np.bool_}


def unary(function: Callable[[np.ndarray], np.ndarray]) -> Rule:
    return lambda results, x: function(x)


def binary(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
    return lambda results, x, y: function(x, y)


def wide(x: np.ndarray) -> np.ndarray:
    """float16 as float32: sums are of float32 whatever is summed."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def matmul(results: Sequence[TensorType], x: np.ndarray, y: np.ndarray, transpose_x: Any = False, transpose_y: Any = False) -> np.ndarray:
    a = np.swapaxes(x, -1, -2) if transpose_x else x
    b = np.swapaxes(y, -1, -2) if transpose_y else y
    product: np.ndarray = (wide(a) @ wide(b)).astype(x.dtype)
    return product


def linear(results: Sequence[TensorType], x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    product: np.ndarray = (wide(x) @ wide(weight).T + wide(bias)).astype(x.dtype)
    return product


def softmax(results: Sequence[TensorType], x: np.ndarray, axis: np.ndarray) -> np.ndarray:
    exponentials = np.exp(wide(x) - wide(x).max(int(axis), keepdims=True))
    shares: np.ndarray = exponentials / exponentials.sum(int(axis), keepdims=True)
    return shares.astype(x.dtype)


def reduce(function: Callable[..., np.ndarray]) -> Rule:
    def rule(results: Sequence[TensorType], x: np.ndarray, axes: np.ndarray, keep_dims: np.ndarray) -> np.ndarray:
        return function(wide(x), axis=tuple(map(int, axes)), keepdims=bool(keep_dims)).astype(x.dtype)

    return rule


def rsqrt(results: Sequence[TensorType], x: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    root: np.ndarray = 1 / np.sqrt(x + epsilon.astype(x.dtype))
    return root.astype(x.dtype)


def sigmoid(results: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
    values: np.ndarray = 1 / (1 + np.exp(-wide(x)))
    return values.astype(x.dtype)


def slice_by_index(results: Sequence[TensorType], x: np.ndarray, begin: np.ndarray, end: np.ndarray, stride: np.ndarray) -> np.ndarray:
    return x[tuple(slice(*map(int, bound)) for bound in zip(begin, end, stride, strict=True))]


def slice_by_size(results: Sequence[TensorType], x: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    ends = begin + size
    if (begin < 0).any() or (ends > x.shape).any():
        raise ValueError(f"expected a part of {list(x.shape)}, found {size.tolist()} from {begin.tolist()} on")
    return x[tuple(slice(int(first), int(last)) for first, last in zip(begin, ends))]


def gather(
    results: Sequence[TensorType], x: np.ndarray, indices: np.ndarray, axis: np.ndarray, batch_dims: np.ndarray, validate_indices: Any
) -> np.ndarray:
    size = x.shape[int(axis)]
    if int(batch_dims) or (indices < 0).any() or (indices >= size).any():
        raise ValueError(f"expected indices from 0 to {size - 1}, and no dimensions of batches")
    return x.take(indices, int(axis))


def split(results: Sequence[TensorType], x: np.ndarray, split_sizes: np.ndarray, axis: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(split_sizes)[:-1], int(axis))


def concat(results: Sequence[TensorType], values: list[np.ndarray], axis: np.ndarray, interleave: np.ndarray) -> np.ndarray:
    if interleave:
        raise ValueError("expected parts one after another, found them interleaved")
    return np.concatenate(values, int(axis))


def tile(results: Sequence[TensorType], x: np.ndarray, reps: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, results[0].shape) if _repeats_single(x, reps) else np.tile(x, reps)


def _repeats_single(x: np.ndarray, reps: np.ndarray) -> bool:
    return all(size == 1 or count == 1 for size, count in zip(x.shape, reps, strict=True))


def blockwise(results: Sequence[TensorType], data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """scale (data - offset), each number of `scale` and `offset` for a block of `data`."""
    if data.ndim != scale.ndim or any(size % count for size, count in zip(data.shape, scale.shape)):
        raise ValueError(f"expected scales that divide {list(data.shape)}, found {list(scale.shape)}")
    blocks = [part for size, count in zip(data.shape, scale.shape) for part in (count, size // count)]
    over = [part for count in scale.shape for part in (count, 1)]
    values = data.reshape(blocks).astype(scale.dtype)
    if offset is not None:
        values = values - offset.reshape(over).astype(scale.dtype)
    scaled: np.ndarray = (values * scale.reshape(over)).reshape(data.shape)
    return scaled


RULES: dict[str, Rule] = {
    "const": lambda results, val: val,
    "constexpr_blockwise_shift_scale": blockwise,
    "identity": lambda results, x: x,
    "cast": lambda results, x, dtype: x.astype(DTYPES[dtype]),
    "add": binary(np.add),
    "sub": binary(np.subtract),
    "mul": binary(np.multiply),
    "real_div": binary(np.divide),
    "maximum": binary(np.maximum),
    "pow": binary(np.power),
    "abs": unary(np.abs),
    "exp": unary(np.exp),
    "exp2": unary(np.exp2),
    "sqrt": unary(np.sqrt),
    "ceil": unary(np.ceil),
    "floor": unary(np.floor),
    "relu": lambda results, x: np.maximum(x, 0),
    "log": lambda results, x, epsilon: np.log(x + epsilon.astype(x.dtype)),
    "rsqrt": rsqrt,
    "sigmoid": sigmoid,
    "tanh": unary(np.tanh),
    "softmax": softmax,
    "equal": binary(np.equal),
    "not_equal": binary(np.not_equal),
    "less": binary(np.less),
    "greater": binary(np.greater),
    "logical_and": binary(np.logical_and),
    "select": lambda results, cond, a, b: np.where(cond, a, b),
    "matmul": matmul,
    "linear": linear,
    "reduce_mean": reduce(np.mean),
    "reduce_sum": reduce(np.sum),
    "reduce_max": reduce(np.max),
    "reshape": lambda results, x, shape: x.reshape(shape),
    "transpose": lambda results, x, perm: x.transpose(perm),
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "gather": gather,
    "split": split,
    "concat": concat,
    "tile": tile,
    "fill": lambda results, shape, value: np.full(shape, value),
}
