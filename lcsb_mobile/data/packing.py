"""Examples to packed sequences: first fit over a few open sequences. Specification: docs/data.md; figures: benchmarks/packing.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.data.dataset import Dataset, chunks
from lcsb_mobile.data.records import Example
from lcsb_mobile.data.shuffling import UInt64Array, shuffled

OPEN_SEQUENCES = 16


def pack(dataset: Dataset, seq_len: int, pad_id: int) -> Iterator[Batch]:
    """Sequences of `seq_len` tokens with the examples in file order, as far as packing keeps it.

    Each example is a segment (numbered from 0, positions from 0); what is left of a sequence is padding, the last segment.
    Raises ValueError for an example that is longer than `seq_len`.
    """
    lengths = itertools.chain.from_iterable(chunk.tolist() for chunk in chunks(dataset.lengths))
    for indices in assign(enumerate(lengths), seq_len):
        yield _sequence([dataset.example(index) for index in indices], seq_len, pad_id)


def epochs(dataset: Dataset, seq_len: int, pad_id: int, seed: int, start: int = 0) -> Iterator[Batch]:
    """Packed sequences without end: every epoch holds each example once, in an order of its own, which depends on `seed` alone.

    `start` passes over that many sequences without building them: how many a run that resumes has had. Raises ValueError as `pack` does.
    """
    orders = (shuffled(len(dataset), seed, epoch) for epoch in itertools.count())
    sequences = itertools.chain.from_iterable(assign(_sizes(dataset, order), seq_len) for order in orders)
    for indices in itertools.islice(sequences, start, None):
        yield _sequence([dataset.example(index) for index in indices], seq_len, pad_id)


def alone(dataset: Dataset, index: int, seq_len: int, pad_id: int) -> Batch:
    """The example as a sequence of its own, and padding."""
    return _sequence([dataset.example(index)], seq_len, pad_id)


def assign(examples: Iterable[tuple[int, int]], seq_len: int, open_sequences: int = OPEN_SEQUENCES) -> Iterator[list[int]]:
    """Which examples make up each sequence, from their (index, tokens).

    An example goes to the first open sequence that has room, or opens one. When that makes more than `open_sequences`, the oldest is
    closed; at the end all are, the oldest first. With one it is next fit, with no bound first fit.
    """
    rooms: list[int] = []
    members: list[list[int]] = []
    for index, size in examples:
        for slot, room in enumerate(rooms):
            if size <= room:
                rooms[slot] = room - size
                members[slot].append(index)
                break
        else:
            if size > seq_len:
                raise ValueError(f"expected an example of at most {seq_len} tokens, found {size}")
            rooms.append(seq_len - size)
            members.append([index])
            if len(rooms) > open_sequences:
                del rooms[0]
                yield members.pop(0)
    yield from members


def count_sequences(dataset: Dataset, seq_len: int, seed: int, epoch: int = 0) -> int:
    """How many sequences an epoch has; none is built."""
    return sum(1 for _ in assign(_sizes(dataset, shuffled(len(dataset), seed, epoch)), seq_len))


def _sizes(dataset: Dataset, order: UInt64Array) -> Iterator[tuple[int, int]]:
    """(index, tokens) of the examples in `order`."""
    for chunk in chunks(order):
        yield from zip(chunk.tolist(), dataset.lengths[chunk].tolist())


def _sequence(examples: Sequence[Example], seq_len: int, pad_id: int) -> Batch:
    """One batch of `seq_len` tokens; the examples fit."""
    input_ids = np.full(seq_len, pad_id, np.int64)
    labels = np.full(seq_len, IGNORED_LABEL, np.int64)
    position_ids = np.empty(seq_len, np.int64)
    segment_ids = np.full(seq_len, len(examples), np.int64)
    start = 0
    for segment, example in enumerate(examples):
        end = start + len(example.input_ids)
        input_ids[start:end] = example.input_ids
        labels[start:end] = example.labels
        position_ids[start:end] = np.arange(end - start)
        segment_ids[start:end] = segment
        start = end
    position_ids[start:] = np.arange(seq_len - start)
    return Batch(input_ids, labels, position_ids, segment_ids)
