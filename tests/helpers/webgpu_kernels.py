"""Which operators ONNX Runtime's WebGPU provider computes, of those that a bundle's programs consist of.

Found by asking it, an operator a model, and then every program of every architecture, with `session.disable_cpu_ep_fallback`, which refuses
a model that has a node for the CPU: `onnxruntime-ep-webgpu` 0.4.0 with ONNX Runtime 1.32.0. It refused Gather of int8, Concat and Slice of
uint8, Slice of int32, and int64 anywhere but as Gather's indices (its option `enableInt64` adds some of that, and a page cannot set it).
`onnxruntime-webgpu` 1.27.0 refused Cast of uint8, and ONNX Runtime Web 1.30.0 has no kernel for BitwiseAnd, BitShift and NonZero.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

BOOL, FLOAT, UINT8, INT32, INT64 = TensorProto.BOOL, TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64

# The types of data that an operator takes, one for all its inputs or one for each; of Cast, what it makes too. Beside them it may take
# int64 constants: axes, shapes, where a slice begins.
FLOATS = """
Abs Concat Div Exp Expand Floor Gemm Log MatMul Max Neg Pow Reciprocal ReduceMax ReduceMean ReduceSum Relu Sigmoid Slice Softmax Split Sqrt
Tanh Transpose Unsqueeze
"""
NUMBERS = "Add Equal Greater Less Mul Reshape Sub"
Kernels = dict[str, tuple[tuple[int, ...], ...]]
KERNELS: Kernels = dict.fromkeys(FLOATS.split(), ((FLOAT,),)) | dict.fromkeys(NUMBERS.split(), ((FLOAT,), (INT32,)))
KERNELS["Reshape"] += ((BOOL,),)
KERNELS |= {
    "And": ((BOOL,),),
    "Cast": ((BOOL, FLOAT), (FLOAT, INT32)),
    "DequantizeLinear": ((UINT8, FLOAT), (UINT8, FLOAT, UINT8)),
    "Gather": tuple((data, index) for data in (FLOAT, INT32, UINT8) for index in (INT32, INT64)),
    "Range": ((INT32,),),
    "Where": ((BOOL, FLOAT, FLOAT), (BOOL, INT32, INT32)),
}


def nodes_without_kernel(model: onnx.ModelProto) -> Iterator[str]:
    """Node by node, with its types."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    constants = {tensor.name for tensor in graph.initializer}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {x.name: x.type.tensor_type.elem_type for x in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:  # one that holds others has no kernel itself
        data = [types[x] for x in node.input if x and not (x in constants and types[x] == INT64)]
        data += [types[x] for x in node.output if node.op_type == "Cast"]
        known = any(tuple(data) == (kernel * len(data) if len(kernel) == 1 else kernel) for kernel in KERNELS.get(node.op_type, ()))
        if node.domain or not known:
            yield f"{node.op_type}({', '.join(TensorProto.DataType.Name(x) for x in data)})"
