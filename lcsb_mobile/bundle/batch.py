"""What a step reads, what it returns, and the interface that every runtime implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lcsb_mobile.arrays import Float32Array, Int64Array
from lcsb_mobile.bundle.schedule import Subset

IGNORED_LABEL = -100  # a label that is not counted and costs nothing; PyTorch's `ignore_index`


@dataclass(frozen=True)
class Batch:
    """One sequence of T tokens, several packed examples in it. All arrays are int64[T].

    `labels[t]` is the token to be predicted *at* position t (already shifted), or IGNORED_LABEL. `segment_ids` tells the
    packed examples apart: attention stays within a segment. `position_ids` start from 0 in each segment. Padding has a
    segment of its own and ignored labels.
    """

    input_ids: Int64Array
    labels: Int64Array
    position_ids: Int64Array
    segment_ids: Int64Array

    @property
    def counted_labels(self) -> int:
        return int(np.count_nonzero(self.labels != IGNORED_LABEL))


@dataclass(frozen=True)
class StepResult:
    """`loss`: mean over the counted labels. `gradients`: layer -> float32 [n] of its adapter, for the trained layers only; they may be
    views of the runtime's own buffer, which its next step overwrites; whoever asked for the step may change them."""

    loss: float
    gradients: Mapping[int, Float32Array]


class Decoder(Protocol):
    """Writes one sequence token by token. Logits are float32 [vocab_size], of the token after those given."""

    def start(self, ids: Sequence[int]) -> Float32Array:
        """Begins a sequence with 1 to T tokens."""
        ...

    def extend(self, token: int) -> Float32Array:
        """Appends a token; the sequence must have room for it."""
        ...


class StepRunner(Protocol):
    """A runtime that computes steps of one bundle. `adapter` is float32[N] (`AdapterLayout`) and is never written to."""

    name: str
    version: str

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult: ...

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        """Mean loss over the batch's counted labels."""
        ...

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        """Logits float32[vocab_size] of the token after `position`."""
        ...

    def decoder(self, adapter: Float32Array) -> Decoder:
        """For one sequence of tokens; the adapter must not change meanwhile."""
        ...
