"""Steps on stock ONNX Runtime: the block programs of target `onnxruntime` and a loop over the layers.

Every large result goes into a buffer of this runner's: what the runtime allocates is the working set of one program. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.runners.onnxruntime_blocks import TARGET, OnnxRuntimePrograms, import_runtime
from lcsb_mobile.runners.onnxruntime_decoder import OnnxRuntimeDecoder
from lcsb_mobile.runners.onnxruntime_program import Values
from lcsb_mobile.training.optimizer import LayerUpdate

__all__ = ["OnnxRuntimeRunner", "import_runtime", "make_runner"]


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(bundle, threads, keep, between_layers)


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
        self.programs = OnnxRuntimePrograms(bundle, threads, between_layers, profile)
        self.version = str(self.programs.ort.__version__)
        self.manifest, self.model, self.layers = bundle.manifest, self.programs.model, self.programs.layers
        self.keep = min(keep, self.layers)
        self.clock = self.programs.clock
        self._saved: list[Any] = []  # OrtValues [T, D]: as many layers' inputs as a step has needed at once
        self._kept: dict[int, dict[str, Any]] = {}  # layer -> what its forward kept
        self._gradients: list[Float32Array] = []  # as many as a step has needed at once
        self._g = self.programs.new(self.programs.hidden)

    # The step

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(self.layers)
        propagate = [layer for layer in subset.propagate if layer >= subset.train[0]]
        saved = dict(zip(propagate, self._saved_buffers(len(propagate))))
        kept = {layer: self._kept_buffers(layer) for layer in propagate if layer >= self.layers - self.keep}
        h, attention = self.programs.embed(batch, saved.get(0))
        loss = self._head(self._forward(h, attention, adapter, saved, kept), batch)
        gradients = dict(zip(subset.train, self._gradient_buffers(len(subset.train))))
        unread = gradients[subset.train[0]]  # of a layer that is not trained: overwritten by the lowest trained layer's, the last
        programs, g = self.programs, self._g
        for turn, layer in enumerate(reversed(propagate)):
            outputs = {"g_next": programs.turns[turn % 2], "d_adapter": programs.value(gradients.get(layer, unread))}
            feeds = {"h": saved[layer], "g": g, "adapter": programs.value(adapter[layer])}
            feeds |= {**attention[self.model.layer_kinds[layer]], **kept.get(layer, {})}
            programs.enter(layer - 1)
            with self.clock("backward"):
                programs.run("block_backward_kept" if layer in kept else "block_backward", feeds, outputs, layer)
            g = outputs["g_next"]
        return StepResult(loss, gradients)

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        h, attention = self.programs.embed(batch)
        h = self._forward(h, attention, adapter)
        loss = self.programs.new(())
        with self.clock("head"):
            self.programs.run("head_eval", {"h": h, "labels": self.programs.value(batch.labels)}, {"loss": loss})
        return float(loss.numpy())

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        h, attention = self.programs.embed(batch)
        h = self._forward(h, attention, adapter)
        return self.programs.logits(h.numpy()[position : position + 1])

    def decoder(self, adapter: Float32Array) -> OnnxRuntimeDecoder:
        return OnnxRuntimeDecoder(self.programs, adapter)

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
            self.programs.run("adamw", {name: self.programs.value(np.asarray(x)) for name, x in feeds.items()}, self._adamw_outputs)
            for name, x in state.items():
                np.copyto(x, self._adamw_arrays[f"{name}_next"])

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
            h = self.programs.forward_layer(name, layer, h, attention, adapter, kept.get(layer, {}), saved.get(layer + 1))
        return h

    def _head(self, h: Any, batch: Batch) -> float:
        """The loss; its gradient goes to `self._g`."""
        loss = self.programs.new(())
        self.programs.between_layers()
        with self.clock("head"):
            self.programs.run("head", {"h": h, "labels": self.programs.value(batch.labels)}, {"loss": loss, "g": self._g})
        return float(loss.numpy())

    # Buffers

    def _saved_buffers(self, count: int) -> list[Any]:
        self._saved += [self.programs.new(self.programs.hidden) for _ in range(count - len(self._saved))]
        return self._saved[:count]

    def _gradient_buffers(self, count: int) -> list[Float32Array]:
        self._gradients += [np.empty(self.manifest.adapter.size, np.float32) for _ in range(count - len(self._gradients))]
        return self._gradients[:count]

    def _kept_buffers(self, layer: int) -> dict[str, Any]:
        if layer not in self._kept:
            outputs = self.manifest.graphs["block_forward_keep"].outputs[1:]
            self._kept[layer] = {x.name: self.programs.new(x.shape, x.dtype) for x in outputs}
        return self._kept[layer]

    @cached_property
    def _zeros(self) -> Float32Array:
        return np.zeros(self.manifest.adapter.size, np.float32)

    @cached_property
    def _adamw_arrays(self) -> dict[str, Float32Array]:
        return {x.name: np.empty(x.shape, np.float32) for x in self.manifest.graphs["adamw"].outputs}

    @cached_property
    def _adamw_outputs(self) -> dict[str, Any]:
        return {name: self.programs.value(array) for name, array in self._adamw_arrays.items()}
