"""On the way down: the gradients of what some layers gave and others took."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.programs import GRADIENT, program_name


class CrossingGradients:
    """Of one step. A layer's backward is fed the sum of the gradients of what it gave, zeros where nobody took it, and returns those of
    what it took, which are added to their givers' sums unless the giver runs no backward."""

    def __init__(self, manifest: Manifest, propagate: Collection[int]) -> None:
        self._manifest, self._propagate = manifest, propagate
        self._givers = {value: number for number, layer in enumerate(manifest.layers) for value in layer.gives.values()}
        self._sums: dict[str, Float32Array] = {}
        self._parts: dict[str, Float32Array] = {}

    def given(self, layer: int) -> dict[str, Float32Array]:
        """What its backward is fed: `d_GIVE` for all that it gives."""
        place, kind = self._manifest.layers[layer], self._manifest.kind(layer)
        sums = {name: self._sums.pop(place.gives.get(name, ""), None) for name in kind.gives}
        outputs = self._manifest.graphs[program_name(kind.name, "forward")].outputs if kind.gives else ()
        shapes = {x.name: x.shape for x in outputs}
        return {GRADIENT + name: np.zeros(shapes[name], np.float32) if x is None else x for name, x in sums.items()}

    def taken(self, layer: int) -> dict[str, Float32Array]:
        """Where its backward writes: `d_TAKE` for all that it takes."""
        kind = self._manifest.kind(layer)
        outputs = self._manifest.graphs[program_name(kind.name, "backward")].outputs if kind.takes else ()
        shapes = {x.name: x.shape for x in outputs}
        self._parts = {GRADIENT + name: np.empty(shapes[GRADIENT + name], np.float32) for name in kind.takes}
        return self._parts

    def add(self, layer: int) -> None:
        """Once its backward has run."""
        for name, value in self._manifest.layers[layer].takes.items():
            if self._givers[value] in self._propagate:
                part = self._parts[GRADIENT + name]
                self._sums[value] = self._sums[value] + part if value in self._sums else part
