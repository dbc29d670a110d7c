"""What a step costs, from the manifest alone: floating-point operations, bytes decompressed, time by proportion, memory.

Nothing is run. FLOPs are those of the matrix products, 2 m k n each; the embedding (a gather), the norms, the softmax and the
optimizer (some 15 operations an adapter element) are left out: together under 1 % at any shape of interest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lcsb_mobile.config import Record
from lcsb_mobile.errors import MemoryBudgetError, OptionError
from lcsb_mobile.manifest import Manifest
from lcsb_mobile.run_record import MEGABYTE, megabytes
from lcsb_mobile.schedule import Subset
from lcsb_mobile.weights import WeightTensor, head_rows

FLOAT = 4  # bytes of a float32


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
    """Predicted time of a step relative to a full one, all labels counted in both.

    It leaves out what is no product (softmax, norms, fresh pages for temporaries), of which the backward has most, so it promises a
    partial step too little: SmolLM2-135M, T = 256, onnxruntime-training, top 8, 15 and 23 layers of 30: predicted 0.61, 0.74
    and 0.88; measured about 0.48, 0.65 and 0.83 (two cycles on a machine shared with others).
    """
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


# The memory model -------------------------------------------------------------------------------------------------------------

MEMORY_TARGET = "onnxruntime-training"  # the target whose peak is modelled
SESSION_BYTES = 10 * MEGABYTE  # training and evaluation session: parsed graphs, kernels, the loops' plans
WIDE_ACTIVATIONS = 8  # float32 [T, intermediate_size] alive at once in a block's backward: the gated MLP, forward and backward
NARROW_ACTIVATIONS = 12  # float32 [T, hidden_size]
SCORES = 4  # float32 [heads, T, T]: scores, weights, and their gradients
LOGITS = 3  # float32 [T, head_rows]: logits, exponentials, and one between
CHUNK_COPIES = 2.5  # of a head chunk in float32: itself, the groups before their reshape, the packed slice
GRADIENT_COPIES = 3  # of [L, n] at once: the loop's parts and their stack, concatenated, reordered, copied out
# Freed memory that glibc's allocator keeps, and holes between blocks. Fitted, not derived: see `predicted_peak`.
HEAP_SLACK_LIMIT = 32 * MEGABYTE
HEAP_SLACK_SHARE = 2.8  # of the step's working set and saved inputs, where that is less


def peak_terms(manifest: Manifest) -> dict[str, int]:
    """Anonymous bytes of a run beyond its base, by what holds them, at the moment of the peak."""
    if manifest.target != MEMORY_TARGET:
        raise OptionError(f"a predicted peak is known of target {MEMORY_TARGET}, found {manifest.target}")
    adapter = manifest.adapter.num_layers * manifest.adapter.size * FLOAT
    saved = manifest.model.num_hidden_layers * _activations(manifest, manifest.model.hidden_size)
    phases = {
        "end of the forward": saved,  # a second time: a Loop's scan output is stacked from its parts
        "head": _head_set(manifest),
        "backward": _backward_set(manifest) + GRADIENT_COPIES * adapter,
    }
    working_set = max(phases.values())
    return {
        "sessions": SESSION_BYTES,
        "adapter and moments (numpy)": 3 * adapter,
        "adapter and gradient (runtime)": 2 * adapter,
        "saved layer inputs": saved,
        "working set": working_set,
        "kept by the allocator": min(HEAP_SLACK_LIMIT, round(HEAP_SLACK_SHARE * (working_set + saved))),
    }


def _activations(manifest: Manifest, width: int) -> int:
    """Bytes of float32 [T, width]."""
    return manifest.seq_len * width * FLOAT


def _backward_set(manifest: Manifest) -> int:
    """What one block's backward holds: its seven matrices in float (recomputation and gradient share one decompression each),
    the layer's packed weights, which a loop gathers from their stack, and activations."""
    model = manifest.model
    packed = sum(tensor.nbytes for tensor in manifest.weights if tensor.per_layer) // model.num_hidden_layers
    return (
        block_bytes(manifest)
        + packed
        + WIDE_ACTIVATIONS * _activations(manifest, model.intermediate_size)
        + NARROW_ACTIVATIONS * _activations(manifest, model.hidden_size)
        + SCORES * _activations(manifest, model.num_attention_heads * manifest.seq_len)
    )


def _head_set(manifest: Manifest) -> int:
    """What one chunk of the head holds, and its carried results."""
    model = manifest.model
    rows = min(head_rows(model.hidden_size), model.vocab_size)
    chunk = round(CHUNK_COPIES * rows * model.hidden_size * FLOAT)
    return chunk + LOGITS * _activations(manifest, rows) + 4 * _activations(manifest, model.hidden_size)


def predicted_peak(manifest: Manifest, base: int) -> int:
    """Peak anonymous bytes of training on the target onnxruntime-training. `base`: those of the process once the runtime is imported.

    An estimate for a process on glibc, meant to err upwards. The allocator's share was fitted to runs of six steps on four shapes
    (SmolLM2-135M with 64 tokens, with 15 layers and 128 tokens at rank 4; Gemma-3-270M and Qwen2.5-0.5B with 256), whose totals
    it meets within 0 and +5 %; benchmarks/memory_model.py compares others. Raises OptionError for another target.
    """
    return base + sum(peak_terms(manifest).values())


def check_budget(manifest: Manifest, base: int, budget: int | None) -> int:
    """The predicted peak, bytes. Raises MemoryBudgetError when it exceeds `budget` (None: no limit)."""
    least = predicted_peak(manifest, base)
    if budget is not None and least > budget:
        raise MemoryBudgetError(
            f"the run is predicted to reach {megabytes(least)} of anonymous memory, {megabytes(base)} of it this process as it is now; "
            f"more than the {megabytes(budget)} allowed; nothing was run; allow more, or export with a --seq-len shorter than "
            f"{manifest.seq_len} or a --rank below {manifest.adapter.lora.rank}"
        )
    return least


UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of "512MB" (10^6), "512MiB" (2^20), "2GB", "1.5GiB", "64kB" or plain "512000000". Raises OptionError."""
    match = SIZE.fullmatch(text)
    unit = UNITS.get(match[2].lower()) if match else None
    count = math.floor(float(match[1]) * unit) if match and unit else 0
    if count < 1:
        raise OptionError(f"expected a size such as 512MB, 512MiB, 2GB, 2GiB or a number of bytes, found {text!r}")
    return count
