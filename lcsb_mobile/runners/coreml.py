"""Steps on a package of target `coreml`, evaluated in NumPy: what is in it is computed as its formats say.

That checks the package and is no measure of a phone. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import Role, Tensors, differences, layer_function, plain_name, program_name
from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.bounded import some
from lcsb_mobile.mil.evaluator import Evaluator
from lcsb_mobile.mil.package import Package, TensorType
from lcsb_mobile.mil.protobuf import protobuf
from lcsb_mobile.runners.block_programs import Values, check_target
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.targets import MLPACKAGE

TARGET = "coreml"


def import_runtime() -> Any:
    return protobuf("Model_pb2")


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> BlockRunner:
    """NumPy takes what threads it has been started with."""
    return BlockRunner(bundle, CoreMl(bundle), keep, between_layers)


class CoreMl:
    """A Runtime. `version`: of NumPy, which computes."""

    name, version = TARGET, f"numpy {np.__version__}"

    def __init__(self, bundle: Bundle) -> None:
        check_target(bundle, TARGET)
        self._graphs = bundle.manifest.graphs
        self._of_layers = {program_name(kind.name, role) for kind in bundle.manifest.kinds for role in get_args(Role)}
        self.package = Package(bundle.path / MLPACKAGE)
        self._functions: dict[str, Evaluator] = {}

    def run(self, program: str, feeds: Values, outputs: Values, layer: int | None) -> None:
        name = layer_function(program, layer) if layer is not None and program in self._of_layers else program
        if name not in self._functions:
            self._functions[name] = self._function(program, name)
        results = self._functions[name].run({plain_name(key): x for key, x in feeds.items()})
        for key, x in outputs.items():
            np.copyto(x, results[plain_name(key)])

    def _function(self, program: str, name: str) -> Evaluator:
        """Raises BundleError unless the function takes and returns what the manifest says, by which buffers are made."""
        evaluator = Evaluator(self.package, name)
        function, graph = evaluator.function, self._graphs[program]
        faults = [*differences("inputs", _described(graph.inputs), _found(function.inputs))]
        faults += differences("outputs", _described(graph.outputs), _found(function.outputs))
        if faults:
            where = f"{self.package.path}: function {name}"
            raise BundleError(f"{where}: other than the manifest says: {some(faults)}; export the bundle again")
        return evaluator


def _described(tensors: tuple[GraphTensor, ...]) -> Tensors:
    return {plain_name(x.name): (x.dtype, x.shape) for x in tensors}


def _found(tensors: Mapping[str, TensorType]) -> Tensors:
    return {name: (x.dtype, x.shape) for name, x in tensors.items()}
