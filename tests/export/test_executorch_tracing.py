"""What passes do operator by operator is done without a trace, and nothing else is: the same program, byte by byte."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lcsb_mobile.export.executorch import program, tracing
from lcsb_mobile.export.executorch.program import exported, write_program


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
