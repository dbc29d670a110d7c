"""The block programs of target `onnxruntime`: how one is run, and a batch's way through the layers.

Weights are fed in place from the mapped `weights.bin`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import ANY, TOKENS, Role, program_name
from lcsb_mobile.errors import BundleError, MissingDependencyError
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.measuring.phases import PhaseClock
from lcsb_mobile.runners.onnxruntime_program import Program, Values

TARGET = "onnxruntime"


def import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(f"target {TARGET} needs onnxruntime 1.19 or newer ({error}); {how_to_install(TARGET)}") from error
    return onnxruntime


@dataclass(frozen=True)
class StepValues:
    """What the layers of one step share. `tables`: what they read; `crossing`: what some gave and others take, by the step's names."""

    tables: Values
    crossing: dict[str, Any] = field(default_factory=dict)


class OnnxRuntimePrograms:
    """`between_layers` is called before each layer: it may wait, to pause, or raise, to cancel. `profile`: a directory for ONNX Runtime's
    profiles, `PROGRAM.….json`, which `end_profiling` completes."""

    def __init__(
        self, bundle: Bundle, threads: int | None, between_layers: Callable[[], None] = lambda: None, profile: Path | None = None
    ) -> None:
        if bundle.manifest.target != TARGET:
            raise BundleError(
                f"{bundle.path}: expected a bundle of target {TARGET}, found {bundle.manifest.target}; export one with --target {TARGET}"
            )
        self.ort = import_runtime()
        self.manifest, self.weights = bundle.manifest, bundle.weights
        self.model = bundle.manifest.model
        self.layers = self.model.num_hidden_layers
        self.between_layers = between_layers
        self.clock = PhaseClock()
        self._bundle, self._threads, self._profile = bundle, threads, profile
        self._programs: dict[str, Program] = {}
        self._needed: dict[str, frozenset[str]] = {}  # program -> its inputs
        self._kinds = bundle.manifest.kinds_of_layers()
        self.hidden = (bundle.manifest.seq_len, self.model.hidden_size)
        self.turns = [self.new(self.hidden) for _ in range(2)]  # for results that the next program reads and none after it

    # A batch's way through the layers

    def embed(self, batch: Batch, target: Any | None = None) -> tuple[Any, Values]:
        """h[0], in `target` if given, and the tables that layers read."""
        feeds = {name: self.value(getattr(batch, name)) for name in TOKENS}
        outputs = self._embed_outputs | {"h": target or self._embed_outputs["h"]}
        with self.clock("embed"):
            self.run("embed", feeds, outputs)
        return outputs["h"], outputs

    def forward_layer(
        self, role: Role, layer: int, h: Any, step: StepValues, vector: Float32Array, outputs: Values, target: Any | None = None
    ) -> Any:
        """A layer's output, in `target` if given, by one of the forward programs; `outputs` are for what else it returns, but for what it
        gives, which goes to `step`. `vector`: its adapter."""
        target = target or self.turns[layer % 2]
        feeds = {"h": h, "adapter": self.value(vector)}
        self.enter(layer + 1)
        with self.clock("forward"):
            self.run_layer(role, layer, step, feeds, {"h_next": target, **outputs, **self.given(role, layer, step)})
        return target

    def run_layer(self, role: Role, layer: int, step: StepValues, feeds: Values, outputs: Values) -> None:
        """With what the layer reads and takes. A program has those inputs that it needs."""
        place, program = self.manifest.layers[layer], self.program(layer, role)
        bound = {name: step.tables[table] for name, table in place.reads.items() if table in step.tables}
        bound |= {name: step.crossing[value] for name, value in place.takes.items()}
        needed = self._inputs(program)
        self.run(program, {name: x for name, x in {**bound, **feeds}.items() if name in needed}, outputs, layer)

    def program(self, layer: int, role: Role) -> str:
        return program_name(self.manifest.layers[layer].kind, role)

    def given(self, role: Role, layer: int, step: StepValues) -> dict[str, Any]:
        """Buffers for what the layer gives: in `step` under the names that later layers take it by; the rest is dropped."""
        place, kind = self.manifest.layers[layer], self._kinds[layer]
        outputs = self.outputs(self.program(layer, role)) if kind.gives else {}
        buffers = {name: self.new(outputs[name].shape) for name in kind.gives}
        step.crossing.update({value: buffers[name] for name, value in place.gives.items()})
        return buffers

    def enter(self, following: int) -> None:
        """Between two layers: whoever wants to may pause or cancel, and the system reads the next layer's weights ahead."""
        self.between_layers()
        if 0 <= following < self.layers:
            place = self.manifest.layers[following]
            self.weights.read_ahead(place.kind, place.number)

    def logits(self, h: Float32Array) -> Float32Array:
        """h[L] of one token, [1, D] -> logits [V]."""
        logits = np.empty(self.model.vocab_size, np.float32)
        self.run("logits", {"h": self.value(h)}, {"logits": self.value(logits)})
        return logits

    # Programs and buffers

    def run(self, name: str, feeds: Values, outputs: Values, layer: int | None = None) -> None:
        if name not in self._programs:
            self._programs[name] = Program(self.ort, self._bundle, name, self._threads, self._profile)
        self._programs[name].run(feeds, outputs, layer)

    def end_profiling(self) -> None:
        """Writes the profiles that `profile` asked for."""
        for program in self._programs.values():
            program.end_profiling()

    def value(self, array: np.ndarray) -> Any:
        """An OrtValue over the array's own memory, which must be contiguous."""
        return self.ort.OrtValue.ortvalue_from_numpy(array)

    def values(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.value(array) for name, array in arrays.items()}

    def new(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        return self.value(np.empty(shape, dtype))

    def new_outputs(self, program: str, free: int = 1) -> dict[str, Any]:
        """A buffer for each of a program's outputs; `free`: the size of the dimensions that it leaves open."""
        outputs = self.manifest.graphs[program].outputs
        return {x.name: self.new(tuple(free if size == ANY else size for size in x.shape), x.dtype) for x in outputs}

    def outputs(self, program: str) -> dict[str, GraphTensor]:
        return {x.name: x for x in self.manifest.graphs[program].outputs}

    def _inputs(self, program: str) -> frozenset[str]:
        if program not in self._needed:
            self._needed[program] = frozenset(x.name for x in self.manifest.graphs[program].inputs)
        return self._needed[program]

    @cached_property
    def _embed_outputs(self) -> dict[str, Any]:
        return self.new_outputs("embed")
