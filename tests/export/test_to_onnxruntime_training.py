"""Law 6 for ONNX Runtime's training API, and what else holds of the files themselves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from helpers.onnx_files import all_nodes, all_tensors, load, matrix_sizes
from helpers.onnxruntime_bundles import MakeExported
from helpers.runners import TOLERANCE
from helpers.tiny_models import ARCHITECTURES, WITH_STEP_GRAPHS, assert_steps_equal, packed_batch, subset

from lcsb_mobile.bundle.weights import TAIL
from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner

pytestmark = [pytest.mark.training_api, pytest.mark.usefixtures("small_chunks")]

GRAPHS = ("training_model.onnx", "eval_model.onnx", "logits_model.onnx", "optimizer_model.onnx")


@pytest.mark.parametrize(("name", "bits"), WITH_STEP_GRAPHS, ids=str)
def test_no_float_copy_of_a_matrix(training_programs: MakeExported, name: str, bits: tuple[int, int]) -> None:
    """Law 6: what is as large as a matrix lies in weights.bin, as integers, once."""
    case = training_programs(name, *bits)
    smallest = min(matrix_sizes(case.model))
    for file in GRAPHS:
        for tensor in all_tensors(load(case, file).graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                found = {entry.key: entry.value for entry in tensor.external_data}
                entry = next(t for t in case.model.table if t.name == tensor.name)
                assert found == {"location": "weights.bin", "offset": str(entry.offset), "length": str(entry.nbytes)}
                assert tuple(tensor.dims) == entry.shape
                if tensor.name.endswith(".packed"):
                    assert tensor.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
            else:
                assert np.prod(tensor.dims, dtype=int) < smallest, tensor.name
    assert sum((case.bundle.path / file).stat().st_size for file in GRAPHS) < 400_000
    adapter_bytes = case.adapter.nbytes
    assert adapter_bytes <= (case.bundle.path / "checkpoint").stat().st_size < adapter_bytes + 2000


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_file(training_programs: MakeExported, name: str) -> None:
    """The table covers the file but for padding; a block's matrices take half a byte and a float16 to 8 weights."""
    case = training_programs(name)
    table = case.model.table
    assert (case.bundle.path / "weights.bin").stat().st_size == table[-1].offset + table[-1].nbytes + TAIL
    for before, after in pairwise(table):
        assert 0 <= after.offset - before.offset - before.nbytes < 4096
    for packed, scale in pairwise(table):
        if packed.per_layer and packed.name.endswith(".packed"):
            layers, rows, groups, size = packed.shape
            assert (packed.nbytes + scale.nbytes) / (layers * rows * groups * 2 * size) == 0.5 + 2 / 8


# Depth is an input of the graphs: two architectures of four, as test_blocks.py holds the captured blocks of all to the same.
DEEP = ("qwen2", "gemma3")


@pytest.mark.parametrize("name", DEEP)
def test_graphs_do_not_depend_on_depth(training_programs: MakeExported, name: str) -> None:
    shallow, deep = training_programs(name, layers=3), training_programs(name, layers=6)
    for file in GRAPHS:
        kinds = [[node.op_type for node in all_nodes(load(case, file).graph)] for case in (shallow, deep)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", DEEP)
def test_depth_of_six_runs(training_programs: MakeExported, name: str) -> None:
    case = training_programs(name, layers=6)
    step, batch = subset([1, 4], [2, 4]), packed_batch()
    found = OnnxRuntimeTrainingRunner(case.bundle, threads=1).step(step, batch, case.adapter)
    expected = case.model.runner().step(step, batch, case.adapter)
    assert_steps_equal(found, expected, TOLERANCE[case.model.config.model_type])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graphs_are_described_as_they_are(training_programs: MakeExported, name: str) -> None:
    """The manifest's inputs and outputs are the files', with types and shapes; the standard checker accepts the files."""
    case = training_programs(name)
    dtypes = {onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.BOOL: "bool"}
    for stem, described in case.bundle.manifest.graphs.items():
        model = load(case, described.file)
        assert model.ir_version <= 10  # the newest that ONNX Runtime 1.19.2 reads
        assert described.file == f"{stem}.onnx"
        assert [i.name for i in model.graph.input] == [i.name for i in described.inputs]
        assert [o.name for o in model.graph.output] == [o.name for o in described.outputs]
        names = [node.name for node in all_nodes(model.graph)]
        assert len(names) == len(set(names))
        if stem != "optimizer_model":  # whose values are sequences
            for found, tensor in zip([*model.graph.input, *model.graph.output], [*described.inputs, *described.outputs], strict=True):
                kind = found.type.tensor_type
                shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)  # -1: free
                assert (dtypes[kind.elem_type], shape) == (tensor.dtype, tensor.shape)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decompressions(training_programs: MakeExported, name: str) -> None:
    """In the training graph: one a matrix in the forward loop, as many in a branch of the backward loop, a chunk of the head in its
    loop, and outside loops the rows of the input tokens and of the labels."""
    graph = load(training_programs(name), "training_model.onnx").graph
    loops = [next(a.g for a in node.attribute if a.name == "body") for node in graph.node if node.op_type == "Loop"]
    counts = [sum(node.op_type == "DequantizeLinear" for node in all_nodes(loop)) for loop in loops]
    matrices = 4 if name == "phi3" else 7
    assert sorted(counts) == [1, matrices, matrices]
    assert sum(node.op_type == "DequantizeLinear" for node in graph.node) == 2
    backward = next(
        loop for loop, count in zip(loops, counts, strict=True) if count == matrices and any(n.op_type == "If" for n in loop.node)
    )
    assert not any(node.op_type == "DequantizeLinear" for node in backward.node)  # only when the layer propagates
    branch = next(node for node in backward.node if node.op_type == "If")
    otherwise = next(a.g for a in branch.attribute if a.name == "else_branch")
    assert {node.op_type for node in otherwise.node} == {"ConstantOfShape", "Identity"}
