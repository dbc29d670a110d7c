"""One block program: its sessions, its weights, and what its runtime lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.weights import LAYERS
from lcsb_mobile.errors import RunFailure, RuntimeVersionError
from lcsb_mobile.io.bounded import one_line, refused_as
from lcsb_mobile.runners.sessions import check_signature, program_path, session_options

Values = Mapping[str, Any]  # input or output name -> OrtValue
OLDEST_RUNTIME = "1.18"  # the first with operator set 21 and IR version 10, in which all programs are written


class Program:
    """One program: its weights by layer, and its session, or a session a layer where the weights are its constants."""

    def __init__(self, ort: Any, bundle: Bundle, name: str, threads: int | None, profile: Path | None = None) -> None:
        self._ort, self._bundle, self._name, self._threads, self._profile = ort, bundle, name, threads, profile
        self._graph = bundle.manifest.graphs[name]
        self._feeds = layer_weights(ort, bundle, self._graph.inputs)
        self._constants = layer_weights(ort, bundle, self._graph.initializers)
        self._sessions: dict[int | None, Any] = {}
        self._session(next(iter(self._constants)))

    def run(self, feeds: Values, outputs: Values, layer: int | None) -> None:
        session = self._session(layer)
        with refused_as(RunFailure, f"{self._graph.file}: onnxruntime {self._ort.__version__} cannot run it"):
            binding = session.io_binding()
            for name, x in {**feeds, **self._feeds[layer if layer in self._feeds else None]}.items():
                binding.bind_ortvalue_input(name, x)
            for name, x in outputs.items():
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
                session = self._ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # the runtime's exceptions share no class of their own
                raise _load_error(self._ort, path, error) from error
            check_signature(session, self._graph, path)
            self._sessions[number] = session
        return self._sessions[number]


def layer_weights(ort: Any, bundle: Bundle, tensors: Sequence[GraphTensor]) -> dict[int | None, dict[str, Any]]:
    """Layer -> the weights among a program's tensors, in place, for the layers of its kind; under None where they are no layer's."""
    named = {x.name: x.weight for x in tensors if x.weight is not None}
    value = ort.OrtValue.ortvalue_from_numpy
    kinds = {weight.removeprefix(LAYERS).partition(".")[0] for weight in named.values() if weight.startswith(LAYERS)}
    if not kinds:
        return {None: {name: value(bundle.weights[weight]) for name, weight in named.items()}}
    layers = {number: layer.number for number, layer in enumerate(bundle.manifest.layers) if layer.kind in kinds}
    return {layer: {name: value(bundle.weights[weight][number]) for name, weight in named.items()} for layer, number in layers.items()}


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
