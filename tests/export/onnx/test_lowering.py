"""ATen -> ONNX: the lowered block's numbers against the captured graph, its structure, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.captured import MakeGraphs, layer_feeds, random_hidden
from helpers.lowered import dtype, run_file, write
from helpers.tiny_models import ARCHITECTURES, MakeTiny, packed_batch
from torch import Tensor

from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.graphs.captured import capture
from lcsb_mobile.export.onnx.dequantize import dequantize as lower_dequantize
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, loop_body, save_model, value
from lcsb_mobile.export.weights.quantization import dequantize, quantize


def lower_function(function: Callable[..., Any], args: Sequence[Tensor], path: Path) -> onnx.ModelProto:
    """`function` of tensors, captured as a block is, then lowered."""
    names = tuple(f"x{number}" for number in range(len(args)))
    return write(capture(lambda *x: (function(*x),), args, names, ("y",)), path)


# Numbers


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lowered_block_equals_the_captured(tiny: MakeTiny, graphs: MakeGraphs, tmp_path: Path, name: str, bits: int) -> None:
    model, captured_block = tiny(name, bits), graphs(name, bits)
    feeds = layer_feeds(model, 1, packed_batch(), model.adapter()) | random_hidden(model)
    for captured in (captured_block.forward, captured_block.backward):
        write(captured, tmp_path / "block.onnx")
        expected = captured.module(*(feeds[key] for key in captured.inputs))
        for found, want in zip(run_file(tmp_path / "block.onnx", feeds), expected, strict=True):
            # float32 on both sides, sums in another order: measured 5e-7 of the largest element, Gemma 1.2e-6
            np.testing.assert_allclose(found, want.numpy(), rtol=0, atol=5e-6 * float(want.abs().max()))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [8, 32])
def test_dequantize_is_exact(tmp_path: Path, bits: int, group_size: int) -> None:
    matrix = quantize(torch.randn(7, 96, generator=torch.Generator().manual_seed(0)), bits, group_size)
    b = GraphBuilder()
    inputs = [value("packed", dtype(matrix.packed), matrix.packed.shape), value("scale", "float16", matrix.scale.shape)]
    result = lower_dequantize(b, *inputs, bits, group_size, columns=96)
    save_model(b, tmp_path / "dequantize.onnx", inputs, {"y": (result, "float32", (7, 96))})
    (found,) = run_file(tmp_path / "dequantize.onnx", {"packed": matrix.packed, "scale": matrix.scale})
    assert np.array_equal(found, dequantize(matrix.packed, matrix.scale).numpy())  # one product an element


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "mm": (lambda a, b: a @ b, [(3, 4), (4, 5)]),
    "mm, left transposed": (lambda a, b: a.t() @ b, [(4, 3), (4, 5)]),
    "mm, right transposed": (lambda a, b: a @ b.t(), [(3, 4), (5, 4)]),
    "mm, both transposed": (lambda a, b: a.t() @ b.t(), [(4, 3), (5, 4)]),
    "mm, transposed twice": (lambda a, b: a @ b.t().t(), [(3, 4), (4, 5)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "scalar operands": (lambda a: (a * 3.0 + 2.0 - 0.5) / 7.0, [(3, 4)]),
    "reversed operands": (lambda a: 2.0 - a, [(3, 4)]),
    "broadcast": (lambda a, b: a[:, None] * b - b, [(3, 4), (2, 4)]),
    "neg": (lambda a: -a, [(3, 4)]),
    "sigmoid": (torch.sigmoid, [(3, 4)]),
    "tanh": (torch.tanh, [(3, 4)]),
    "softmax": (lambda a: torch.softmax(a, dim=-1), [(2, 3, 4)]),
    "mean": (lambda a: a.mean(-1, keepdim=True), [(3, 4)]),
    "sum": (lambda a: a.sum([0]), [(3, 4)]),
    "permute": (lambda a: a.permute(2, 0, 1).reshape(4, 6), [(2, 3, 4)]),
    "expand": (lambda a: a[:, None].expand(3, 2, 4), [(3, 4)]),
    "chunk and cat": (lambda a: torch.cat([part * 2 for part in a.chunk(2, dim=-1)[::-1]], dim=-1), [(3, 4)]),
    "slice": (lambda a: a[1:3] * 1.0, [(5, 4)]),
    "slice to the end": (lambda a: a[:, 2:] * 1.0, [(3, 5)]),
    "power": (lambda a: (a * a + 1.0) ** 3, [(3, 4)]),
    "rsqrt": (lambda a: torch.rsqrt(a * a + 1.0), [(3, 4)]),
    "clone": (lambda a: a.clone() + 1.0, [(3, 4)]),
    "abs": (torch.abs, [(3, 4)]),
    "exp": (torch.exp, [(3, 4)]),
    "relu": (torch.relu, [(3, 4)]),
    "equal, as a number": (lambda a: (a == a[:, :1]).float(), [(3, 4)]),
    "and": (lambda a: ((a == a[:, :1]) & (a == a[:1])).float(), [(3, 4)]),
    "logical and": (lambda a: torch.logical_and(a == a[:, :1], a == a[:1]).float(), [(3, 4)]),
    "where": (lambda a, b: torch.where(a == a[:, :1], a, b), [(3, 4), (3, 4)]),
    "the gradient of a part that is not used": (
        lambda a, g: torch.func.vjp(lambda x: torch.split(x, [3, 1], 1)[0] * 2.0, a)[1](g)[0],
        [(3, 4), (3, 3)],
    ),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_each_rule(tmp_path: Path, case: str) -> None:
    function, shapes = FUNCTIONS[case]
    args = [torch.randn(shape, generator=torch.Generator().manual_seed(number)) for number, shape in enumerate(shapes)]
    lower_function(function, args, tmp_path / "rule.onnx")
    (found,) = run_file(tmp_path / "rule.onnx", {f"x{number}": arg for number, arg in enumerate(args)})
    np.testing.assert_allclose(found, function(*args).numpy(), rtol=1e-6, atol=1e-6)  # sums of at most five products


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_by_index(tmp_path: Path, axis: int) -> None:
    x, index = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 2, 1])
    lower_function(lambda a, i: torch.index_select(a, axis, i), [x, index], tmp_path / "gather.onnx")
    (found,) = run_file(tmp_path / "gather.onnx", {"x0": x, "x1": index})
    assert np.array_equal(found, torch.index_select(x, axis, index).numpy())


# Structure


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_decompressed_once_and_never_transposed(graphs: MakeGraphs, tmp_path: Path, name: str, bits: int) -> None:
    """A matrix's decompression forward, and one backward; each goes straight into Gemms, which transpose as they read."""
    matrices = len(graphs(name, bits).kind.matrices)
    assert matrices == (4 if name == "phi3" else 7)
    for captured, products in ((graphs(name, bits).forward, 1), (graphs(name, bits).backward, 2)):
        graph = write(captured, tmp_path / "block.onnx").graph
        producers = {output: node for node in graph.node for output in node.output}
        weights = [n.output[0] for n in graph.node if n.op_type == "Reshape" and is_dequantized(producers, n)]
        assert sum(node.op_type == "DequantizeLinear" for node in graph.node) == len(weights) == matrices
        users = Counter((node.op_type, name) for node in graph.node for name in node.input if name in weights)
        assert {kind for kind, _ in users} == {"Gemm"}
        # W serves y = x Wᵀ, and in the backward graph dx = g W; only the output of down_proj is not needed for a gradient there
        counts = sorted(users[("Gemm", weight)] for weight in weights)
        assert counts in ([products] * matrices, [products - 1] + [products] * (matrices - 1))


def is_dequantized(producers: dict[str, onnx.NodeProto], reshape: onnx.NodeProto) -> bool:
    source = producers.get(reshape.input[0])
    return source is not None and source.op_type == "DequantizeLinear"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_simple_operators(graphs: MakeGraphs, tmp_path: Path, name: str) -> None:
    """Standard operators alone, and none that gathers or scatters."""
    for captured in (graphs(name).forward, graphs(name).backward):
        graph = write(captured, tmp_path / "block.onnx").graph
        assert {node.domain for node in graph.node} == {""}
        assert not [node.op_type for node in graph.node if "Gather" in node.op_type or "Scatter" in node.op_type]
        assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_forward_transposes_no_matrix(graphs: MakeGraphs, tmp_path: Path, name: str) -> None:
    """What Transposes there are belong to attention, whose heads change places."""
    graph = write(graphs(name).forward, tmp_path / "block.onnx").graph
    orders = [list(node.attribute[0].ints) for node in graph.node if node.op_type == "Transpose"]
    assert len(orders) == 4
    assert all(len(order) > 2 for order in orders)


def test_the_first_output_is_computed_last(tmp_path: Path) -> None:
    """ONNX Runtime's order is a walk back from the last node: what only other outputs need comes first in the file, runs last."""
    args = [torch.zeros(3, 4)]
    for function in (lambda x: (torch.sigmoid(x), torch.neg(x)), lambda x: (torch.neg(x), torch.sigmoid(torch.neg(x)))):
        graph = write(capture(function, args, ("x",), ("first", "second")), tmp_path / "model.onnx").graph
        assert graph.node[-1].output[0] == "first" or any("first" in node.input for node in graph.node)
        assert [output.name for output in graph.output] == ["first", "second"]
        np.testing.assert_array_equal(run_file(tmp_path / "model.onnx", {"x": torch.ones(3, 4)})[0], function(torch.ones(3, 4))[0])


def test_transposes_fold_into_gemm(tmp_path: Path) -> None:
    args = [torch.zeros(4, 3), torch.zeros(5, 4)]
    graph = lower_function(lambda a, b: a.t() @ b.t(), args, tmp_path / "gemm.onnx").graph
    assert [node.op_type for node in graph.node] == ["Gemm"]  # under the output's name
    assert {attribute.name: attribute.i for attribute in graph.node[0].attribute} == {"transA": 1, "transB": 1}


@pytest.mark.parametrize(("times", "left"), [(1, 1), (2, 0), (3, 1), (4, 0)])
def test_transposes_that_cancel_are_dropped(tmp_path: Path, times: int, left: int) -> None:
    """Read by no product, so that nothing folds them: an even number leaves none, an odd one the matrix transposed."""
    x = torch.arange(6.0).reshape(2, 3)

    def function(matrix: Tensor) -> Tensor:
        for _ in range(times):
            matrix = matrix.t()
        return torch.neg(matrix)

    model = lower_function(function, [x], tmp_path / "model.onnx")
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == left
    np.testing.assert_array_equal(run_file(tmp_path / "model.onnx", {"x0": x})[0], function(x).numpy())


def test_dead_nodes_are_removed_from_subgraphs(tmp_path: Path) -> None:
    """One decompression left in a loop's body would run at each of its iterations."""
    b = GraphBuilder()
    x, iteration, carried = value("x", "float32", (3,)), value("i", "int64", ()), value("carried", "float32", (3,))
    body = b.subgraph()
    body.op("Exp", carried)
    graph = loop_body(body, "loop", iteration, [carried], [body.op("Add", carried, body.scalar(1.0))], [])
    (y,) = b.loop(b.ints(4), [x], graph, 0)
    save_model(b, tmp_path / "loop.onnx", [x], {"y": (y, "float32", (3,))})
    (loop,) = (node for node in onnx.load(tmp_path / "loop.onnx").graph.node if node.op_type == "Loop")
    assert sorted(node.op_type for node in loop.attribute[0].g.node) == ["Add", "Identity", "Identity"]
    assert run_file(tmp_path / "loop.onnx", {"x": torch.zeros(3)})[0].tolist() == [4.0, 4.0, 4.0]


def test_constants_are_held_once() -> None:
    b = GraphBuilder()
    assert b.scalar(2.0) is b.subgraph().subgraph().scalar(2.0)
    assert b.ints(2) is not b.const(2, np.int64)  # of another shape
    assert b.scalar(0.0) is not b.scalar(-0.0)
    assert len(b.initializers) == 5


# Refusals


@pytest.mark.parametrize(
    ("function", "name"), [(torch.erf, "aten.erf.default"), (lambda x: torch.cumsum(x, 0), "aten.cumsum.default")], ids=["erf", "cumsum"]
)
def test_unsupported_operators_are_named(tmp_path: Path, function: Callable[[Tensor], Tensor], name: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        lower_function(function, [torch.zeros(3, 4)], tmp_path / "model.onnx")
    assert all(text in str(caught.value) for text in (name, "no ONNX lowering", "sigmoid", "_softmax")), caught.value
    assert not (tmp_path / "model.onnx").exists()
