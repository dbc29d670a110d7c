"""What a step costs, from the manifest alone: floating-point operations, bytes decompressed, time by proportion.

Nothing is run. FLOPs are those of the matrix products, 2 m k n each; the embedding (a gather), the norms, the softmax and the
optimizer (some 15 operations an adapter element) are left out: together under 1 % at any shape of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lcsb_mobile.bundle.layers import Kind
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import SCALE, WeightTensor
from lcsb_mobile.config import INT8_ACTIVATIONS, Record
from lcsb_mobile.errors import OptionError

FLOAT = 4  # bytes of a float32

# Attention's products [T, d] x [d, T] and [T, T] x [T, d] a head in the graphs of a block: all that does not grow in proportion with T.
# A backward repeats the forward's two, whether its inputs were kept or recomputed, and each has two gradients.
FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 6

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


def backward_layers(manifest: Manifest, subset: Subset, keep: int = 0) -> tuple[list[int], list[int]]:
    """The layers that run backward: those that recompute, and those among the `keep` top ones, which need not.

    Raises OptionError when the subset is not of this model.
    """
    layers = manifest.model.num_hidden_layers
    subset.check(layers)
    backward = [layer for layer in subset.propagate if layer >= subset.train[0]]
    first_kept = layers - min(keep, layers)
    return [layer for layer in backward if layer < first_kept], [layer for layer in backward if layer >= first_kept]


def step_cost(manifest: Manifest, subset: Subset, counted_labels: int | None = None, keep: int = 0, seq_len: int | None = None) -> StepCost:
    """A training step. `counted_labels`: those that are not ignored, None for all T. `keep`: that many of the top layers keep their
    activations. `seq_len`: T, None for the bundle's.

    Every layer runs forward; those of `propagate` from min(train) up run backward, which recomputes them unless they were kept; the
    others, identities, cost nothing. A forward on int8 activations reads the packed weights as they are. The head visits its V rows
    once, with two products for each counted label (`export/graphs/head.py`).
    Raises OptionError when the subset is not of this model, or when more labels are counted than there are tokens.
    """
    recomputed, kept = backward_layers(manifest, subset, keep)
    tokens, kinds = _tokens(manifest, seq_len), manifest.kinds_of_layers()

    def flops(layers: Iterable[int], program: str, products: int) -> int:
        return sum(_at_length(manifest, kinds[layer], getattr(kinds[layer].flops, program), products, tokens) for layer in layers)

    def decompressed(layers: Iterable[int], program: str) -> int:
        return sum(getattr(kinds[layer].decompressed_bytes, program) for layer in layers)

    return StepCost(
        forward_flops=flops(range(len(kinds)), "forward", FORWARD_PRODUCTS),
        head_flops=2 * _head_product(manifest, counted_labels, tokens),
        backward_flops=flops(recomputed, "backward", BACKWARD_PRODUCTS) + flops(kept, "backward_kept", BACKWARD_PRODUCTS),
        forward_bytes=decompressed(kept if manifest.accuracy_level == INT8_ACTIVATIONS else range(len(kinds)), "forward"),
        head_bytes=head_parameters(manifest) * FLOAT,
        backward_bytes=decompressed(recomputed, "backward") + decompressed(kept, "backward_kept"),
    )


def evaluation_cost(manifest: Manifest, counted_labels: int | None = None) -> StepCost:
    """The loss alone: every layer forward, and the head's one product for each counted label."""
    kinds = manifest.kinds_of_layers()
    return StepCost(
        forward_flops=sum(kind.flops.forward for kind in kinds),
        head_flops=_head_product(manifest, counted_labels, manifest.seq_len),
        backward_flops=0,
        forward_bytes=0 if manifest.accuracy_level == INT8_ACTIVATIONS else sum(kind.decompressed_bytes.forward for kind in kinds),
        head_bytes=head_parameters(manifest) * FLOAT,
        backward_bytes=0,
    )


def full_subset(manifest: Manifest) -> Subset:
    """All layers: what a subset's cost is compared with."""
    everything = tuple(range(manifest.model.num_hidden_layers))
    return Subset(train=everything, propagate=everything)


def time_share(manifest: Manifest, subset: Subset, keep: int = 0) -> float:
    """Predicted time of a step relative to a full one that keeps nothing, all labels counted in both.

    It leaves out what is no product (softmax, norms, fresh pages for temporaries), of which the backward has most, so it promises a
    partial step too little: SmolLM2-135M, T = 256, onnxruntime-training, top 8, 15 and 23 layers of 30: predicted 0.61, 0.74
    and 0.88; measured about 0.48, 0.65 and 0.83 (two cycles on a machine shared with others).
    """
    return step_cost(manifest, subset, keep=keep).time_units / step_cost(manifest, full_subset(manifest)).time_units


def matrix_parameters(tensors: Sequence[WeightTensor], group_size: int) -> int:
    """Elements of the quantised matrices among `tensors`, from their scales, one a group."""
    return sum(math.prod(tensor.shape) * group_size for tensor in tensors if tensor.name.endswith(SCALE))


def block_bytes(manifest: Manifest) -> int:
    """Float bytes of one layer's matrices, in a model of one kind."""
    blocks = [tensor for tensor in manifest.weights if tensor.per_layer]
    return matrix_parameters(blocks, manifest.quantization.group_size) // len(manifest.layers) * FLOAT


def head_parameters(manifest: Manifest) -> int:
    return manifest.model.vocab_size * manifest.model.hidden_size


def _tokens(manifest: Manifest, seq_len: int | None) -> int:
    tokens = manifest.seq_len if seq_len is None else seq_len
    if tokens < 1:
        raise OptionError(f"seq-len: expected at least 1, found {tokens}")
    return tokens


def _at_length(manifest: Manifest, kind: Kind, flops: int, products: int, tokens: int) -> int:
    """A layer's FLOPs, counted with the bundle's T, for another T: attention's `products` grow with its square, the rest with T."""
    attention = 2 * products * kind.attention_width
    return flops * tokens // manifest.seq_len + attention * tokens * (tokens - manifest.seq_len)


def _head_product(manifest: Manifest, counted_labels: int | None, tokens: int) -> int:
    """FLOPs of the counted positions' product with the head: 2 C V D."""
    counted = tokens if counted_labels is None else counted_labels
    if not 0 <= counted <= tokens:
        raise OptionError(f"counted labels: expected 0 to {tokens} (the tokens of a sequence), found {counted}")
    return 2 * counted * head_parameters(manifest)
