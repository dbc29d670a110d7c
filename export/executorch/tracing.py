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
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.node import map_aggregate, map_arg
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
def passes_in_place() -> Iterator[None]:
    """ExecuTorch's passes rewrite operators while they trace a program anew. Most rewrite none, and others an operator here and there into
    another of the same result; the trace was half of the time of lowering. Each is asked first, operator by operator. Where it puts one
    operator in the place of one, of a graph whose values are known, the graph is given that operator, and no trace is needed."""
    from executorch.exir.pass_base import PassResult, _ExportPassBase

    trace = _ExportPassBase.call

    def call(self: Any, module: GraphModule) -> Any:
        changes = _changes(self, module) if getattr(module.graph, KNOWN, None) == _form(module) else None
        if changes is None:
            result = trace(self, module)
            values_are_known(result.graph_module)
            return result
        if not changes:
            return PassResult(module, False)
        for node, target, args, kwargs, meta in changes:
            node.target, node.args, node.kwargs = target, args, kwargs
            node.meta.update(meta)
        changed = GraphModule(module, module.graph)  # as from a trace, so that a caller may take it apart
        changed.meta = module.meta.copy()
        values_are_known(changed)
        return PassResult(changed, True)

    with patch.object(_ExportPassBase, "call", call):
        yield


KNOWN = "_lcsb_known"  # of a graph: its form when `val` in its nodes' meta was what they give
PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.layout, torch.device, torch.memory_format)
# What a pass may do at; of one that does it anywhere but at operators nothing is known before its trace.
ELSEWHERE = (
    *("placeholder", "output", "call_getitem", "call_cond", "call_while", "call_map", "call_scan", "call_sym", "call_delegate"),
    *("call_submodule", "inputs", "on_attr", "_fx"),
)
Change = tuple[Node, Any, tuple[Any, ...], dict[str, Any], dict[str, Any]]  # node, target, args, kwargs, meta


def values_are_known(module: GraphModule) -> None:
    """Says of a graph that `val` in its nodes' meta is what they give, until one of them is changed."""
    setattr(module.graph, KNOWN, _form(module))


def _graphs(module: GraphModule) -> list[Graph]:
    """With those of its loops."""
    return [each.graph for each in module.modules() if isinstance(each, GraphModule)]


def _form(module: GraphModule) -> list[Any]:
    """Equal as long as no node of the module or its loops but the last is another or has another operator or operands."""
    nodes = (node for graph in _graphs(module) for node in graph.nodes if node.op != "output")
    return [(node, node.target, node.args, node.kwargs) for node in nodes]


class _NotInPlace(Exception):
    """Something else than an operator of the same result in the place of one."""


def _changes(export_pass: Any, module: GraphModule) -> list[Change] | None:
    """What a pass puts in the place of which node; None where it does more than that."""
    from executorch.exir.dialects.edge._ops import EdgeOpOverload
    from executorch.exir.pass_base import ExportPass, NodeMetadata, ProxyValue

    if any(getattr(type(export_pass), name) is not getattr(ExportPass, name) for name in ELSEWHERE):
        return None
    calls: list[Any] = []

    def record(kind: str, target: Any, args: Any, kwargs: Any, meta: Any) -> Any:
        calls.append((target, args, kwargs, meta.data))
        return values[node]

    changes: list[Change] = []
    values: dict[Node, Any] = {}
    export_pass._fx = record
    try:
        for node in (each for graph in _graphs(module) for each in graph.nodes):
            values[node] = ProxyValue(node.meta.get("val"), node)
            if node.op == "call_function" and isinstance(node.target, (OpOverload, OpOverloadPacket, EdgeOpOverload)):
                calls.clear()
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                returned = export_pass.call_operator(node.target, args, kwargs, NodeMetadata(node.meta))
                if len(calls) != 1 or returned is not values[node]:
                    return None
                ((target, new_args, new_kwargs, meta),) = calls
                if not _same((target, new_args, new_kwargs), (node.target, args, kwargs)):
                    changes.append((node, target, _operands(new_args), _operands(new_kwargs), meta))
                    if getattr(target, "_op", target) is not node.target or not _same((new_args, new_kwargs), (args, kwargs)):
                        _check_result(node.meta["val"], target, new_args, new_kwargs)
    except _NotInPlace:
        return None
    finally:
        del export_pass._fx
    return changes


def _check_result(known: Any, target: Any, args: Any, kwargs: Any) -> None:
    """Of another function than the operator's own, or of other operands: `known` is the shape, strides and dtype that they give."""
    from executorch.exir.pass_base import ProxyValue

    args, kwargs = map_aggregate((args, kwargs), lambda x: x.data if isinstance(x, ProxyValue) else x)
    given = target(*args, **kwargs)
    before, after = ([(x.shape, x.stride(), x.dtype) for x in _tensors(value)] for value in (known, given))
    if before != after:
        raise _NotInPlace


def _tensors(value: Any) -> list[torch.Tensor]:
    parts = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(x, torch.Tensor) for x in parts):
        raise _NotInPlace
    return parts


def _operands(x: Any) -> Any:
    """With nodes in place of their values."""
    from executorch.exir.pass_base import ProxyValue

    if isinstance(x, ProxyValue):
        return x.node
    if isinstance(x, (list, tuple)):
        return type(x)(map(_operands, x))
    if isinstance(x, dict):
        return {name: _operands(value) for name, value in x.items()}
    if isinstance(x, PLAIN):
        return x
    raise _NotInPlace


def _same(x: Any, y: Any) -> bool:
    """Lists of any kind are alike."""
    if isinstance(x, (list, tuple)):
        return isinstance(y, (list, tuple)) and len(x) == len(y) and all(map(_same, x, y))
    if isinstance(x, dict):
        return isinstance(y, dict) and x.keys() == y.keys() and all(_same(x[name], y[name]) for name in x)
    return x is y or (type(x) is type(y) and isinstance(x, PLAIN) and bool(x == y))
