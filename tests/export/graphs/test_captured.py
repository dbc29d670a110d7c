"""Graphs of functions, and the parts that are taken out of them."""

from __future__ import annotations

import torch
from helpers.captured import run
from torch import Tensor
from torch.fx import Node

from lcsb_mobile.export.graphs.captured import CapturedGraph, capture, extract, op_name


def function(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    left, right = (x @ w).chunk(2, dim=-1)
    gated = torch.sigmoid(left) * right
    return gated + y, gated - y


def captured_function() -> CapturedGraph:
    return capture(function, [torch.zeros(3, 5), torch.zeros(3, 4), torch.zeros(5, 8)], ("x", "y", "w"), ("sum", "difference"))


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in (("x", (3, 5)), ("y", (3, 4)), ("w", (5, 8)))}


def node_of(captured: CapturedGraph, name: str) -> Node:
    """The only node of an operator."""
    (node,) = (node for node in captured.graph.nodes if op_name(node) == name)
    return node


def operators(captured: CapturedGraph) -> list[str]:
    return [op_name(node) for node in captured.graph.nodes if node.op == "call_function"]


def test_capture_is_the_function() -> None:
    captured, feeds = captured_function(), inputs()
    assert (captured.inputs, captured.outputs) == (("x", "y", "w"), ("sum", "difference"))
    assert [node.meta["val"].shape for node in captured.placeholders] == [(3, 5), (3, 4), (5, 8)]
    assert [op_name(node) for node in captured.results] == ["add", "sub"]
    for found, expected in zip(run(captured, feeds), function(*feeds.values()), strict=True):
        assert torch.equal(found, expected)


def test_flops_are_those_of_the_products() -> None:
    def products(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return a @ b + 1.0, torch.bmm(c, c)

    shapes = (3, 5), (5, 7), (2, 4, 4)
    captured = capture(products, [torch.zeros(shape) for shape in shapes], ("a", "b", "c"), ("ab", "cc"))
    assert captured.flops == 2 * 3 * 5 * 7 + 2 * 2 * 4 * 4 * 4


def test_extract_of_everything_is_the_graph() -> None:
    captured = captured_function()
    whole = extract(captured, dict(zip(captured.placeholders, captured.inputs)), dict(zip(captured.outputs, captured.results)))
    assert operators(whole) == operators(captured)
    assert (whole.inputs, whole.outputs) == (captured.inputs, captured.outputs)
    assert all(torch.equal(*pair) for pair in zip(run(whole, inputs()), run(captured, inputs()), strict=True))


def test_extract_takes_inner_nodes_as_inputs() -> None:
    """Nothing above them is computed, and an input that only they need is left out; names may have dots."""
    captured, feeds = captured_function(), inputs()
    total, _ = captured.results
    names = dict(zip(captured.placeholders, captured.inputs)) | {node_of(captured, "mm"): "kept.0"}
    part = extract(captured, names, {"sum": total})
    assert (part.inputs, part.outputs) == (("y", "kept.0"), ("sum",))
    assert "mm" not in operators(part) and "sub" not in operators(part)
    feeds["kept.0"] = feeds["x"] @ feeds["w"]
    assert torch.equal(run(part, feeds)[0], run(captured, feeds)[0])


def test_extract_gives_inner_nodes_as_outputs() -> None:
    """In the order and under the names that are asked for; what they do not need is left out."""
    captured, feeds = captured_function(), inputs()
    names = dict(zip(captured.placeholders, captured.inputs))
    part = extract(captured, names, {"gate": node_of(captured, "sigmoid"), "product": node_of(captured, "mm")})
    assert (part.inputs, part.outputs) == (("x", "w"), ("gate", "product"))
    gate, product = run(part, feeds)
    assert torch.equal(product, feeds["x"] @ feeds["w"])
    assert torch.equal(gate, torch.sigmoid(product[:, :4]))


def test_extract_at_a_part_of_a_split() -> None:
    """A part that is an input is not split off again; the other part would need the product, so it is an input too."""
    captured, feeds = captured_function(), inputs()
    left, right = (node for node in captured.graph.nodes if op_name(node) == "getitem")
    names = dict(zip(captured.placeholders, captured.inputs)) | {right: "right", left: "left"}
    part = extract(captured, names, {"difference": captured.results[1]})
    assert part.inputs == ("y", "right", "left")  # in the mapping's order
    assert operators(part) == ["sigmoid", "mul", "sub"]
    feeds["left"], feeds["right"] = (feeds["x"] @ feeds["w"]).chunk(2, dim=-1)
    assert torch.equal(run(part, feeds)[0], run(captured, feeds)[1])


def test_extract_leaves_the_graph_alone() -> None:
    captured = captured_function()
    before = str(captured.graph)
    extract(captured, {node_of(captured, "mm"): "product"} | {captured.placeholders[1]: "y"}, {"sum": captured.results[0]})
    assert str(captured.graph) == before
