"""What a step costs, from the manifest alone: floating-point operations, bytes decompressed, time by proportion, memory.

Nothing is run. FLOPs are those of the matrix products, 2 m k n each; the embedding (a gather), the norms, the softmax and the
optimizer (some 15 operations an adapter element) are left out: together under 1 % at any shape of interest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcsb_mobile.config import Record
from lcsb_mobile.errors import MemoryBudgetError, OptionError
from lcsb_mobile.manifest import Manifest
from lcsb_mobile.schedule import Subset
from lcsb_mobile.weights import LAYERS, WeightTensor

FLOAT = 4  # bytes of a float32
MEGABYTE = 1_000_000

# What decompressing one byte of float weights costs, in floating-point operations that a matrix product makes in the same time.
# Measured on a desktop (2 threads, one 4864x896 matrix): 2.4 ms to decompress its 17.4 MB; 4.6 ms for its Gemm with 256 rows,
# 2.23 GFLOP. The norms, attention's softmax and what else is not a product are in neither.
FLOPS_PER_DECOMPRESSED_BYTE = (2.4e-3 / 17.4e6) / (4.6e-3 / 2.23e9)


class StepCost(Record, frozen=True):
    """One step, by phase. FLOPs of the matrix products; bytes of float32 weights decompressed (written, not read)."""

    forward_flops: int
    head_flops: int
    backward_flops: int
    forward_bytes: int
    head_bytes: int
    backward_bytes: int

    @property
    def flops(self) -> int:
        return self.forward_flops + self.head_flops + self.backward_flops

    @property
    def decompressed_bytes(self) -> int:
        return self.forward_bytes + self.head_bytes + self.backward_bytes

    @property
    def time_units(self) -> float:
        """Predicted time in FLOPs: what the step does, and its decompression at FLOPS_PER_DECOMPRESSED_BYTE."""
        return self.flops + FLOPS_PER_DECOMPRESSED_BYTE * self.decompressed_bytes


def step_cost(manifest: Manifest, subset: Subset, counted_labels: int | None = None) -> StepCost:
    """A training step. `counted_labels`: those that are not ignored, None for all T.

    Every layer runs forward; those of `propagate` from min(train) up run backward, which recomputes them; the others, identities, cost
    nothing. The head visits its V rows once, with two products for each counted label (lcsb_mobile.head).
    Raises OptionError when the subset is not of this model, or when more labels are counted than there are tokens.
    """
    layers = manifest.model.num_hidden_layers
    subset.check(layers)
    backward = [layer for layer in subset.propagate if layer >= subset.train[0]]
    block = block_bytes(manifest)
    return StepCost(
        forward_flops=layers * manifest.block_flops.forward,
        head_flops=2 * _head_product(manifest, counted_labels),
        backward_flops=len(backward) * manifest.block_flops.backward,
        forward_bytes=layers * block,
        head_bytes=head_parameters(manifest) * FLOAT,
        backward_bytes=len(backward) * block,
    )


def evaluation_cost(manifest: Manifest, counted_labels: int | None = None) -> StepCost:
    """The loss alone: every layer forward, and the head's one product for each counted label."""
    layers = manifest.model.num_hidden_layers
    return StepCost(
        forward_flops=layers * manifest.block_flops.forward,
        head_flops=_head_product(manifest, counted_labels),
        backward_flops=0,
        forward_bytes=layers * block_bytes(manifest),
        head_bytes=head_parameters(manifest) * FLOAT,
        backward_bytes=0,
    )


def full_subset(manifest: Manifest) -> Subset:
    """All layers: what a subset's cost is compared with."""
    everything = tuple(range(manifest.model.num_hidden_layers))
    return Subset(train=everything, propagate=everything)


def time_share(manifest: Manifest, subset: Subset) -> float:
    """Predicted time of a step relative to a full one, all labels counted in both."""
    return step_cost(manifest, subset).time_units / step_cost(manifest, full_subset(manifest)).time_units


def matrix_parameters(tensors: Sequence[WeightTensor]) -> int:
    """Elements of the quantised matrices among `tensors`, from their packing."""
    packed = [tensor for tensor in tensors if tensor.name.endswith(".packed")]
    return sum(tensor.nbytes * (2 if tensor.dtype == "uint8" else 1) for tensor in packed)


def block_bytes(manifest: Manifest) -> int:
    """Float bytes of one layer's seven matrices."""
    blocks = [tensor for tensor in manifest.weights if tensor.per_layer]
    return matrix_parameters(blocks) // manifest.model.num_hidden_layers * FLOAT


def head_parameters(manifest: Manifest) -> int:
    return manifest.model.vocab_size * manifest.model.hidden_size


def _head_product(manifest: Manifest, counted_labels: int | None) -> int:
    """FLOPs of the counted positions' product with the head: 2 C V D."""
    counted = manifest.seq_len if counted_labels is None else counted_labels
    if not 0 <= counted <= manifest.seq_len:
        raise OptionError(f"counted labels: expected 0 to {manifest.seq_len} (the bundle's tokens), found {counted}")
    return 2 * counted * head_parameters(manifest)
