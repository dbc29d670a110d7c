"""Steps on stock ONNX Runtime: the block programs of target `onnxruntime`, a session each; weights are fed in place from the mapped
`weights.bin`. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import MissingDependencyError, RunFailure, RuntimeVersionError
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.bounded import one_line, refused_as
from lcsb_mobile.runners.block_programs import Values, check_target, layer_weights
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.sessions import check_signature, in_letters, program_path, session_options

TARGET = "onnxruntime"
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
OLDEST_RUNTIME = "1.18"  # the first with operator set 21 and IR version 10, in which all programs are written


def import_runtime() -> Any:
    keep_to_oneself()
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(f"target {TARGET} needs onnxruntime 1.19 or newer ({error}); {how_to_install(TARGET)}") from error
    return onnxruntime


def keep_to_oneself() -> None:
    """Official builds from 1.29 on report processes, sessions and models to Microsoft. They look at this variable when they are loaded;
    without it the import alone writes an identifier of the device below the home directory. Whoever has set it has decided."""
    os.environ.setdefault(NO_TELEMETRY, "1")


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> BlockRunner:
    return BlockRunner(bundle, OnnxRuntime(bundle, threads), keep, between_layers)


class OnnxRuntime:
    """A Runtime. `profile`: a directory for ONNX Runtime's profiles, `PROGRAM.….json`, which `end_profiling` completes. `gpu`: an EP device
    of ONNX Runtime's that runs the programs, every node of them."""

    name = TARGET

    def __init__(self, bundle: Bundle, threads: int | None = None, profile: Path | None = None, gpu: Any = None) -> None:
        check_target(bundle, TARGET)
        self.ort = import_runtime()
        self.version = str(self.ort.__version__) if gpu is None else f"{self.ort.__version__} ({gpu.ep_name})"
        self._bundle, self._threads, self._profile, self._gpu = bundle, threads, profile, gpu
        self._programs: dict[str, Program] = {}

    def run(self, program: str, feeds: Values, outputs: Values, layer: int | None) -> None:
        if program not in self._programs:
            self._programs[program] = Program(self.ort, self._bundle, program, self._threads, self._profile, self._gpu)
        self._programs[program].run(feeds, outputs, layer)

    def end_profiling(self) -> None:
        """Writes the profiles that `profile` asked for."""
        for program in self._programs.values():
            program.end_profiling()


class Program:
    """One program: its weights by layer, and its session, or a session a layer where the weights are its constants."""

    def __init__(self, ort: Any, bundle: Bundle, name: str, threads: int | None, profile: Path | None = None, gpu: Any = None) -> None:
        self._ort, self._bundle, self._name, self._threads, self._profile, self._gpu = ort, bundle, name, threads, profile, gpu
        self._graph = bundle.manifest.graphs[name]
        self._feeds, self._constants = (
            {layer: ort_values(ort, weights) for layer, weights in layer_weights(bundle, tensors).items()}
            for tensors in (self._graph.inputs, self._graph.initializers)
        )
        self._sessions: dict[int | None, Any] = {}
        self._session(next(iter(self._constants)))

    def run(self, feeds: Values, outputs: Values, layer: int | None) -> None:
        session = self._session(layer)
        with refused_as(RunFailure, f"{self._graph.file}: onnxruntime {self._ort.__version__} cannot run it"):
            binding = session.io_binding()
            for name, x in {**ort_values(self._ort, feeds), **self._feeds[layer if layer in self._feeds else None]}.items():
                binding.bind_ortvalue_input(name, x)
            for name, x in ort_values(self._ort, outputs).items():
                binding.bind_ortvalue_output(name, x)
            session.run_with_iobinding(binding)

    def end_profiling(self) -> None:
        for session in self._sessions.values():
            session.end_profiling()

    def _session(self, layer: int | None) -> Any:
        number = layer if layer in self._constants else None
        if number not in self._sessions:
            options = session_options(self._ort, self._bundle.manifest.runtime, self._threads)
            if self._profile is not None:
                options.enable_profiling, options.profile_file_prefix = True, str(self._profile / f"{self._name}.{number or 0}")
            if constants := self._constants[number]:
                options.add_external_initializers(list(constants), list(constants.values()))
            path = program_path(self._bundle, self._name, [x.name for x in self._graph.initializers])
            try:
                with in_letters(path) as readable:
                    session = self._ort.InferenceSession(readable, options, providers=self._providers(options))
            except Exception as error:  # the runtime's exceptions share no class of their own
                raise _load_error(self._ort, path, error) from error
            check_signature(session, self._graph, path)
            self._sessions[number] = session
        return self._sessions[number]

    def _providers(self, options: Any) -> list[str] | None:
        """What is on a GPU is so as a whole: a node that fell back would send the layer's weights there and back, and say nothing."""
        if self._gpu is None:
            return ["CPUExecutionProvider"]
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_provider_for_devices([self._gpu], {})
        return None


def ort_values(ort: Any, arrays: Values) -> dict[str, Any]:
    """OrtValues over the arrays' own memory."""
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def _load_error(ort: Any, path: Path, error: Exception) -> RuntimeVersionError:
    """Names the operator that the runtime lacks, where that is the reason."""
    text = str(error)
    missing = re.search(r"Could not find an implementation for (\w+)|([\w.:]+)\([-\d]+\) is not a registered function/op", text)
    version = re.search(r"Unsupported model IR version: \d+|ONNX Runtime only \*guarantees\* support .*?opset \d+", text)
    what = f"it has no operator {missing[1] or missing[2]}" if missing else version[0] if version else one_line(text)
    return RuntimeVersionError(
        f"{path}: onnxruntime {ort.__version__} cannot load it: {what}; expected onnxruntime {OLDEST_RUNTIME} or newer, with all of its "
        "operators (a reduced build lacks some)"
    )
