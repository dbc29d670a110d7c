"""Steps on the desktop's build of Core AI: the functions of a bundle's `programs.aimodel`, with weights fed from the mapped `weights.bin`.

It has no delegate for any accelerator and copies every input, so it says what the programs compute, not how fast a phone is. Imports no
torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import Tensors, differences, plain_name
from lcsb_mobile.errors import BundleError, MissingDependencyError, RunFailure, RuntimeVersionError
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.bounded import refused_as, some
from lcsb_mobile.io.files import sha256
from lcsb_mobile.io.native_log import captured_stderr
from lcsb_mobile.runners.block_programs import Values, check_target, layer_weights
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.targets import AIMODEL

TARGET = "coreai"


def import_runtime() -> Any:
    """The packages `coreai.authoring`, which opens an asset and lowers it for this machine, and `coreai.runtime`."""
    try:
        with captured_stderr():
            from coreai import authoring, runtime
    except ImportError as error:
        raise MissingDependencyError(f"target {TARGET} needs coreai-core 1.0.0b3 ({error}); {how_to_install(TARGET)}") from error
    return authoring, runtime


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> BlockRunner:
    """The desktop's build computes on one thread, whatever is asked for."""
    return BlockRunner(bundle, CoreAI(bundle), keep, between_layers)


class CoreAI:
    """A Runtime."""

    name = TARGET

    def __init__(self, bundle: Bundle) -> None:
        from importlib import metadata

        check_target(bundle, TARGET)
        authoring, runtime = import_runtime()
        self.array = runtime.NDArray
        self.version = metadata.version("coreai-core")
        self._bundle, self._path = bundle, bundle.path / AIMODEL
        _check_digest(self._path)
        self._loop = asyncio.new_event_loop()
        self._open = AsyncExitStack()
        with (
            captured_stderr(),
            refused_as(BundleError, f"{self._path}: coreai-core {self.version} cannot read it; export the bundle again"),
        ):
            # It is lowered into a directory of its own, which holds no weights; AIModel.load alone fails on Linux.
            asset = authoring.AIModelAsset.load(self._path)
            self._model = self.wait(self._open.enter_async_context(asset.executable()))
        self._functions: dict[str, Function] = {}

    def run(self, program: str, feeds: Values, outputs: Values, layer: int | None) -> None:
        if program not in self._functions:
            self._functions[program] = Function(self, self._bundle, self._model, program)
        self._functions[program].run(feeds, outputs, layer)

    def wait(self, call: Any) -> Any:
        return self._loop.run_until_complete(call)

    def close(self) -> None:
        """Removes what was lowered."""
        if not self._loop.is_closed():
            self._functions.clear()
            leaving = self._open.aclose()
            with suppress(StopIteration):  # it waits for nothing, and the garbage collector may call this while another loop runs
                leaving.send(None)
            self._loop.close()

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()


class Function:
    """One program, and its weights by layer."""

    def __init__(self, runtime: CoreAI, bundle: Bundle, model: Any, name: str) -> None:
        self._runtime = runtime
        self._where = f"{bundle.path / AIMODEL}: {name}"
        graph = bundle.manifest.graphs[name]
        self._names = {x.name: plain_name(x.name) for x in (*graph.inputs, *graph.outputs)}
        self._weights = layer_weights(bundle, graph.inputs)
        with captured_stderr(), refused_as(RuntimeVersionError, f"{self._where}: coreai-core {runtime.version} cannot load it"):
            self._function = model.load_function(name)
        self._check(graph.inputs, graph.outputs)

    def run(self, feeds: Values, outputs: Values, layer: int | None) -> None:
        values = {**self._weights[layer if layer in self._weights else None], **feeds}
        with refused_as(RunFailure, f"{self._where}: coreai-core cannot run it"):
            results = self._runtime.wait(self._call(values))
            for name, target in outputs.items():
                np.copyto(target, np.from_dlpack(results[self._names[name]].to_dlpack()))
            # The binding keeps every dictionary that it returns, and so what is in it.
            results.clear()

    async def _call(self, values: Values) -> dict[str, Any]:
        """By the inner function, as the outer one copies the dictionary, and the original is what has to be emptied."""
        arrays = {self._names[name]: self._runtime.array(np.ascontiguousarray(x))._tensor for name, x in values.items()}
        results: dict[str, Any] = await self._function._function(inputs=arrays, state={})
        return results

    def _check(self, inputs: tuple[GraphTensor, ...], outputs: tuple[GraphTensor, ...]) -> None:
        """Raises BundleError unless the function takes and returns what the manifest says, by which buffers are made."""
        description = self._function.desc
        faults: list[str] = []
        for what, described, names, found in (
            ("inputs", inputs, description.input_names, description.input_descriptor),
            ("outputs", outputs, description.output_names, description.output_descriptor),
        ):
            expected: Tensors = {plain_name(x.name): (x.dtype, tuple(x.shape)) for x in described}
            faults += differences(what, expected, {name: _tensor(found(name)) for name in names})
        if faults:
            raise BundleError(f"{self._where}: other than the manifest says: {some(faults)}; export the bundle again")


def _check_digest(asset: Path) -> None:
    """Raises BundleError for an asset whose program is another than its own digest says: the runtime's reader ends the process on some."""
    program, digest = asset / "main.mlirb", asset / "main.hash"
    if bytes.fromhex(sha256(program)) != digest.read_bytes():
        raise BundleError(f"{program}: other than {digest.name} beside it says; export the bundle again")


def _tensor(descriptor: Any) -> tuple[str, tuple[int, ...]]:
    return str(descriptor.dtype), tuple(-1 if size is None else int(size) for size in descriptor.shape)
