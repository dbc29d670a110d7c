"""Modules lowered into one `.pte` of a method each, and what is known of the methods afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lcsb_mobile.export.executorch.planning import planning_pass
from lcsb_mobile.export.executorch.xnnpack import partitioner


def write_program(path: Path, methods: Mapping[str, torch.export.ExportedProgram], entered: Callable[[], None]) -> dict[str, int]:
    """Writes all methods. `entered` is called before each is lowered. Returns the planned bytes of each: its values and results outside
    XNNPACK's own."""
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

    with warnings.catch_warnings():
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
