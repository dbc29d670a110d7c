"""Modules lowered into one `.pte` of a method each, and what is known of the methods afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.export import ExportedProgram

from lcsb_mobile.export.executorch.planning import planning_pass
from lcsb_mobile.export.executorch.tracing import passes_in_place, quick_tracing, values_are_known
from lcsb_mobile.export.executorch.xnnpack import partitioner


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
    with warnings.catch_warnings(), quick_tracing(), passes_in_place(), once:
        warnings.simplefilter("ignore")
        for method in methods.values():
            values_are_known(method.graph_module)
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
