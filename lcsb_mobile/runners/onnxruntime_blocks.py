"""The block programs of target `onnxruntime`: how one is run, and a batch's way through the layers.

Weights are fed in place from the mapped `weights.bin`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
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
        self.hidden = (bundle.manifest.seq_len, self.model.hidden_size)
        self.turns = [self.new(self.hidden) for _ in range(2)]  # for results that the next program reads and none after it

    # A batch's way through the layers

    def embed(self, batch: Batch, target: Any | None = None) -> tuple[Any, list[Values]]:
        """h[0], in `target` if given, and for each kind of layer its cos, sin and mask."""
        feeds = {name: self.value(getattr(batch, name)) for name in ("input_ids", "position_ids", "segment_ids")}
        outputs = self._embed_outputs | {"h": target or self._embed_outputs["h"]}
        with self.clock("embed"):
            self.run("embed", feeds, outputs)
        return outputs["h"], self.by_kind(outputs)

    def forward_layer(
        self,
        program: str,
        layer: int,
        h: Any,
        attention: Sequence[Values],
        adapter: Float32Array,
        outputs: Values,
        target: Any | None = None,
    ) -> Any:
        """A layer's output, in `target` if given, by one of the forward programs; `outputs` are for what else it returns."""
        target = target or self.turns[layer % 2]
        feeds = {"h": h, "adapter": self.value(adapter[layer])} | dict(attention[self.model.layer_kinds[layer]])
        self.enter(layer + 1)
        with self.clock("forward"):
            self.run(program, feeds, {"h_next": target, **outputs}, layer)
        return target

    def enter(self, following: int) -> None:
        """Between two layers: whoever wants to may pause or cancel, and the system reads the next layer's weights ahead."""
        self.between_layers()
        if 0 <= following < self.layers:
            self.weights.read_ahead(following)

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

    def new(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        return self.value(np.empty(shape, dtype))

    def by_kind(self, outputs: Values) -> list[Values]:
        kinds = range(len(self.model.attention_kinds))
        return [{name: outputs[f"{name}.{kind}"] for name in ("cos", "sin", "mask")} for kind in kinds]

    def new_outputs(self, program: str) -> dict[str, Any]:
        """A buffer for each of a program's outputs."""
        return {x.name: self.new(x.shape, x.dtype) for x in self.manifest.graphs[program].outputs}

    @cached_property
    def _embed_outputs(self) -> dict[str, Any]:
        return self.new_outputs("embed")
