"""Which operators ONNX Runtime's WebGPU provider computes, of those that blocks consist of.

Found by asking it: `onnxruntime-webgpu` 1.27.0 made sessions of the blocks' programs of every architecture with
`session.disable_cpu_ep_fallback`, which refuses a model that has a node for the CPU. It refused Cast of uint8. ONNX Runtime Web 1.30.0 has
no kernel for BitwiseAnd, BitShift, NonZero, Equal of int64, Concat or Slice of uint8, Gather or Slice of int8.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

FLOAT, UINT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64

# The types of data that an operator takes. Beside them it may take int64 constants: axes, shapes, where a slice begins.
FLOATS = """
Abs Add Concat Div Exp Expand Floor Gemm MatMul Mul Neg Pow Reciprocal ReduceMean ReduceSum Relu Reshape Sigmoid Slice Softmax Split Sqrt
Sub Tanh Transpose Unsqueeze
"""
KERNELS = dict.fromkeys(FLOATS.split(), (FLOAT,)) | {"DequantizeLinear": (UINT8, FLOAT)}


def nodes_without_kernel(model: onnx.ModelProto) -> Iterator[str]:
    """Node by node, with its types."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    constants = {tensor.name for tensor in graph.initializer}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {x.name: x.type.tensor_type.elem_type for x in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:  # one that holds others has no kernel itself
        data = [types[x] for x in node.input if x and not (x in constants and types[x] == INT64)]
        kernel = KERNELS.get(node.op_type)
        if node.domain or kernel is None or tuple(data) != (kernel * len(data) if len(kernel) == 1 else kernel):
            yield f"{node.op_type}({', '.join(TensorProto.DataType.Name(x) for x in data)})"
