"""The files of target `onnxruntime`: law 6, operators that every ONNX Runtime has, independence of depth, what the manifest says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers.captured import TILE, TILES
from helpers.onnx_files import all_nodes, all_tensors, load, matrix_sizes
from helpers.onnxruntime_bundles import Exported, MakeExported
from helpers.tiny_models import ARCHITECTURES, HYBRIDS

from lcsb_mobile.bundle.manifest import Graph
from lcsb_mobile.export.models import model_of

ROLES = ("forward", "backward", "forward_keep", "backward_kept", "prefill", "decode")
BLOCKS = tuple(f"block_{role}" for role in ROLES)  # of models with one kind of layers
OTHERS = {"embed", "head", "head_eval", "decode_embed", "logits", "adamw", "gemm", "gemm_backward"}

# Of ONNX's own domain, and no other: standard operators whose CPU kernels ONNX Runtime has had for years, in all its builds that are not
# reduced. A new one here is to be looked up in its list of kernels first.
OPERATORS = """
Abs Add And BitShift BitwiseAnd Cast Concat ConstantOfShape DequantizeLinear Div Equal Exp Expand Gather Gemm Greater Identity Less Log Loop
MatMul Max Mul Neg NonZero Not Pow Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape ScatterND Shape Sigmoid Size Slice Softmax Split
Sqrt Squeeze Sub Sum Transpose Where
"""
DTYPES = {
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}
KINDS = [(name, 4, 8, TILE) for name in (*ARCHITECTURES, *HYBRIDS)] + [("llama-untied", 8, 4, None)]


def programs_of(case: Exported) -> dict[str, tuple[Graph, onnx.ModelProto]]:
    return {name: (graph, load(case, graph.file)) for name, graph in case.bundle.manifest.graphs.items()}


def blocks_of(case: Exported) -> dict[str, str]:
    """Program -> the kind of layers that it is of."""
    return {f"{kind.name}_{role}": kind.name for kind in case.bundle.manifest.kinds for role in ROLES}


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), KINDS)
def test_only_operators_that_every_runtime_has(programs: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    case = programs(name, bits, embedding_bits, tile)
    found = programs_of(case)
    assert found.keys() == OTHERS | blocks_of(case).keys()
    for _, model in found.values():
        nodes = list(all_nodes(model.graph))
        assert {node.domain for node in nodes} == {""}
        assert {node.op_type for node in nodes} <= set(OPERATORS.split())
        assert model.ir_version <= 10 and {(o.domain, o.version) for o in model.opset_import if not o.domain} == {("", 21)}
        assert len({node.name for node in nodes}) == len(nodes)  # 1.19.2 breaks on two of one name in a fusion
        onnx.checker.check_model(model)


@pytest.mark.parametrize(("name", "bits", "embedding_bits", "tile"), KINDS)
def test_no_program_holds_a_weight(programs: MakeExported, name: str, bits: int, embedding_bits: int, tile: int | None) -> None:
    """Law 6: weights are inputs. But for windows of tokens and constants of a kind's blocks no constant is as large as the smallest matrix,
    none lies outside its file, all are small together."""
    case = programs(name, bits, embedding_bits, tile)
    kinds, t = model_of(case.model.config).kinds.values(), case.model.seq_len
    known = {(shape, onnx.TensorProto.BOOL) for shape in ((t, t), (t, t + 1))}
    known |= {(tuple(const.shape), onnx.TensorProto.FLOAT) for kind in kinds for const in kind.consts.values()}
    if (rule := case.model.config.linear_attention) is not None:
        known.add(((rule.chunk, rule.chunk), onnx.TensorProto.BOOL))
    smallest, longest = min(matrix_sizes(case.model)), 2 * 20 * 20
    for _, model in programs_of(case).values():
        for tensor in all_tensors(model.graph):
            assert tensor.data_location != onnx.TensorProto.EXTERNAL
            if (tuple(tensor.dims), tensor.data_type) not in known:
                assert np.prod(tensor.dims, dtype=int) <= longest < smallest, tensor.name
    size = sum((case.bundle.path / graph.file).stat().st_size for graph in case.bundle.manifest.graphs.values())
    assert size < 1_000_000 * len(kinds)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decompressions(programs: MakeExported, name: str) -> None:
    """A block's program decompresses each matrix, or tile, once (Gemma's recomputing backward its tiles twice); embedding and head the
    rows that they need, and the head a chunk in its loop."""
    found = programs_of(programs(name, tile=TILE))
    attention = 2 if name == "phi3" else 4  # queries, keys and values are one matrix there
    expected = dict.fromkeys(BLOCKS, attention + 3 * TILES) | {
        "embed": 1,
        "decode_embed": 1,
        "head": 2,
        "head_eval": 2,
        "logits": 1,
        "adamw": 0,
    }
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
            own = blocks_of(case).get(stem)
            assert tensor.weight == (tensor.name if own is None else f"layers.{own}.{tensor.name}")
            assert stored.per_layer == (own is not None)


@pytest.mark.parametrize("name", [*ARCHITECTURES, *HYBRIDS])
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


@pytest.mark.parametrize("name", HYBRIDS)
def test_kept_tensors_of_several_kinds(programs: MakeExported, name: str) -> None:
    manifest = programs(name, tile=TILE).bundle.manifest
    assert len(manifest.kinds) == 2
    for kind in manifest.kinds:
        forward, keep, reads = (manifest.graphs[f"{kind.name}_{role}"] for role in ("forward", "forward_keep", "backward_kept"))
        kept = keep.outputs[1:]
        assert list(kept) == [tensor for tensor in reads.inputs if tensor.name.startswith("kept.")] and len(kept) >= 1 + 2 * TILES
        # Where a projection back into the residual stream is in tiles, what is kept is what they add to it.
        assert {tensor.dtype for tensor in kept if tensor.shape == (64, 48)} <= {"float32"}
        assert {tensor.dtype for tensor in kept if tensor.shape != (64, 48)} == {"float16"}
        assert list(forward.inputs) == list(keep.inputs)


@pytest.mark.parametrize("name", [*ARCHITECTURES, *HYBRIDS])
def test_tables_are_those_that_programs_read(programs: MakeExported, name: str) -> None:
    """No more, no fewer; of training and prompts, and of one token. Every read of a program is bound to one, in every layer."""
    manifest = programs(name, tile=TILE).bundle.manifest
    for program, roles in (("embed", ROLES[:5]), ("decode_embed", ROLES[5:])):
        made = {tensor.name: tensor.shape for tensor in manifest.graphs[program].outputs[1:]}
        read = set()
        for layer in manifest.layers:
            for role in roles:
                inputs = {tensor.name: tensor.shape for tensor in manifest.graphs[f"{layer.kind}_{role}"].inputs if tensor.weight is None}
                needed = {table: inputs[name] for name, table in layer.reads.items() if name in inputs}
                assert needed.items() <= made.items()
                read |= needed.keys()
        assert read == made.keys()


def test_tables_of_hybrids_are_others(programs: MakeExported) -> None:
    """So that the test above sees different ones: a token needs none but those of attention, and its mask has a place more."""
    for name, own in (("lfm2", {"taps", "last"}), ("qwen3_5", {"taps", "last", "within", "carried", "real"})):
        graphs = programs(name, tile=TILE).bundle.manifest.graphs
        typed = {f"{table}.full_attention" for table in ("cos", "sin", "mask")}
        assert {tensor.name for tensor in graphs["embed"].outputs[1:]} == typed | own
        token = {tensor.name: tensor.shape for tensor in graphs["decode_embed"].outputs[1:]}
        assert token.keys() == typed and token["mask.full_attention"] == (1, 65)
