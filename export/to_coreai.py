"""Block programs for Core AI (iOS 27 and later): one asset, a function a program, weights as inputs. docs/apple.md is the loop."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from torch import Tensor

from lcsb_mobile.bundle.manifest import Graph
from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.export.block_programs import Tensors
from lcsb_mobile.export.captured_programs import CapturedProgramWriter
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.order import peak_bytes, sorted_module
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.target import ExportRequest, any_kinds, no_settings
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.targets import AIMODEL, target_row

TOOLS = ("coreai-core",)
check_model, runtime_settings = any_kinds, no_settings


def import_tools() -> None:
    try:
        importlib.import_module("coreai.authoring")
    except ImportError as error:
        raise MissingDependencyError(f"target coreai needs coreai-core 1.0.0b3 ({error}); {how_to_install('coreai')}") from error


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the asset beside `weights.bin`. Returns the description of each function, by its name."""
    return _Writer(request).write()


class _Writer(CapturedProgramWriter):
    def __init__(self, request: ExportRequest) -> None:
        from lcsb_mobile.export.coreai.asset import AssetWriter

        super().__init__(request)
        self.asset = AssetWriter()
        self.described: dict[str, Graph] = {}

    def program(
        self,
        name: str,
        captured: CapturedGraph,
        consts: Mapping[str, Tensor],
        inputs: Tensors,
        outputs: Tensors,
        kind: BlockKind | None = None,
    ) -> None:
        from lcsb_mobile.export.coreai.lowering import lower_program

        half_products = self.request.half_products and kind is not None  # the loss stays in float32
        graph = sorted_module(captured).graph
        self.asset.add(name, inputs, outputs, lower_program(name, graph, captured.inputs, consts, inputs, outputs, half_products))
        working_bytes = peak_bytes(list(graph.nodes)[:-1])
        self.described[name] = Graph(target_row("coreai").program_file(name), tuple(inputs), tuple(outputs), (), working_bytes)

    def finish(self) -> dict[str, Graph]:
        self.asset.save(self.request.directory / AIMODEL)
        return self.described
