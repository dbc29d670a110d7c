"""Modules lowered into one `.pte` of a method each, and what is known of the methods afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.fx.traceback import NodeSource

from lcsb_mobile.export.executorch.planning import planning_pass
from lcsb_mobile.export.executorch.xnnpack import partitioner


@contextmanager
def shared_provenance() -> Iterator[None]:
    """Each of many traces copies where a node came from, history and all: a third of the time. Nothing changes it, so a copy can be the
    same object."""
    previous = vars(NodeSource).get("__deepcopy__")
    NodeSource.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if previous is None:
            del NodeSource.__deepcopy__  # type: ignore[attr-defined]
        else:
            NodeSource.__deepcopy__ = previous  # type: ignore[attr-defined]


def write_program(path: Path, methods: Mapping[str, torch.export.ExportedProgram], entered: Callable[[], None]) -> dict[str, int]:
    """Writes all methods. `entered` is called before each is lowered. Returns the planned bytes of each: its values and results outside
    XNNPACK's own."""
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

    with warnings.catch_warnings(), shared_provenance():
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
