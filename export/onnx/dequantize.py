"""The decompress-on-demand op in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lcsb_mobile.bundle.manifest import DECOMPRESSION
from lcsb_mobile.bundle.weights import ZERO_POINT
from lcsb_mobile.export.onnx.graph_builder import DTYPES, MICROSOFT, GraphBuilder


def dequantize(b: GraphBuilder, packed: ir.Value, scale: ir.Value, bits: int, group_size: int, columns: int) -> ir.Value:
    """packed uint8 [N, K/G, G/2] (int4) or int8 [N, K/G, G], scale float16 [N, K/G] -> float32 [N, K].

    Every group is a row of its own: ONNX Runtime's DequantizeLinear is parallel along an axis but not over blocks, which
    makes this form twice as fast as `block_size` (docs/decisions.md). The zero point is 8 for nibbles, absent for int8.
    The nodes are labelled DECOMPRESSION.
    """
    with b.labelled(DECOMPRESSION):
        return _dequantize(b, packed, scale, bits, group_size, columns)


def _dequantize(b: GraphBuilder, packed: ir.Value, scale: ir.Value, bits: int, group_size: int, columns: int) -> ir.Value:
    if bits == 4:
        low = b.op("BitwiseAnd", packed, b.const(15, np.uint8))
        high = b.op("BitShift", packed, b.const(4, np.uint8), direction="RIGHT")
        packed = b.op("Concat", low, high, axis=2)
    groups = b.op("Reshape", packed, b.ints(-1, group_size))
    scales = b.op("Reshape", b.op("Cast", scale, to=DTYPES["float32"].value), b.ints(-1))
    zero = [b.op("ConstantOfShape", b.op("Shape", scales), value=ir.tensor(np.array([8], np.uint8)))] if bits == 4 else []
    return b.op("Reshape", b.op("DequantizeLinear", groups, scales, *zero, axis=0), b.ints(-1, columns))


def dequantize_on_gpu(b: GraphBuilder, packed: ir.Value, scale: ir.Value, bits: int, columns: int) -> ir.Value:
    """packed uint8 [N, K/G, G/2] (int4) or [N, K/G, G] (8 bits, `quantization.unsigned`), scale float32 [N, K/G] -> float32 [N, K], bit for
    bit as `dequantize`, in float arithmetic.

    ONNX Runtime's WebGPU provider has no kernels that take nibbles apart or put bytes together, and not in all versions one to cast them.
    It decompresses ONNX's own int4 in blocks, but the Java binding has no such type to feed.
    """
    with b.labelled(DECOMPRESSION):
        values = _nibbles(b, packed) if bits == 4 else b.op("DequantizeLinear", packed, b.scalar(1), b.const(ZERO_POINT, np.uint8))
        return b.op("Reshape", b.op("Mul", values, b.op("Unsqueeze", scale, b.ints(2))), b.ints(-1, columns))


def _nibbles(b: GraphBuilder, packed: ir.Value) -> ir.Value:
    both = b.op("DequantizeLinear", packed, b.scalar(1))
    high = b.op("Floor", b.op("Mul", both, b.scalar(1 / 16)))
    low = b.op("Sub", both, b.op("Mul", high, b.scalar(16)))
    return b.op("Sub", b.op("Concat", low, high, axis=2), b.scalar(8))


def matmul_nbits(b: GraphBuilder, x: ir.Value, packed: ir.Value, scale: ir.Value, shape: Sequence[int], accuracy_level: int) -> ir.Value:
    """x [T, K] times the transpose of an int4 matrix [N, K] by com.microsoft::MatMulNBits.

    The operator pairs neighbours in a byte, where ours holds element b and b + G/2 of a group: the columns of x are permuted instead.
    Only with constant weights does ONNX Runtime compute at the level asked for; else it decompresses to float.
    """
    rows, columns = shape
    _, groups, half = packed.shape.numpy()  # type: ignore[union-attr]
    halves = b.op("Reshape", x, b.ints(-1, groups, 2, half))
    paired = b.op("Reshape", b.op("Transpose", halves, perm=[0, 1, 3, 2]), b.ints(-1, columns))
    scales = b.op("Reshape", b.op("Cast", scale, to=DTYPES["float32"].value), b.ints(-1))
    sizes: dict[str, Any] = {"K": columns, "N": rows, "bits": 4, "block_size": 2 * half}
    return b.op("MatMulNBits", paired, packed, scales, domain=MICROSOFT, accuracy_level=accuracy_level, **sizes)
