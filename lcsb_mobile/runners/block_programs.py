"""A batch's way through a bundle's block programs, whatever runtime runs them.

Values are NumPy arrays, which a runtime takes and fills in place where it can. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import ANY, TOKENS, UPDATE, Role, program_name, update_program
from lcsb_mobile.bundle.weights import LAYERS, MappedWeights
from lcsb_mobile.errors import BundleError
from lcsb_mobile.measuring.phases import PhaseClock
from lcsb_mobile.targets import TARGETS

Values = Mapping[str, np.ndarray]  # by the names of a program's inputs or outputs; each contiguous


class Runtime(Protocol):
    """What runs the programs of one bundle. `name`: of the target that they are for."""

    name: str
    version: str

    def run(self, program: str, feeds: Values, outputs: Values, layer: int | None) -> None:
        """Runs a program with the weights that it takes, of that layer where it is a layer's; its results are written into `outputs`."""
        ...


def check_target(bundle: Bundle, target: str) -> None:
    """Raises BundleError for a bundle of another target."""
    if bundle.manifest.target != target:
        raise BundleError(
            f"{bundle.path}: expected a bundle of target {target}, found {bundle.manifest.target}; export one with --target {target}"
        )


@dataclass(frozen=True)
class StepValues:
    """What the layers of one step share. `tables`: what they read; `crossing`: what some gave and others take, by the step's names."""

    tables: Values
    crossing: dict[str, np.ndarray] = field(default_factory=dict)


def layer_weights(bundle: Bundle, tensors: Sequence[GraphTensor]) -> dict[int | None, dict[str, np.ndarray]]:
    """Layer -> the weights among a program's tensors, in place, for the layers of its kind; under None where they are no layer's. Of a
    program that sees a chunk of rows, the rows are not among them."""
    named = {x.name: x.weight for x in tensors if x.weight is not None}
    kinds = {weight.removeprefix(LAYERS).partition(".")[0] for weight in named.values() if weight.startswith(LAYERS)}
    if not kinds:
        whole = {x.name: bundle.weights[x.weight] for x in tensors if x.weight is not None}
        return {None: {x.name: whole[x.name] for x in tensors if x.name in whole and whole[x.name].shape == tuple(x.shape)}}
    layers = {number: layer.number for number, layer in enumerate(bundle.manifest.layers) if layer.kind in kinds}
    return {layer: {name: bundle.weights[weight][number] for name, weight in named.items()} for layer, number in layers.items()}


class BlockPrograms:
    """`between_layers` is called before each layer: it may wait, to pause, or raise, to cancel."""

    def __init__(self, bundle: Bundle, runtime: Runtime, between_layers: Callable[[], None] = lambda: None) -> None:
        self.manifest, self.runtime = bundle.manifest, runtime
        self.row = TARGETS[bundle.manifest.target]
        self._bundle = bundle
        self.model = bundle.manifest.model
        self.layers = self.model.num_hidden_layers
        self.between_layers = between_layers
        self.clock = PhaseClock()
        self._needed: dict[str, frozenset[str]] = {}  # program -> its inputs
        self._kinds = bundle.manifest.kinds_of_layers()
        self.hidden = (bundle.manifest.seq_len, self.model.hidden_size)
        self.turns = [np.empty(self.hidden, np.float32) for _ in range(2)]  # for results that the next program reads and none after it

    # A batch's way through the layers

    def embed(self, batch: Batch, target: Float32Array | None = None) -> tuple[Float32Array, Values]:
        """h[0], in `target` if given, and the tables that layers read."""
        outputs = self._embed_outputs | ({} if target is None else {"h": target})
        with self.clock("embed"):
            self.run("embed", {name: self.integers(getattr(batch, name)) for name in TOKENS}, outputs)
        return outputs["h"], outputs

    def forward_layer(
        self,
        role: Role,
        layer: int,
        h: Float32Array,
        step: StepValues,
        vector: Float32Array,
        outputs: Values,
        target: Float32Array | None = None,
    ) -> Float32Array:
        """A layer's output, in `target` if given, by one of the forward programs; `outputs` are for what else it returns, but for what it
        gives, which goes to `step`. `vector`: its adapter."""
        target = self.turns[layer % 2] if target is None else target
        self.enter(layer + 1)
        with self.clock("forward"):
            results = {"h_next": target, **outputs, **self.given(role, layer, step)}
            self.run_layer(role, layer, step, {"h": h, "adapter": vector}, results)
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

    def given(self, role: Role, layer: int, step: StepValues) -> dict[str, np.ndarray]:
        """Buffers for what the layer gives: in `step` under the names that later layers take it by; the rest is dropped."""
        place, kind = self.manifest.layers[layer], self._kinds[layer]
        outputs = self.outputs(self.program(layer, role)) if kind.gives else {}
        buffers = {name: np.empty(outputs[name].shape, np.float32) for name in kind.gives}
        step.crossing.update({value: buffers[name] for name, value in place.gives.items()})
        return buffers

    def enter(self, following: int) -> None:
        """Between two layers: whoever wants to may pause or cancel, and the system reads the next layer's weights ahead."""
        self.between_layers()
        if 0 <= following < self.layers and not self.row.holds_weights:
            place = self.manifest.layers[following]
            self.weights.read_ahead(place.kind, place.number)

    # Programs and buffers

    @property
    def weights(self) -> MappedWeights:
        """Raises BundleError where the programs hold them."""
        return self._bundle.weights

    def integers(self, x: npt.ArrayLike) -> np.ndarray:
        """Tokens, positions or labels as the target's programs take them."""
        return np.asarray(x, np.int32 if self.row.static_shapes else np.int64)

    def update(self, kind: str, feeds: Mapping[str, npt.ArrayLike], outputs: Values) -> None:
        """AdamW of a vector of a kind's size."""
        static = self.row.static_shapes
        arrays = {name: np.atleast_1d(x) if static else np.asarray(x) for name, x in feeds.items()}
        self.run(update_program(kind) if static else UPDATE, arrays, outputs)

    def run(self, program: str, feeds: Values, outputs: Values, layer: int | None = None) -> None:
        """On a layer's weights, where it is a layer's program; its results go into `outputs`."""
        self.runtime.run(program, feeds, outputs, layer)

    def new_outputs(self, program: str, free: int = 1) -> dict[str, np.ndarray]:
        """A buffer for each of a program's outputs; `free`: the size of the dimensions that it leaves open."""
        outputs = self.manifest.graphs[program].outputs
        return {x.name: np.empty([free if size == ANY else size for size in x.shape], x.dtype) for x in outputs}

    def outputs(self, program: str) -> dict[str, GraphTensor]:
        return {x.name: x for x in self.manifest.graphs[program].outputs}

    def _inputs(self, program: str) -> frozenset[str]:
        if program not in self._needed:
            self._needed[program] = frozenset(x.name for x in self.manifest.graphs[program].inputs)
        return self._needed[program]

    @cached_property
    def _embed_outputs(self) -> dict[str, np.ndarray]:
        return self.new_outputs("embed")
