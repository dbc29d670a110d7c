"""Block programs for Core ML of iOS 18 and later: one package, a function a program and, of a layer's programs, a function for each layer,
which holds the layer's weights.

docs/apple.md is the loop.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from importlib import metadata

import msgspec
from torch import Tensor

from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.programs import CHUNK_START, HEAD_CHUNKS, layer_function
from lcsb_mobile.bundle.weights import WEIGHTS_FILE, MappedWeights, WeightTensor
from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.export.block_programs import Tensors
from lcsb_mobile.export.captured_programs import CapturedProgramWriter
from lcsb_mobile.export.coreml.constants import Table
from lcsb_mobile.export.coreml.lowering import Program
from lcsb_mobile.export.coreml.package import Package
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.target import ExportRequest, any_kinds, no_settings
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.native_log import captured_stderr
from lcsb_mobile.targets import MLPACKAGE, TARGETS

TOOLS = ("coremltools",)
check_model, runtime_settings = any_kinds, no_settings
VERSION = "9.0"  # what it writes with, and what was tested, is this one alone: parts of it that are used are not documented
DEFAULT = "embed"  # the function that is loaded where none is named


def import_tools() -> None:
    try:
        with captured_stderr():  # it says which versions of other packages it has not been tested with
            found = importlib.import_module("coremltools").__version__
    except ImportError as error:
        raise MissingDependencyError(f"target coreml needs coremltools {VERSION} ({error}); {how_to_install('coreml')}") from error
    if found != VERSION:
        raise MissingDependencyError(f"target coreml needs coremltools {VERSION}, found {found}; {how_to_install('coreml')}")


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the package, with all that is in `weights.bin`. Returns the description of each program, of a layer's once for all layers."""
    return _Writer(request).write()


class _Writer(CapturedProgramWriter):
    def __init__(self, request: ExportRequest) -> None:
        super().__init__(request)
        import_tools()
        self.described: dict[str, Graph] = {}
        weights = MappedWeights(request.directory / WEIGHTS_FILE, self.parts.table)
        self.package = Package(request.directory / MLPACKAGE, weights)

    def program(
        self,
        name: str,
        captured: CapturedGraph,
        consts: Mapping[str, Tensor],
        inputs: Tensors,
        outputs: Tensors,
        kind: BlockKind | None = None,
    ) -> None:
        """A head's chunk takes the number of its first row, and cuts its rows out of the table when it runs: so the table is there once,
        and no compiler can fold a chunk of it into floats."""
        chunk = name in HEAD_CHUNKS
        stacks = {str(x.weight): self.parts.weight(str(x.weight)) for x in inputs if x.weight is not None}
        fed = [x for x in inputs if x.weight is None]
        if chunk:
            fed.append(GraphTensor(CHUNK_START, "int32", (1,), "the number of the chunk's first row"))
        held = [msgspec.structs.replace(x, shape=_shape(stacks[str(x.weight)])) for x in inputs if x.weight is not None]
        tables = {x.name: Table.whole(str(x.weight), x.dtype, x.shape) for x in held}
        rows = self.ends.rows if chunk else None
        half = self.request.half_products and kind is not None  # the loss and its gradient are computed in float32
        functions = {name: None} if kind is None else self._of_layers(name, kind)
        working = self.package.add(Program(name, captured, consts, fed, outputs, tables, rows, half), functions)
        self.described[name] = Graph(TARGETS["coreml"].program_file(name), tuple(fed), tuple(outputs), tuple(held), working)

    def _of_layers(self, name: str, kind: BlockKind) -> dict[str, int | None]:
        """The function of each layer of the kind -> its number in the kind."""
        layers = enumerate(zip(self.parts.model.places, self.parts.model.numbers, strict=True))
        return {layer_function(name, layer): number for layer, (place, number) in layers if place.kind == kind.name}

    def finish(self) -> dict[str, Graph]:
        versions = {tool: metadata.version(tool) for tool in ("lcsb_mobile", "torch", *TOOLS)} | {"python": platform.python_version()}
        self.package.finish(DEFAULT, versions)
        return self.described


def _shape(tensor: WeightTensor) -> tuple[int, ...]:
    """Of a layer's slice, or the whole."""
    return tensor.shape[1:] if tensor.per_layer else tensor.shape
