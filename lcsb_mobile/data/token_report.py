"""What a data file comes to under one tokenizer and sequence length: tokens, what is cut, how it packs; and a look at examples."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.config import Record
from lcsb_mobile.data.dataset import DataReport, Dataset, read_dataset
from lcsb_mobile.data.packing import count_sequences
from lcsb_mobile.data.records import Example
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.text.tokenizer import Tokenizer


class Run(Record, frozen=True):
    """Neighbouring tokens that all count for the loss, or none of them; as text."""

    text: str
    counted: bool


class TokenReport(Record, frozen=True):
    """What `lcsb data --json` prints. `sequences`, their `fill` (0 to 1) and `steps` are those of seed 0's first epoch, nothing held out.

    `seq_len_to_cut_1_percent`, `seq_len_to_cut_none`: the least that cut at most 1 % of the lines, and none. `preview`: the first examples.
    """

    file: str
    sha256: str
    seq_len: int
    data: DataReport
    sequences: int
    fill: float
    accumulation: int
    steps: int
    seq_len_to_cut_1_percent: int
    seq_len_to_cut_none: int
    preview: tuple[tuple[Run, ...], ...]


def report_tokens(
    path: Path,
    tokenizer: Tokenizer,
    seq_len: int,
    accumulation: int,
    preview: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokenReport:
    """Reads the file as a run would. `accumulation`: sequences a step; `preview`: how many examples to show; `progress` as `read_dataset`.

    Raises as `read_dataset` does, and OptionError.
    """
    check_ranges({"seq-len": seq_len, "accumulation": accumulation, "preview": preview}, "data")
    dataset = read_dataset(path, tokenizer, seq_len, progress)
    data = dataset.report
    sequences = count_sequences(dataset, seq_len, seed=0)
    return TokenReport(
        file=str(path),
        sha256=dataset.sha256,
        seq_len=seq_len,
        data=data,
        sequences=sequences,
        fill=data.tokens / (sequences * seq_len),
        accumulation=accumulation,
        steps=-(-sequences // accumulation),
        seq_len_to_cut_1_percent=data.length_p99,
        seq_len_to_cut_none=data.longest,
        preview=tuple(runs(example, tokenizer) for example in _first(dataset, preview)),
    )


def _first(dataset: Dataset, count: int) -> list[Example]:
    return [dataset.example(index) for index in range(min(count, len(dataset)))]


def runs(example: Example, tokenizer: Tokenizer) -> tuple[Run, ...]:
    """An example's text in runs. Decoded from its beginning each time: some tokenizers write a first token otherwise than a later one."""
    counted = np.concatenate([[False], example.labels[:-1] != IGNORED_LABEL])
    ids = example.input_ids.tolist()
    edges = [0, *(np.flatnonzero(np.diff(counted)) + 1).tolist(), len(ids)]
    texts = [tokenizer.decode(ids[:edge], special_tokens=True) for edge in edges]
    return tuple(
        Run(text[len(before) :], bool(counted[edge])) for edge, (before, text) in zip(edges, itertools.pairwise(texts), strict=False)
    )
