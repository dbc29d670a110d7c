"""What a run's data come to: each number once, by the name of what it is the number of. Console, JSON and report show these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.config import Record
from lcsb_mobile.data.dataset import Dataset, chunks
from lcsb_mobile.data.packing import count_sequences


class RunNumbers(Record, frozen=True):
    """Examples and their tokens, as they are after the cut to the sequence's length; labels are those that count for a loss.

    `trained_…`: of the part that is trained on, all of which an epoch sees, in `epoch_sequences` (of the first epoch). `held_out_…`: of the
    part that is not, or of the file of evaluation data. `evaluated_…`: of what is evaluated of it, in so many sequences.
    """

    trained_examples: int
    trained_tokens: int
    epoch_sequences: int
    held_out_examples: int
    held_out_tokens: int
    evaluated_examples: int
    evaluated_tokens: int
    evaluated_labels: int
    evaluated_sequences: int


def run_numbers(trained: Dataset, held_out: Dataset, evaluated: Sequence[Batch], seq_len: int, seed: int) -> RunNumbers:
    segments = [_segments(batch) for batch in evaluated]
    return RunNumbers(
        trained_examples=len(trained),
        trained_tokens=_tokens(trained),
        epoch_sequences=count_sequences(trained, seq_len, seed),
        held_out_examples=len(held_out),
        held_out_tokens=_tokens(held_out),
        evaluated_examples=sum(examples for examples, _ in segments),
        evaluated_tokens=sum(tokens for _, tokens in segments),
        evaluated_labels=sum(batch.counted_labels for batch in evaluated),
        evaluated_sequences=len(evaluated),
    )


def _tokens(dataset: Dataset) -> int:
    return sum(int(chunk.sum(dtype=np.int64)) for chunk in chunks(dataset.lengths))


def _segments(batch: Batch) -> tuple[int, int]:
    """Examples of a sequence and their tokens. Each has a label that counts, and padding has none."""
    examples = np.unique(batch.segment_ids[batch.labels != IGNORED_LABEL])
    return len(examples), int(np.isin(batch.segment_ids, examples).sum())


def trained_line(numbers: RunNumbers) -> str:
    return f"{numbers.trained_examples:,} examples, {numbers.trained_tokens:,} tokens; {numbers.epoch_sequences:,} sequences an epoch"


def evaluated_line(numbers: RunNumbers) -> str:
    """Of how many it is, where not all that is held out is evaluated."""
    examples = f"{numbers.evaluated_examples:,}"
    if numbers.evaluated_examples != numbers.held_out_examples:
        examples += f" of the {numbers.held_out_examples:,}"
    return f"{examples} examples held out, {numbers.evaluated_tokens:,} tokens in {numbers.evaluated_sequences:,} sequences"
