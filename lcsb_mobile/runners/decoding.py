"""Generation without a cache: for runners whose programs have none, each token is a forward pass of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch

NextLogits = Callable[[Batch, int], Float32Array]  # (batch, position) -> logits of the token after it


class WholeSequenceDecoder:
    """A Decoder on `next_logits`; what is not yet written is padding in a segment of its own."""

    def __init__(self, next_logits: NextLogits, seq_len: int) -> None:
        self._next_logits, self._seq_len = next_logits, seq_len
        self._ids: list[int] = []

    def start(self, ids: Sequence[int]) -> Float32Array:
        self._ids = list(ids)
        return self._next_logits(whole_sequence(self._ids, self._seq_len), len(self._ids) - 1)

    def extend(self, token: int) -> Float32Array:
        return self.start([*self._ids, token])


def whole_sequence(ids: Sequence[int], seq_len: int) -> Batch:
    """1 to `seq_len` tokens and padding, nothing to predict."""
    used, rest = len(ids), seq_len - len(ids)
    return Batch(
        input_ids=np.array([*ids, *[0] * rest], np.int64),
        labels=np.full(seq_len, IGNORED_LABEL, np.int64),
        position_ids=np.concatenate([np.arange(used), np.arange(rest)]),
        segment_ids=np.repeat(np.array([0, 1], np.int64), [used, rest]),
    )
