"""Modules lowered into one `.pte` of a method each, and what is known of the methods afterwards."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch._export import utils as export_utils
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.traceback import NodeSource

from lcsb_mobile.export.executorch.planning import planning_pass
from lcsb_mobile.export.executorch.xnnpack import partitioner


@contextmanager
def quick_tracing() -> Iterator[None]:
    """A method is traced some thirty times on its way. Each time torch copies where a node came from, history and all, looks through all
    operators of all libraries, and writes and compiles Python code that is hardly ever called; that was a third of the time. The first
    nothing changes, so a copy can be the same object; the second are the same each time; the third can wait."""
    found = functools.cache(export_utils._collect_all_valid_cia_ops_for_namespace)
    with (
        patch.object(NodeSource, "__deepcopy__", lambda self, memo: self, create=True),
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


def exported(module: torch.nn.Module, examples: tuple[torch.Tensor, ...], dynamic_shapes: Any = None) -> ExportedProgram:
    """In core ATen operators."""
    with torch.no_grad(), quick_tracing():
        program: ExportedProgram = torch.export.export(module.eval(), examples, dynamic_shapes=dynamic_shapes, strict=False)
        decomposed: ExportedProgram = program.run_decompositions()
        return decomposed


def write_program(path: Path, methods: Mapping[str, ExportedProgram], entered: Callable[[], None]) -> dict[str, int]:
    """Writes all methods. `entered` is called before each is lowered. Returns the planned bytes of each: its values and results outside
    XNNPACK's own."""
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

    once = patch.object(ExportedProgram, "run_decompositions", lambda self, *_, **__: self)  # of which each is decomposed already
    with warnings.catch_warnings(), quick_tracing(), once:
        warnings.simplefilter("ignore")
        edge = to_edge_transform_and_lower(
            dict(methods),
            partitioner={name: [partitioner(entered)] for name in methods},
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        config = ExecutorchBackendConfig(memory_planning_pass=planning_pass(), do_quant_fusion_and_const_prop=False)
        program: Any = edge.to_executorch(config)
    with path.open("wb") as file:
        program.write_to_file(file)
    return {plan.name: sum(plan.non_const_buffer_sizes) for plan in program.executorch_program.execution_plan}
