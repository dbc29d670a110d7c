"""What passes do operator by operator is done without a trace, and nothing else is: the same program, byte by byte."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import Node

from lcsb_mobile.export.executorch import program, tracing
from lcsb_mobile.export.executorch.program import exported, write_program
from lcsb_mobile.export.executorch.tracing import passes_in_place, values_are_known

ATEN = torch.ops.aten


class Sample(torch.nn.Module):
    """What passes rewrite: a number beside a tensor, types that differ, a view, more parts than one concatenation takes, a product."""

    def forward(self, x: Tensor, w: Tensor, half: Tensor) -> Tensor:
        y = torch.cat([x * 2, x + half, x - 1, x, x, x.view(-1).view(x.shape)], 1)
        return y @ w.t()


def examples() -> tuple[Tensor, Tensor, Tensor]:
    return torch.ones(3, 4), torch.ones(5, 24), torch.ones(3, 4, dtype=torch.float16)


def test_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"sample": exported(Sample(), examples())}
    found: dict[str, bool | None] = {}
    ask = tracing._changes

    def remember(export_pass: object, module: torch.fx.GraphModule) -> list[tracing.Change] | None:
        changes = ask(export_pass, module)
        found[type(export_pass).__name__] = None if changes is None else bool(changes)
        return changes

    monkeypatch.setattr(tracing, "_changes", remember)
    planned = write_program(tmp_path / "quick", methods, lambda: None)
    assert found["SymToTensorPass"] is False and found["OpReplacePass"] and found["RemoveMixedTypeOperators"] is None
    monkeypatch.setattr(program, "passes_in_place", nullcontext)
    assert write_program(tmp_path / "plain", methods, lambda: None) == planned
    assert (tmp_path / "quick").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_changed_graph_has_another_form() -> None:
    """Of which nothing is known before its trace."""
    module = exported(Sample(), examples()).graph_module
    before = tracing._form(module)
    assert tracing._form(module) == before
    node = next(node for node in module.graph.nodes if node.op == "call_function")
    node.args = (*node.args[:1], 3)
    assert tracing._form(module) != before


def sums_become(target: torch._ops.OpOverload, **meta: str) -> Node:
    """The sum of two tensors of a program, after a pass that puts another operator in its place and adds to its meta."""
    from executorch.exir.pass_base import ExportPass, NodeMetadata

    class Replace(ExportPass):
        def call_operator(self, op: object, args: object, kwargs: object, found: NodeMetadata) -> object:
            other = op is ATEN.add.Tensor
            return super().call_operator(target if other else op, args, kwargs, NodeMetadata({**found.data, **meta}) if other else found)

    module = exported(Sum(), (torch.ones(2, 3), torch.ones(2, 3))).graph_module
    values_are_known(module)
    (place,) = (number for number, node in enumerate(module.graph.nodes) if node.target is ATEN.add.Tensor)
    with passes_in_place():
        return list(Replace()(module).graph_module.graph.nodes)[place]


class Sum(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_what_a_pass_says_of_an_operator_stays() -> None:
    node = sums_become(ATEN.sub.Tensor, of="a pass")
    assert node.target is ATEN.sub.Tensor and node.meta["of"] == "a pass"


def test_an_operator_of_another_result_is_traced() -> None:
    """The values of those after it would be other ones, too."""
    node = sums_become(ATEN.eq.Tensor)
    assert node.target is ATEN.eq.Tensor and node.meta["val"].dtype == torch.bool
