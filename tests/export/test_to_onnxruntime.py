"""The files of target `onnxruntime`: law 6, operators that every ONNX Runtime has, independence of depth, what the manifest says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers.captured import TILE, TILES
from helpers.onnx_files import all_nodes, all_tensors, load, matrix_sizes
from helpers.onnxruntime_bundles import Exported, MakeExported
from helpers.tiny_models import ARCHITECTURES

from lcsb_mobile.bundle.manifest import Graph

BLOCKS = ("block_forward", "block_backward", "block_forward_keep", "block_backward_kept", "block_prefill", "block_decode")
PROGRAMS = {*BLOCKS, "embed", "head", "head_eval", "decode_embed", "logits", "adamw"}

# Of ONNX's own domain, and no other: standard operators whose CPU kernels ONNX Runtime has had for years, in all its builds that are not
# reduced. A new one here is to be looked up in its list of kernels first.
OPERATORS = """
Add And BitShift BitwiseAnd Cast Concat ConstantOfShape DequantizeLinear Div Equal Exp Expand Gather Gemm Greater Identity Less Log Loop
MatMul Max Mul Neg NonZero Not Pow Reciprocal ReduceMax ReduceMean ReduceSum Reshape ScatterND Shape Sigmoid Size Slice Softmax Split
Sqrt Squeeze Sub Sum Transpose Where
"""
DTYPES = {
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}
KINDS = [(name, 4, 8, TILE) for name in ARCHITECTURES] + [("llama-untied", 8, 4, None)]


def programs_of(case: Exported) -> dict[str, tuple[Graph, onnx.ModelProto]]:
    return {name: (graph, load(case, graph.file)) for name, graph in case.bundle.manifest.graphs.items()}


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), KINDS)
def test_only_operators_that_every_runtime_has(programs: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    found = programs_of(programs(name, bits, embedding_bits, tile))
    assert found.keys() >= PROGRAMS
    for _, model in found.values():
        nodes = list(all_nodes(model.graph))
        assert {node.domain for node in nodes} == {""}
        assert {node.op_type for node in nodes} <= set(OPERATORS.split())
        assert model.ir_version <= 10 and {(o.domain, o.version) for o in model.opset_import if not o.domain} == {("", 21)}
        assert len({node.name for node in nodes}) == len(nodes)  # 1.19.2 breaks on two of one name in a fusion
        onnx.checker.check_model(model)


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), KINDS)
def test_no_program_holds_a_weight(programs: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """Law 6: weights are inputs. No constant is as large as the smallest matrix, none lies outside its file, all are small together."""
    case = programs(name, bits, embedding_bits, tile)
    smallest, longest = min(matrix_sizes(case.model)), 2 * 20 * 20  # the windows of two kinds of layers
    for _, model in programs_of(case).values():
        for tensor in all_tensors(model.graph):
            assert tensor.data_location != onnx.TensorProto.EXTERNAL
            assert np.prod(tensor.dims, dtype=int) <= longest < smallest, tensor.name
    assert sum((case.bundle.path / graph.file).stat().st_size for graph in case.bundle.manifest.graphs.values()) < 1_000_000


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decompressions(programs: MakeExported, name: str) -> None:
    """A block's program decompresses each matrix, or tile, once (Gemma's recomputing backward its tiles twice); embedding and head the
    rows that they need, and the head a chunk in its loop."""
    found = programs_of(programs(name, tile=TILE))
    expected = dict.fromkeys(BLOCKS, 4 + 3 * TILES) | {"embed": 1, "decode_embed": 1, "head": 2, "head_eval": 2, "logits": 1, "adamw": 0}
    if name == "gemma3":
        expected["block_backward"] += 3 * TILES
    for program, count in expected.items():
        nodes = list(all_nodes(found[program][1].graph))
        assert sum(node.op_type == "DequantizeLinear" for node in nodes) == count
        assert all(node.name.startswith("decompress.") for node in nodes if node.op_type == "DequantizeLinear")
        assert sum(n.op_type == "DequantizeLinear" for n in found[program][1].graph.node) == count - (
            program in ("head", "head_eval", "logits")
        )


def test_programs_do_not_depend_on_depth(programs: MakeExported) -> None:
    """Byte for byte, with layers of two kinds."""
    shallow, deep = programs("gemma3-untied", 8, 8), programs("gemma3-untied", 8, 8, layers=6)
    assert [case.model.config.num_hidden_layers for case in (shallow, deep)] == [4, 6]
    assert shallow.bundle.manifest.graphs == deep.bundle.manifest.graphs
    for graph in shallow.bundle.manifest.graphs.values():
        assert (shallow.bundle.path / graph.file).read_bytes() == (deep.bundle.path / graph.file).read_bytes(), graph.file


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), KINDS)
def test_programs_are_described_as_they_are(programs: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """Names, types and shapes of inputs and outputs; a weight is a tensor of the table or one layer's slice of it."""
    case = programs(name, bits, embedding_bits, tile)
    table = {tensor.name: tensor for tensor in case.model.table}
    for stem, (graph, model) in programs_of(case).items():
        assert graph.file == f"{stem}.onnx"
        for values, described in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
            assert [value.name for value in values] == [tensor.name for tensor in described]
            for value, tensor in zip(values, described, strict=True):
                kind = value.type.tensor_type
                shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in kind.shape.dim)
                assert (DTYPES[kind.elem_type], shape) == (tensor.dtype, tensor.shape)
        for tensor in (tensor for tensor in graph.inputs if tensor.weight is not None):
            stored = table[tensor.weight]
            shape = stored.shape[1:] if stored.per_layer else stored.shape
            assert (tensor.dtype, tensor.shape) == (stored.dtype, shape)
            assert stored.per_layer == (stem in BLOCKS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_output_is_computed_last(programs: MakeExported, name: str) -> None:
    """In every program: `save_model` says why."""
    for graph, model in programs_of(programs(name, tile=TILE)).values():
        assert graph.outputs[0].name in model.graph.node[-1].output


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_kept_tensors(programs: MakeExported, name: str) -> None:
    """What one program keeps the other reads, under the same names and types: float16 but for the residual stream."""
    graphs = programs(name, tile=TILE).bundle.manifest.graphs
    kept = graphs["block_forward_keep"].outputs[1:]
    read = [tensor for tensor in graphs["block_backward_kept"].inputs if tensor.name.startswith("kept.")]
    assert list(kept) == read and len(kept) >= 4 + 2 * TILES
    assert {tensor.dtype for tensor in kept if tensor.shape == (20, 48)} == {"float32"}
    assert {tensor.dtype for tensor in kept if tensor.shape != (20, 48)} == {"float16"}
    assert list(graphs["block_forward"].inputs) == list(graphs["block_forward_keep"].inputs)
