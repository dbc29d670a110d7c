"""Steps by block programs and a loop over the layers, whatever runtime runs them.

Every large result goes into a buffer of this runner's: what the runtime allocates is the working set of one program. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.programs import KEPT, Role
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.runners.block_decoder import BlockDecoder
from lcsb_mobile.runners.block_programs import BlockPrograms, Runtime, StepValues
from lcsb_mobile.runners.crossing import CrossingGradients
from lcsb_mobile.runners.heads import make_head
from lcsb_mobile.training.optimizer import LayerUpdate

MOST_KEPT = 0x7BFF  # 65504, float16's largest number, as bits: what is beyond is infinite, or this where a runtime saturates
SIGN = 0x8000


class BlockRunner:
    """A StepRunner over block programs.

    `keep`: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them. A layer
    whose activations float16 does not hold recomputes them in that step all the same.
    `between_layers` is called before each layer of a step: it may wait, to pause, or raise, to cancel; then nothing has changed.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, keep: int = 0, between_layers: Callable[[], None] = lambda: None) -> None:
        self.name, self.version = runtime.name, runtime.version
        self.programs = BlockPrograms(bundle, runtime, between_layers)
        self.head = make_head(self.programs)
        self.manifest, self.layers = bundle.manifest, self.programs.layers
        self.keep = min(keep, self.layers)
        self.clock = self.programs.clock
        self._saved: list[Float32Array] = []  # [T, D]: as many layers' inputs as a step has needed at once
        self._kept: dict[int, dict[str, np.ndarray]] = {}  # layer -> what its forward kept
        self._gradients: dict[int, list[Float32Array]] = {}  # size -> as many as a step has needed at once
        self._updated: dict[int, dict[str, Float32Array]] = {}  # size -> what `adamw` returns
        self._layout = bundle.manifest.adapter
        self._kind_of_size = {kind.size: kind.name for kind in bundle.manifest.kinds}
        self._g = np.empty(self.programs.hidden, np.float32)

    # The step

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(self.layers)
        propagate = [layer for layer in subset.propagate if layer >= subset.train[0]]
        saved = dict(zip(propagate, self._saved_buffers(len(propagate))))
        kept = {layer: self._kept_buffers(layer) for layer in propagate if layer >= self.layers - self.keep}
        h, tables = self.programs.embed(batch, saved.get(0))
        values, vectors = StepValues(tables), self._layout.vectors(adapter)
        loss = self._head(self._forward(h, values, vectors, saved, kept), batch)
        gradients = self._gradient_buffers(subset.train, propagate)
        crossing, g = CrossingGradients(self.manifest, propagate), self._g
        for turn, layer in enumerate(reversed(propagate)):
            feeds = {"h": saved[layer], "g": g, "adapter": vectors[layer], **crossing.given(layer), **kept.get(layer, {})}
            outputs = {"g_next": self.programs.turns[turn % 2], "d_adapter": gradients[layer], **crossing.taken(layer)}
            self.programs.enter(layer - 1)
            with self.clock("backward"):
                self.programs.run_layer("backward_kept" if layer in kept else "backward", layer, values, feeds, outputs)
            crossing.add(layer)
            g = outputs["g_next"]
        return StepResult(loss, {layer: gradients[layer] for layer in subset.train})

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        h = self._forward_alone(batch, adapter)
        with self.clock("head"):
            return self.head.loss(h, batch.labels)

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        return self.head.logits(self._forward_alone(batch, adapter)[position : position + 1])

    def decoder(self, adapter: Float32Array) -> BlockDecoder:
        return BlockDecoder(self.programs, self.head, adapter)

    def update_layer(
        self,
        theta: Float32Array,
        m: Float32Array,
        v: Float32Array,
        gradient: Float32Array | None,
        scalars: LayerUpdate,
        config: AdamWConfig,
    ) -> None:
        """`optimizer.update_layer` by the program of AdamW, which has the manifest's constants."""
        state = {"parameters": theta, "first_moment": m, "second_moment": v}
        feeds = state | {"gradient": self._zeros[: theta.size] if gradient is None else gradient, **vars(scalars)}
        updated = self._update_buffers(theta.size)
        with self.clock("optimizer"):
            self.programs.update(self._kind_of_size[theta.size], feeds, updated)
            for name, x in state.items():
                np.copyto(x, updated[f"{name}_next"])

    def _forward_alone(self, batch: Batch, adapter: Float32Array) -> Float32Array:
        h, tables = self.programs.embed(batch)
        return self._forward(h, StepValues(tables), self._layout.vectors(adapter))

    def _forward(
        self,
        h: Float32Array,
        values: StepValues,
        vectors: Sequence[Float32Array],
        saved: Mapping[int, Float32Array] = MappingProxyType({}),
        kept: dict[int, dict[str, np.ndarray]] | None = None,
    ) -> Float32Array:
        """h[0] -> h[L]. A layer's input is written to `saved`, and what it keeps to `kept`, where they have a buffer for it. What float16
        does not hold is taken out of `kept`, and its memory given back before the layer's backward needs more."""
        kept = {} if kept is None else kept
        for layer, vector in enumerate(vectors):
            role: Role = "forward_keep" if layer in kept else "forward"
            h = self.programs.forward_layer(role, layer, h, values, vector, kept.get(layer, {}), saved.get(layer + 1))
            if layer in kept and not all(map(holds, kept[layer].values())):
                del kept[layer], self._kept[layer]
        return h

    def _head(self, h: Float32Array, batch: Batch) -> float:
        """The loss; its gradient goes to `self._g`."""
        self.programs.between_layers()
        with self.clock("head"):
            return self.head.loss(h, batch.labels, self._g)

    # Buffers

    def _saved_buffers(self, count: int) -> list[Float32Array]:
        self._saved += [np.empty(self.programs.hidden, np.float32) for _ in range(count - len(self._saved))]
        return self._saved[:count]

    def _gradient_buffers(self, train: Sequence[int], propagate: Sequence[int]) -> dict[int, Float32Array]:
        """For each layer that runs backward. One that is not trained writes where a trained one of its size below it will write later."""
        sizes = self._layout.sizes
        shared = {
            layer: next((t for t in train if t < layer and sizes[t] == sizes[layer]), None) for layer in propagate if layer not in train
        }
        own = [*train, *{sizes[layer]: layer for layer, below in shared.items() if below is None}.values()]
        used = Counter[int]()
        buffers: dict[int, Float32Array] = {}
        for layer in own:
            size = sizes[layer]
            pool = self._gradients.setdefault(size, [])
            if used[size] == len(pool):
                pool.append(np.empty(size, np.float32))
            buffers[layer] = pool[used[size]]
            used[size] += 1
        unread = {sizes[layer]: buffers[layer] for layer in own if layer not in train}
        return buffers | {layer: unread[sizes[layer]] if below is None else buffers[below] for layer, below in shared.items()}

    def _kept_buffers(self, layer: int) -> dict[str, np.ndarray]:
        if layer not in self._kept:
            outputs = self.programs.outputs(self.programs.program(layer, "forward_keep")).values()
            self._kept[layer] = {x.name: np.empty(x.shape, x.dtype) for x in outputs if x.name.startswith(KEPT)}
        return self._kept[layer]

    def _update_buffers(self, size: int) -> dict[str, Float32Array]:
        if size not in self._updated:
            self._updated[size] = {f"{name}_next": np.empty(size, np.float32) for name in ("parameters", "first_moment", "second_moment")}
        return self._updated[size]

    @cached_property
    def _zeros(self) -> Float32Array:
        return np.zeros(max(self._layout.sizes), np.float32)


def holds(x: np.ndarray) -> bool:
    """Whether a kept tensor has the values that it was made of: none of float16 is infinite, NaN or the largest there is. By the bits, of
    which the greatest magnitude of either sign is the greatest integer: a maximum takes no memory."""
    if x.dtype != np.float16:
        return True
    return bool(x.view(np.int16).max() < MOST_KEPT and x.view(np.uint16).max() < SIGN | MOST_KEPT)
