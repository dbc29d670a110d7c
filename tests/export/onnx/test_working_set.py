"""The walk through a program's buffers, on graphs small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.working_set import HOLES, LARGE_HOLES, execution_order, held_bytes, working_bytes

ROW = 1024  # bytes of float32 [1, 256]


def save(path: Path, b: GraphBuilder, inputs: list[ir.Value], result: ir.Value, shape: tuple[int, ...]) -> Path:
    save_model(b, path, inputs, {"y": (result, "float32", shape)})
    return path


def rows(count: int, name: str = "x") -> ir.Value:
    return value(name, "float32", (count, 256))


def test_a_chain_holds_an_operators_input_and_output(tmp_path: Path) -> None:
    """The graph's input and output are the host's: of four values in a row two are held at once, and the third takes the first's place."""
    b, x = GraphBuilder(), rows(2)
    result = x
    for _ in range(5):
        result = b.op("Neg", result)
    assert held_bytes(save(tmp_path / "chain.onnx", b, [x], result, (2, 256))) == (2 * 2 * ROW, 2 * ROW)


def test_a_value_is_held_until_its_last_use(tmp_path: Path) -> None:
    """`wide` (8 rows) lives from the sum of its copies to the end, beside what follows."""
    b, x = GraphBuilder(), rows(2)
    first = b.op("Neg", x)
    wide = b.op("Concat", first, first, first, first, axis=0)
    narrow = b.op("Slice", b.op("Neg", wide), b.ints(0), b.ints(2), b.ints(0))
    result = b.op("Concat", narrow, wide, axis=0)
    assert held_bytes(save(tmp_path / "wide.onnx", b, [x], result, (10, 256))) == ((8 + 8 + 2) * ROW, 8 * ROW)


def test_a_view_and_a_constant_hold_nothing(tmp_path: Path) -> None:
    b, x = GraphBuilder(), rows(2)
    first = b.op("Neg", x)
    view = b.op("Reshape", first, b.ints(512))
    zeros = b.op("ConstantOfShape", b.op("Shape", view))
    result = b.op("Add", b.op("Reshape", b.op("Sub", view, zeros), b.ints(2, 256)), first)
    assert held_bytes(save(tmp_path / "view.onnx", b, [x], result, (2, 256)))[0] == 2 * 2 * ROW


def test_a_tiles_bytes_are_known_though_the_runtime_does_not_plan_with_them(tmp_path: Path) -> None:
    """Its start is a constant plus a number from the run. Not being planned, its buffer is given back at once instead of being kept."""
    b, x, zero = GraphBuilder(), rows(8), value("zero", "int64", (1,))
    tile = b.op("Slice", x, b.op("Add", b.ints(4), zero), b.ints(8), b.ints(0))
    result = b.op("Neg", b.op("Neg", tile))
    found, largest = held_bytes(save(tmp_path / "tile.onnx", b, [x, zero], result, (4, 256)))
    assert largest == 4 * ROW and 2 * 4 * ROW <= found <= 2 * 4 * ROW + 256


def test_the_order_is_the_runtimes(tmp_path: Path) -> None:
    """Back from the result, of its inputs the one that stands last in the file first."""
    b, x = GraphBuilder(), rows(2)
    early, late = b.op("Neg", x), b.op("Exp", x)
    path = save(tmp_path / "order.onnx", b, [x], b.op("Add", early, late), (2, 256))
    assert [node.op_type for node in execution_order(ir.load(path).graph)] == ["Exp", "Neg", "Add"]


def test_the_arena_needs_more_than_is_held(tmp_path: Path) -> None:
    b, x = GraphBuilder(), rows(2)
    path = save(tmp_path / "chain.onnx", b, [x], b.op("Neg", b.op("Neg", x)), (2, 256))
    assert working_bytes(path) == round((HOLES + LARGE_HOLES) * 2 * ROW)


def test_a_program_with_a_loop_is_left_out(tmp_path: Path) -> None:
    b, x = GraphBuilder(), rows(2)
    body = b.subgraph()
    carried = value("carried", "float32", (2, 256))
    iteration, going = value("iteration", "int64", ()), value("going", "bool", ())
    graph = body.graph("body", (iteration, going, carried), [body.op("Identity", going), body.op("Neg", carried)])
    (result,) = b.loop(b.const(3, np.int64), [x], graph, 0)
    assert working_bytes(save(tmp_path / "loop.onnx", b, [x], result, (2, 256))) is None


def test_a_free_dimension_has_the_size_that_is_said(tmp_path: Path) -> None:
    """As the update of a layer's vector has it, which serves vectors of any size."""
    b, x = GraphBuilder(), value("x", "float32", ("n", 256))
    save_model(b, tmp_path / "free.onnx", [x], {"y": (b.op("Neg", b.op("Neg", x)), "float32", ("n", 256))})
    assert held_bytes(tmp_path / "free.onnx", 3) == (3 * ROW, 3 * ROW)
    assert working_bytes(tmp_path / "free.onnx", 5) == round((HOLES + LARGE_HOLES) * 5 * ROW)
