"""Steps on stock ExecuTorch: the methods of target `executorch`, whose weights are fed in place from the mapped `weights.bin`.

The wheel's binding takes tensors of torch and imports it; nothing here does.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import ANY, Tensors, differences
from lcsb_mobile.errors import BundleError, MissingDependencyError, RunFailure, RuntimeVersionError
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.bounded import one_line, refused_as, some
from lcsb_mobile.io.native_log import captured_stderr
from lcsb_mobile.runners.block_programs import Values, check_target, layer_weights
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.targets import PTE_FILE

TARGET = "executorch"
BACKEND = "XnnpackBackend"
DTYPES = {0: "uint8", 1: "int8", 4: "int64", 5: "float16", 6: "float32"}  # by ExecuTorch's numbers


def import_runtime() -> Any:
    try:
        with warnings.catch_warnings(), captured_stderr():
            warnings.simplefilter("ignore")  # that the binding is experimental
            from executorch.extension.pybindings import portable_lib
    except ImportError as error:
        raise MissingDependencyError(f"target {TARGET} needs executorch 1.5.1 ({error}); {how_to_install(TARGET)}") from error
    return portable_lib


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> BlockRunner:
    return BlockRunner(bundle, ExecuTorch(bundle, threads), keep, between_layers)


class ExecuTorch:
    """A Runtime. `threads`: of the process, since all programs in it share one pool."""

    name = TARGET

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        from importlib import metadata

        check_target(bundle, TARGET)
        self.binding = import_runtime()
        from torch import from_numpy

        self.tensor = from_numpy  # over the array's own memory
        self.version = metadata.version("executorch")
        self._bundle = bundle
        self._path = bundle.path / PTE_FILE
        if BACKEND not in self.binding._get_registered_backend_names():
            raise RuntimeVersionError(f"{self._path}: executorch {self.version} is built without {BACKEND}, which the programs need")
        with captured_stderr():  # here it looks at the processor, and says what it does not find
            if threads not in (None, self.binding._threadpool_get_thread_count()):
                self.binding._unsafe_reset_threadpool(threads)
        with captured_stderr(), refused_as(BundleError, f"{self._path}: executorch {self.version} cannot read it; export the bundle again"):
            verification = self.binding.Verification.InternalConsistency
            self._program = self.binding._load_program(os.fspath(self._path), program_verification=verification)
        self._methods: dict[str, Method] = {}

    def run(self, program: str, feeds: Values, outputs: Values, layer: int | None) -> None:
        if program not in self._methods:
            self._methods[program] = Method(self, self._bundle, self._program, program)
        self._methods[program].run(feeds, outputs, layer)


class Method:
    """One program, and its weights by layer."""

    def __init__(self, runtime: ExecuTorch, bundle: Bundle, program: Any, name: str) -> None:
        self._tensor = tensor = runtime.tensor
        self._where = f"{bundle.path / PTE_FILE}: {name}"
        graph = bundle.manifest.graphs[name]
        self._inputs, self._outputs = graph.inputs, tuple(x.name for x in graph.outputs)
        self._weights = {
            layer: {key: tensor(x) for key, x in weights.items()} for layer, weights in layer_weights(bundle, graph.inputs).items()
        }
        with captured_stderr() as log:
            try:
                self._method = program.load_method(name)
            except Exception as error:  # the binding's exceptions share no class of their own
                missing = dict.fromkeys(re.findall(r"Missing operator: \[\d+\] (\S+)", log()))
                reason = f"it has no operator {', '.join(missing)}" if missing else one_line(error)
                raise RuntimeVersionError(f"{self._where}: executorch {runtime.version} cannot load it: {reason}") from error
        self._check(graph.inputs, graph.outputs)

    def run(self, feeds: Values, outputs: Values, layer: int | None) -> None:
        values = {**self._weights[layer if layer in self._weights else None], **{name: self._tensor(x) for name, x in feeds.items()}}
        with refused_as(RunFailure, f"{self._where}: executorch cannot run it"):
            results = self._method([values[x.name] for x in self._inputs], clone_outputs=False)
        for name, result in zip(self._outputs, results, strict=True):
            if name in outputs:
                np.copyto(outputs[name], result.numpy())

    def _check(self, inputs: tuple[GraphTensor, ...], outputs: tuple[GraphTensor, ...]) -> None:
        """Raises BundleError unless the method takes and returns what the manifest says, by which buffers are made."""
        meta = self._method.method_meta()
        faults: list[str] = []
        for what, described, count, tensor in (
            ("inputs", inputs, meta.num_inputs(), meta.input_tensor_meta),
            ("outputs", outputs, meta.num_outputs(), meta.output_tensor_meta),
        ):
            found: Tensors = {}
            for number in range(count):
                x = tensor(number)
                name = described[number].name if number < len(described) else f"{what}[{number}]"
                free = number < len(described) and ANY in described[number].shape
                found[name] = (DTYPES.get(x.dtype(), str(x.dtype())), described[number].shape if free else tuple(x.sizes()))
            faults += differences(what, {x.name: (x.dtype, x.shape) for x in described}, found)
        if faults:
            raise BundleError(f"{self._where}: other than the manifest says: {some(faults)}; export the bundle again")
