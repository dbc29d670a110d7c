"""What an exporter is given and what it provides: one module a target, named by a row of `lcsb_mobile.targets`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.manifest import Arena, Graph, RuntimeSettings
from lcsb_mobile.config import AccuracyLevel, AdamWConfig, Programs
from lcsb_mobile.export.graphs.blocks import DecodeGraphs
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.models import Model
from lcsb_mobile.targets import target_row


@dataclass(frozen=True)
class ExportRequest:
    """What programs are written from. `directory`: the bundle's, with its `weights.bin`. `adapter`: the initial one, float32 [N].
    `decoding`: captures the programs of generation, for a target that has them. `half_products`: in float16. `programs`: what they are
    for. `progress` of what takes long: (done, total)."""

    directory: Path
    parts: StepParts
    adapter: Float32Array
    optimizer: AdamWConfig
    decoding: Callable[[], DecodeGraphs]
    half_products: bool = False
    programs: Programs = "cpu"
    progress: Callable[[int, int], None] = lambda done, total: None


def any_kinds(model: Model) -> None:
    """An exporter's `check_model`: layers of any kinds, since the host's loop walks them."""


def no_settings(graphs: Mapping[str, Graph], accuracy_level: AccuracyLevel) -> RuntimeSettings:
    """An exporter's `runtime_settings`: the runtime takes none."""
    return RuntimeSettings({}, Arena(0))


class Exporter(Protocol):
    """What the module of an exporter provides. `TOOLS`: distributions that it writes programs with, besides those of every target; the
    bundle says their versions."""

    TOOLS: tuple[str, ...]

    def import_tools(self) -> Any:
        """Raises MissingDependencyError for want of one of TOOLS."""
        ...

    def check_model(self, model: Model) -> None:
        """Raises UnsupportedModelError for a model whose layers the target's programs cannot compute."""
        ...

    def export_programs(self, request: ExportRequest) -> dict[str, Graph]:
        """Writes the programs into the directory. Returns the description of each, by its file's stem."""
        ...

    def runtime_settings(self, graphs: Mapping[str, Graph], accuracy_level: AccuracyLevel) -> RuntimeSettings:
        """What the runtime is to be told when it loads them."""
        ...


def exporter(target: str) -> Exporter:
    """Raises OptionError for a target that is none."""
    return cast(Exporter, importlib.import_module(target_row(target).exporter))
