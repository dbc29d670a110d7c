"""Block programs for ExecuTorch: one `.pte` that a stock runtime of version 1.5 loads, a method a program, computed by XNNPACK.

The same captured graphs as for every target, with weights as inputs. docs/executorch.md is the loop.
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec
import torch

from lcsb_mobile.bundle.adapter import vector_size
from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.programs import ANY, Role, program_name
from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.export.block_programs import BlockProgramWriter, Tensors
from lcsb_mobile.export.executorch.modules import Block, Embedding, Head, Logits, Update
from lcsb_mobile.export.executorch.program import exported, write_program
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.target import ExportRequest, any_kinds, no_settings
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.targets import PTE_FILE

TOOLS = ("executorch", "torchao")
check_model, runtime_settings = any_kinds, no_settings


def import_tools() -> None:
    try:
        importlib.import_module("executorch.exir")
    except ImportError as error:
        raise MissingDependencyError(f"target executorch needs executorch 1.5.1 ({error}); {how_to_install('executorch')}") from error


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the programs beside `weights.bin`. Returns the description of each, by its method's name."""
    return _Writer(request).write()


class _Writer(BlockProgramWriter):
    """Exports one module after the other; all are lowered together at the end."""

    def __init__(self, request: ExportRequest) -> None:
        super().__init__(request)
        self.described: dict[str, Graph] = {}
        self.methods: dict[str, torch.export.ExportedProgram] = {}

    def embedding(self, name: str, inputs: Tensors, outputs: Tensors, graph: TableGraph) -> None:
        integers = [x.name for x in inputs]
        module = Embedding(self.parts, graph, integers)
        stored = [self.whole(x) for x in module.tables.inputs if x not in integers]
        self.add(name, module, [*inputs, *self.rows("embed_tokens.weight"), *stored], outputs)

    def block(self, kind: BlockKind, role: Role, captured: CapturedGraph, inputs: Tensors, outputs: Tensors) -> None:
        consts = {name: x for name, x in kind.consts.items() if name in captured.inputs}
        self.add(program_name(kind.name, role), Block(captured, consts, inputs, outputs), inputs, outputs)

    def head(self, name: str, inputs: Tensors, outputs: Tensors, gradient: bool) -> None:
        self.add(name, Head(self.parts, gradient), [*inputs, *self.head_weights()], outputs)

    def logits(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        self.add(name, Logits(self.parts), [*inputs, *self.head_weights()], outputs)

    def update(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        """Of vectors of any size up to the largest, where the kinds have several."""
        sizes = {vector_size(matrices) for matrices in self.parts.layout.matrices.values()}
        size = torch.export.Dim("n", min=min(sizes), max=max(sizes)) if len(sizes) > 1 else None
        dynamic = {0: size} if size is not None else None
        closed = [msgspec.structs.replace(x, shape=tuple(max(sizes) if n == ANY else n for n in x.shape)) for x in inputs]
        shapes = tuple(dynamic if x.shape == (ANY,) else None for x in inputs)
        self.add(name, Update(self.request.optimizer), closed, outputs, shapes)
        self.described[name] = msgspec.structs.replace(self.described[name], inputs=tuple(inputs))

    def rows(self, name: str) -> list[GraphTensor]:
        return [self.whole(f"{name}.{part}") for part in ("packed", "scale")]

    def head_weights(self) -> list[GraphTensor]:
        tied = self.parts.config.tie_word_embeddings
        return [self.whole("norm.weight"), *self.rows("embed_tokens.weight" if tied else "lm_head.weight")]

    def whole(self, name: str) -> GraphTensor:
        tensor = self.parts.weight(name)
        return GraphTensor(tensor.name, tensor.dtype, tensor.shape, "the whole tensor", tensor.name)

    def add(self, name: str, module: torch.nn.Module, inputs: Tensors, outputs: Tensors, dynamic: Any = None) -> None:
        examples = tuple(torch.zeros(x.shape, dtype=getattr(torch, x.dtype)) for x in inputs)
        self.methods[name] = exported(module, examples, dynamic)
        self.described[name] = Graph(PTE_FILE, tuple(inputs), tuple(outputs))

    def finish(self) -> dict[str, Graph]:
        done = 0

        def entered() -> None:
            nonlocal done
            done += 1
            self.request.progress(done, len(self.methods))

        planned = write_program(self.request.directory / PTE_FILE, self.methods, entered)
        return {name: msgspec.structs.replace(graph, working_bytes=planned[name]) for name, graph in self.described.items()}
