"""What the constants of a package's functions are: tensors of `weights.bin`, or parts of them, and arrays of the graphs themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lcsb_mobile.bundle.weights import MappedWeights


@dataclass(frozen=True)
class Table:
    """A tensor of `weights.bin`, of a layer's the layer's slice, or a part: `bounds` of its first dimensions, at most two. `nibbles`: as
    int4 of two dimensions, in the order in which Core ML takes them."""

    weight: str
    dtype: str
    shape: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    nibbles: bool = False

    @classmethod
    def whole(cls, weight: str, dtype: str, shape: tuple[int, ...]) -> Table:
        return cls(weight, dtype, shape, tuple((0, size) for size in shape[:2]))

    def sliced(self, axis: int, start: int, end: int) -> Table:
        first = self.bounds[axis][0]
        bounds = tuple((first + start, first + end) if axis == number else old for number, old in enumerate(self.bounds))
        return replace(self, bounds=bounds, shape=(*self.shape[:axis], end - start, *self.shape[axis + 1 :]))

    def content(self, weights: MappedWeights, number: int | None) -> np.ndarray:
        """`number`: the layer's within its kind."""
        whole = weights[self.weight]
        part: np.ndarray = (whole if number is None else whole[number])[tuple(slice(*bound) for bound in self.bounds)]
        return repacked(part) if self.nibbles else np.ascontiguousarray(part)


@dataclass(frozen=True)
class Array:
    """An array that a graph brings."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> Array:
        return cls(array.dtype.name, array.shape, array.tobytes())

    def content(self, weights: MappedWeights, number: int | None) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


Constant = Table | Array


def repacked(packed: np.ndarray) -> np.ndarray:
    """uint8 [N, K/G, G/2], with element b of a group (q + 8) in the low and element b + G/2 in the high nibble of byte b
    (`weights.quantization`) -> uint8 [N, K/2]: elements 2 i and 2 i + 1 of a row in the low and high nibble of byte i, in two's
    complement."""
    values = np.concatenate([packed & 15, packed >> 4], axis=-1) ^ 8
    pairs: np.ndarray = (values[..., 0::2] | (values[..., 1::2] << 4)).reshape(len(packed), -1)
    return pairs


def zeros(constant: Constant) -> Any:
    """What stands for it while a function is built."""
    if isinstance(constant, Table) and constant.nibbles:
        from coremltools.converters.mil.mil import types

        return np.zeros((constant.shape[0], constant.shape[1] * constant.shape[2] * 2), types.np_int4_dtype)
    return np.zeros(constant.shape, constant.dtype)
