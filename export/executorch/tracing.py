"""What torch and ExecuTorch do again and again while a method is lowered, done once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._export import utils as export_utils
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.node import map_arg
from torch.fx.traceback import NodeSource


@contextmanager
def quick_tracing() -> Iterator[None]:
    """A method is traced some thirty times on its way. Each time torch copies where a node came from, history and all, looks through all
    operators of all libraries, and writes and compiles Python code that is hardly ever called; that was a third of the time. The first
    nothing changes, so a copy can be the same object; the second are the same each time; the third can wait."""
    found = functools.cache(export_utils._collect_all_valid_cia_ops_for_namespace)
    with (
        patch.object(NodeSource, "__deepcopy__", lambda self, memo: self, create=True),
        patch.object(export_utils, "_materialize_cpp_cia_ops", functools.cache(export_utils._materialize_cpp_cia_ops)),
        patch.object(export_utils, "_collect_all_valid_cia_ops_for_namespace", found),
        patch.object(GraphModule, "recompile", _compile_when_called),
    ):
        yield


_compile: Callable[[GraphModule], Any] = GraphModule.recompile


def _compile_when_called(module: GraphModule) -> None:
    def forward(self: GraphModule, *args: Any, **kwargs: Any) -> Any:
        _compile(self)
        return self.forward(*args, **kwargs)

    codegen = module._graph._codegen
    if isinstance(codegen, _PyTreeCodeGen):
        module._in_spec, module._out_spec = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
    module._code = ""  # which logs look at
    type(module).forward = forward  # each module has a class of its own


@contextmanager
def no_idle_passes() -> Iterator[None]:
    """ExecuTorch's passes rewrite operators while they trace a program anew, and most find none to rewrite; that was a fifth of the time
    of lowering. Each is asked first, operator by operator; of one that finds nothing in a graph that is as the last trace left it the trace
    would be the same."""
    from executorch.exir.pass_base import PassResult, _ExportPassBase

    trace = _ExportPassBase.call

    def call(self: Any, module: GraphModule) -> Any:
        if getattr(module.graph, TRACED, None) == _form(module) and _rewrites_nothing(self, module):
            return PassResult(module, False)
        result = trace(self, module)
        setattr(result.graph_module.graph, TRACED, _form(result.graph_module))
        return result

    with patch.object(_ExportPassBase, "call", call):
        yield


TRACED = "_lcsb_traced"  # of a graph: its form when it was traced last
PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.layout, torch.device, torch.memory_format)
# What a pass may do at; of one that does it anywhere but at operators nothing is known before its trace.
ELSEWHERE = (
    *("placeholder", "output", "call_getitem", "call_cond", "call_while", "call_map", "call_scan", "call_sym", "call_delegate"),
    *("call_submodule", "inputs", "on_attr", "_fx"),
)


class _Rewritten(Exception):
    """An operator would be another, or have other operands."""


def _form(module: GraphModule) -> list[Any]:
    """Equal as long as no node of the module or its loops is another or has another operator or operands."""
    graphs = [each.graph for each in module.modules() if isinstance(each, GraphModule)]
    return [(node, node.target, node.args, node.kwargs) for graph in graphs for node in graph.nodes]


def _rewrites_nothing(export_pass: Any, module: GraphModule) -> bool:
    from executorch.exir.dialects.edge._ops import EdgeOpOverload
    from executorch.exir.pass_base import ExportPass, NodeMetadata, ProxyValue

    if any(getattr(type(export_pass), name) is not getattr(ExportPass, name) for name in ELSEWHERE):
        return False
    expected: Any = None

    def compare(kind: str, target: Any, args: Any, kwargs: Any, meta: Any) -> Any:
        if not _same(expected, (target, args, kwargs)):
            raise _Rewritten
        return values[node]

    values: dict[Node, Any] = {}
    export_pass._fx = compare
    try:
        for graph in (each.graph for each in module.modules() if isinstance(each, GraphModule)):
            for node in graph.nodes:
                values[node] = ProxyValue(node.meta.get("val"), node)
                if node.op == "call_function" and isinstance(node.target, (OpOverload, OpOverloadPacket, EdgeOpOverload)):
                    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                    expected = node.target, args, kwargs
                    export_pass.call_operator(node.target, args, kwargs, NodeMetadata(node.meta))
    except _Rewritten:
        return False
    finally:
        del export_pass._fx
    return True


def _same(x: Any, y: Any) -> bool:
    """Lists of any kind are alike."""
    if isinstance(x, (list, tuple)):
        return isinstance(y, (list, tuple)) and len(x) == len(y) and all(map(_same, x, y))
    if isinstance(x, dict):
        return isinstance(y, dict) and x.keys() == y.keys() and all(_same(x[name], y[name]) for name in x)
    return x is y or (type(x) is type(y) and isinstance(x, PLAIN) and bool(x == y))
