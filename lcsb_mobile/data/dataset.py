"""A data file as examples: read once, line by line, kept in mapped temporary files. Specification: docs/data.md.

So neither reading nor holding a file takes anonymous memory in proportion to it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.data.line_record import FORMS, is_blank
from lcsb_mobile.data.other_formats import other_format
from lcsb_mobile.data.records import Example, Form, Int32Array, LineExample, read_line
from lcsb_mobile.data.shuffling import CHUNK, UInt64Array, shuffled
from lcsb_mobile.data.spool import Spool
from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.io.bounded import one_line
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.text.tokenizer import Tokenizer

LINE_LIMIT = 1 << 20  # bytes of the longest line: tokenising one takes some 200 bytes of memory for each of its own
HELD_OUT_EPOCH = -1  # the order that chooses the examples to evaluate on, beside those of the epochs from 0
PROGRESS_BYTES = 1 << 18  # read between two reports of progress
MOST_KEYS = 20  # that were passed over and are counted by name; the others are counted together
OTHER_KEYS = "…"


@dataclass(frozen=True)
class DataReport:
    """What a data file came to. `tokens` and `counted_labels` are those of its `examples`, held-out ones too.

    `truncated` examples lost `tokens_cut` tokens to the sequence length; `without_labels` examples were dropped because
    nothing to learn was left of them. So lines = examples + without_labels = texts + completions + conversations.
    `uncounted_turns`: of the assistant, which are not learned from because the chat template rewrites them (docs/data.md).
    `doubled_ends`: lines that held a token of beginning or end, and got another by their form or the chat template.
    `duplicates`: lines that equal an earlier one. `blank_lines` are none of the lines. `further_keys`: in how many lines each key was that
    no form has; those of a turn as `messages[].name`, those beyond the first MOST_KEYS together as OTHER_KEYS. Lengths are tokens of all
    lines before they are cut, percentiles by nearest rank.
    """

    lines: int
    examples: int
    tokens: int
    counted_labels: int
    truncated: int
    tokens_cut: int
    without_labels: int
    texts: int
    completions: int
    conversations: int
    uncounted_turns: int
    doubled_ends: int
    duplicates: int
    blank_lines: int
    further_keys: dict[str, int]
    length_p50: int
    length_p90: int
    length_p99: int
    longest: int


def doubled_ends_line(count: int) -> str:
    return f"{count:,} lines hold a token of beginning or end and got another; leave them out of the texts"


def further_keys_line(keys: dict[str, int]) -> str:
    """Of the report's `further_keys`, printable."""
    return "keys that no form has: " + ", ".join(f"{one_line(repr(key))} in {count:,} lines" for key, count in keys.items())


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of a data file, or of a part of it, in its order. `report`, `sha256` and `tokens_sha256`, of what it was made into, are
    the whole file's.

    `lengths`: int32 [examples], tokens of each. An example of n tokens is n + 1 of the numbers `words`, from `starts` on: number t
    is token t times two, plus one where predicting it counts; the last is the token after the example, or 0 where none counts.
    """

    path: Path
    report: DataReport
    sha256: str
    tokens_sha256: str
    lengths: Int32Array
    starts: npt.NDArray[np.int64]
    words: Int32Array

    def __len__(self) -> int:
        return len(self.lengths)

    def example(self, index: int) -> Example:
        start, length = int(self.starts[index]), int(self.lengths[index])
        words = self.words[start : start + length + 1]
        return Example(words[:-1] >> 1, np.where(words[1:] & 1, words[1:] >> 1, np.int32(IGNORED_LABEL)))

    def part(self, indices: UInt64Array) -> Dataset:
        """The examples of `indices`, in their order."""
        lengths, starts = Spool(np.int32), Spool(np.int64)
        for chunk in chunks(indices):
            lengths.append(self.lengths[chunk])
            starts.append(self.starts[chunk])
        return replace(self, lengths=lengths.mapped(), starts=starts.mapped())


class DatasetWriter:
    """Takes examples one by one, then gives the dataset."""

    def __init__(self, seq_len: int) -> None:
        self._seq_len = seq_len
        self._lengths, self._starts, self._words = Spool(np.int32), Spool(np.int64), Spool(np.int32)
        self._line_hashes = Spool(np.uint64)
        self._digest = hashlib.sha256()  # of each example its length and its words, int32, little-endian
        self._counts: Counter[str] = Counter()  # fields of DataReport
        self._forms: Counter[Form] = Counter()
        self._all_lengths: Counter[int] = Counter()
        self._further_keys: Counter[str] = Counter()
        self._end = 0

    @property
    def lines(self) -> int:
        return self._counts["lines"]

    def pass_over_blank(self) -> None:
        self._counts["blank_lines"] += 1

    def add(self, line: LineExample, line_hash: int = 0) -> None:
        """`line_hash`: 64 bits, equal for equal lines."""
        length = len(line.example.input_ids)
        self._line_hashes.append([line_hash])
        self._forms[line.form] += 1
        self._all_lengths[length] += 1
        for key in line.further_keys:
            named = key in self._further_keys or len(self._further_keys) < MOST_KEYS
            self._further_keys[key if named else OTHER_KEYS] += 1
        counts = {"lines": 1, "uncounted_turns": line.uncounted_turns, "doubled_ends": int(line.doubled_ends)}
        if length > self._seq_len:
            counts |= {"truncated": 1, "tokens_cut": length - self._seq_len}
        example = line.example.cut(self._seq_len)
        if counted := example.counted_labels:
            counts |= {"examples": 1, "tokens": len(example.input_ids), "counted_labels": counted}
            self._write(example)
        self._counts.update(counts)

    def _write(self, example: Example) -> None:
        length = len(example.input_ids)
        words = np.zeros(length + 1, np.int32)
        words[:-1] = example.input_ids << 1
        counted = example.labels != IGNORED_LABEL
        words[1:][counted] = example.labels[counted] << 1 | 1
        self._digest.update(np.append(np.int32(length), words).astype("<i4").tobytes())
        self._words.append(words)
        self._lengths.append([length])
        self._starts.append([self._end])
        self._end += length + 1

    def dataset(self, path: Path, sha256: str) -> Dataset:
        """Raises DataError when there is no example."""
        if not self.lines:
            raise DataError(f"{path}: the file is empty; expected one JSON object a line: {FORMS}")
        if not self._end:
            raise DataError(
                f"{path}: nothing to train on: none of the {self.lines} lines has a counted label within {self._seq_len} tokens; "
                "use longer texts or a larger sequence length"
            )
        arrays = self._lengths.mapped(), self._starts.mapped(), self._words.mapped()
        return Dataset(path, self._report(), sha256, self._digest.hexdigest(), *arrays)

    def _report(self) -> DataReport:
        fields = (
            "lines",
            "examples",
            "tokens",
            "counted_labels",
            "truncated",
            "tokens_cut",
            "uncounted_turns",
            "doubled_ends",
            "blank_lines",
        )
        counts = {name: self._counts[name] for name in fields}
        p50, p90, p99, longest = _percentiles(self._all_lengths, (50, 90, 99, 100))
        return DataReport(
            **counts,
            without_labels=counts["lines"] - counts["examples"],
            texts=self._forms["text"],
            completions=self._forms["completion"],
            conversations=self._forms["messages"],
            duplicates=_duplicates(self._line_hashes.mapped(writable=True)),
            further_keys=dict(self._further_keys),
            length_p50=p50,
            length_p90=p90,
            length_p99=p99,
            longest=longest,
        )


def read_dataset(
    path: Path, tokenizer: Tokenizer, seq_len: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Dataset:
    """Reads one example a line that is not blank, each cut to `seq_len` tokens. `progress(done, total)` counts bytes.

    Raises DataError "FILE:LINE: reason" for the first malformed line, with the command that makes JSON lines of a file that is of another
    format, and when nothing to train on is left; TokenizerError likewise when a token is outside the model's vocabulary or a conversation
    meets a tokenizer without a chat template; StorageError.
    """
    writer, digest = DatasetWriter(seq_len), hashlib.sha256()
    done = reported = 0
    for number, raw, size in _lines(path):
        digest.update(raw)
        try:
            _take(raw, writer, tokenizer)
        except (DataError, TokenizerError) as error:
            other = None if writer.lines else other_format(raw, str(path))
            raise type(error)(f"{path}:{number}: {other or error}") from error
        done += len(raw)
        if done - reported >= PROGRESS_BYTES:
            progress(done, max(done, size))
            reported = done
    return writer.dataset(path, digest.hexdigest())


def _take(raw: bytes, writer: DatasetWriter, tokenizer: Tokenizer) -> None:
    """One line, of which no more than LINE_LIMIT + 1 bytes were read."""
    if len(raw) > LINE_LIMIT:
        raise DataError(f"a line of more than {LINE_LIMIT} bytes; give it in parts, one JSON object a line: {FORMS}")
    if is_blank(raw):
        writer.pass_over_blank()
    else:
        writer.add(read_line(raw, tokenizer), _line_hash(raw))


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """(to train on, to evaluate on): `share` of the examples is held out, chosen by `seed`, at least one of each; both in file order.

    Raises OptionError unless 0 < share < 1, DataError when there are fewer than two examples.
    """
    check_ranges({"hold-out": share})
    if (count := len(dataset)) < 2:
        raise DataError(f"{dataset.path}: has one example; expected at least two, or evaluation data of its own (--eval-data)")
    held_out = min(max(math.floor(share * count + 0.5), 1), count - 1)
    order = shuffled(count, seed, HELD_OUT_EPOCH)
    evaluation, training = order[:held_out], order[held_out:]
    training.sort()
    evaluation.sort()
    return dataset.part(training), dataset.part(evaluation)


def chunks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """An array in parts of CHUNK elements: what is made of a part is as large in memory as a part."""
    return (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))


def _lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """The lines with their numbers from 1, read as they are needed, and the file's size in bytes. Of a line too long its beginning."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            number = 0
            while raw := file.readline(LINE_LIMIT + 1):
                number += 1
                yield number, raw, size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _line_hash(raw: bytes) -> int:
    """Of the line without its end."""
    return int.from_bytes(hashlib.sha256(raw.rstrip(b"\r\n")).digest()[:8], "big")


def _duplicates(hashes: UInt64Array) -> int:
    """How many of the numbers equal another one that counts as the first. Sorts them where they are."""
    hashes.sort()
    return sum(int(np.count_nonzero(chunk == chunk_before)) for chunk_before, chunk in zip(chunks(hashes[:-1]), chunks(hashes[1:])))


def _percentiles(counts: Counter[int], percents: tuple[int, ...]) -> Iterator[int]:
    """For each percentage the smallest number that at least so many percent of the counted numbers do not exceed."""
    numbers = np.array(sorted(counts))
    below = np.cumsum([counts[number] for number in numbers.tolist()])
    return (int(numbers[np.searchsorted(below, -(-percent * below[-1] // 100))]) for percent in percents)
