"""Steps on stock ONNX Runtime: the block programs of target `onnxruntime` and a loop over the layers.

Weights are fed in place from the mapped `weights.bin`, and every large result goes into a buffer of this runner's: what the runtime
allocates is the working set of one program. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lcsb_mobile.batch import Batch, Float32Array, StepResult
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.errors import BundleError, MissingDependencyError
from lcsb_mobile.optimizer import AdamWConfig, LayerUpdate
from lcsb_mobile.phases import PhaseClock
from lcsb_mobile.runners.onnxruntime_decoder import OnnxRuntimeDecoder
from lcsb_mobile.runners.onnxruntime_program import Program, Values
from lcsb_mobile.schedule import Subset

TARGET = "onnxruntime"


def import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"target {TARGET} needs onnxruntime 1.19 or newer ({error}); install it with: pip install 'lcsb_mobile[{TARGET}]'"
        ) from error
    return onnxruntime


class OnnxRuntimeRunner:
    """A StepRunner over block programs.

    `keep`: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them.
    `between_layers` is called before each layer of a step: it may wait, to pause, or raise, to cancel; then nothing has changed.
    `profile`: a directory for ONNX Runtime's profiles, `PROGRAM.….json`, which `end_profiling` completes.
    """

    name = TARGET

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        keep: int = 0,
        between_layers: Callable[[], None] = lambda: None,
        profile: Path | None = None,
    ) -> None:
        if bundle.manifest.target != TARGET:
            raise BundleError(
                f"{bundle.path}: expected a bundle of target {TARGET}, found {bundle.manifest.target}; export one with --target {TARGET}"
            )
        self.ort = import_runtime()
        self.version = str(self.ort.__version__)
        self.manifest, self.weights = bundle.manifest, bundle.weights
        self.model = bundle.manifest.model
        self.layers = self.model.num_hidden_layers
        self.keep = min(keep, self.layers)
        self.between_layers = between_layers
        self.clock = PhaseClock()
        self._bundle, self._threads, self._profile = bundle, threads, profile
        self._programs: dict[str, Program] = {}
        self._hidden = (bundle.manifest.seq_len, self.model.hidden_size)
        self._saved: list[Any] = []  # OrtValues [T, D]: as many layers' inputs as a step has needed at once
        self._kept: dict[int, dict[str, Any]] = {}  # layer -> what its forward kept
        self._gradients: list[Float32Array] = []  # as many as a step has needed at once
        self._turns = [self._new(self._hidden) for _ in range(2)]  # for results that the next program reads and none after it
        self._g = self._new(self._hidden)

    # The step

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(self.layers)
        propagate = [layer for layer in subset.propagate if layer >= subset.train[0]]
        saved = dict(zip(propagate, self._saved_buffers(len(propagate))))
        kept = {layer: self._kept_buffers(layer) for layer in propagate if layer >= self.layers - self.keep}
        h, attention = self.embed(batch, saved.get(0))
        loss = self._head(self._forward(h, attention, adapter, saved, kept), batch)
        gradients = dict(zip(subset.train, self._gradient_buffers(len(subset.train))))
        unread = gradients[subset.train[0]]  # of a layer that is not trained: overwritten by the lowest trained layer's, the last
        g = self._g
        for turn, layer in enumerate(reversed(propagate)):
            outputs = {"g_next": self._turns[turn % 2], "d_adapter": self.value(gradients.get(layer, unread))}
            feeds = {"h": saved[layer], "g": g, "adapter": self.value(adapter[layer])} | dict(attention[self.model.layer_kinds[layer]])
            self._enter(layer - 1)
            with self.clock("backward"):
                self.run("block_backward_kept" if layer in kept else "block_backward", {**feeds, **kept.get(layer, {})}, outputs, layer)
            g = outputs["g_next"]
        return StepResult(loss, gradients)

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        h, attention = self.embed(batch)
        h = self._forward(h, attention, adapter)
        loss = self._new(())
        with self.clock("head"):
            self.run("head_eval", {"h": h, "labels": self.value(batch.labels)}, {"loss": loss})
        return float(loss.numpy())

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        h, attention = self.embed(batch)
        h = self._forward(h, attention, adapter)
        return self.logits(h.numpy()[position : position + 1])

    def decoder(self, adapter: Float32Array) -> OnnxRuntimeDecoder:
        return OnnxRuntimeDecoder(self, adapter)

    def update_layer(
        self,
        theta: Float32Array,
        m: Float32Array,
        v: Float32Array,
        gradient: Float32Array | None,
        scalars: LayerUpdate,
        config: AdamWConfig,
    ) -> None:
        """`optimizer.update_layer` by the program `adamw`, which has the manifest's constants."""
        state = {"parameters": theta, "first_moment": m, "second_moment": v}
        feeds = state | {"gradient": self._zeros if gradient is None else gradient, **vars(scalars)}
        with self.clock("optimizer"):
            self.run("adamw", {name: self.value(np.asarray(x)) for name, x in feeds.items()}, self._adamw_outputs)
            for name, x in state.items():
                np.copyto(x, self._adamw_arrays[f"{name}_next"])

    def embed(self, batch: Batch, target: Any | None = None) -> tuple[Any, list[Values]]:
        """h[0], in `target` if given, and for each kind of layer its cos, sin and mask."""
        feeds = {name: self.value(getattr(batch, name)) for name in ("input_ids", "position_ids", "segment_ids")}
        outputs = self._embed_outputs | {"h": target or self._embed_outputs["h"]}
        with self.clock("embed"):
            self.run("embed", feeds, outputs)
        return outputs["h"], self.by_kind(outputs)

    def _forward(
        self,
        h: Any,
        attention: Sequence[Values],
        adapter: Float32Array,
        saved: Mapping[int, Any] = MappingProxyType({}),
        kept: Mapping[int, Values] = MappingProxyType({}),
    ) -> Any:
        """h[0] -> h[L]. A layer's input is written to `saved`, and what it keeps to `kept`, where they have a buffer for it."""
        for layer in range(self.layers):
            name = "block_forward_keep" if layer in kept else "block_forward"
            h = self.forward_layer(name, layer, h, attention, adapter, kept.get(layer, {}), saved.get(layer + 1))
        return h

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
        target = target or self._turns[layer % 2]
        feeds = {"h": h, "adapter": self.value(adapter[layer])} | dict(attention[self.model.layer_kinds[layer]])
        self._enter(layer + 1)
        with self.clock("forward"):
            self.run(program, feeds, {"h_next": target, **outputs}, layer)
        return target

    def _head(self, h: Any, batch: Batch) -> float:
        """The loss; its gradient goes to `self._g`."""
        loss = self._new(())
        self.between_layers()
        with self.clock("head"):
            self.run("head", {"h": h, "labels": self.value(batch.labels)}, {"loss": loss, "g": self._g})
        return float(loss.numpy())

    def _enter(self, following: int) -> None:
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

    def _new(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        return self.value(np.empty(shape, dtype))

    def by_kind(self, outputs: Values) -> list[Values]:
        kinds = range(len(self.model.attention_kinds))
        return [{name: outputs[f"{name}.{kind}"] for name in ("cos", "sin", "mask")} for kind in kinds]

    def _saved_buffers(self, count: int) -> list[Any]:
        self._saved += [self._new(self._hidden) for _ in range(count - len(self._saved))]
        return self._saved[:count]

    def _gradient_buffers(self, count: int) -> list[Float32Array]:
        self._gradients += [np.empty(self.manifest.adapter.size, np.float32) for _ in range(count - len(self._gradients))]
        return self._gradients[:count]

    def _kept_buffers(self, layer: int) -> dict[str, Any]:
        if layer not in self._kept:
            outputs = self.manifest.graphs["block_forward_keep"].outputs[1:]
            self._kept[layer] = {x.name: self._new(x.shape, x.dtype) for x in outputs}
        return self._kept[layer]

    def new_outputs(self, program: str) -> dict[str, Any]:
        """A buffer for each of a program's outputs."""
        return {x.name: self._new(x.shape, x.dtype) for x in self.manifest.graphs[program].outputs}

    @cached_property
    def _embed_outputs(self) -> dict[str, Any]:
        return self.new_outputs("embed")

    @cached_property
    def _zeros(self) -> Float32Array:
        return np.zeros(self.manifest.adapter.size, np.float32)

    @cached_property
    def _adamw_arrays(self) -> dict[str, Float32Array]:
        return {x.name: np.empty(x.shape, np.float32) for x in self.manifest.graphs["adamw"].outputs}

    @cached_property
    def _adamw_outputs(self) -> dict[str, Any]:
        return {name: self.value(array) for name, array in self._adamw_arrays.items()}
