"""A file as a dataset: what is kept of each line, what is counted, what is refused, what is held out, and what it takes in memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundles import python
from helpers.data import CHAT, byte_backend, dataset_of, example, lists, make_tokenizer, write
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.data import dataset as dataset_module
from lcsb_mobile.data.dataset import Dataset, _percentiles, chunks, hold_out, read_dataset
from lcsb_mobile.data.records import Example
from lcsb_mobile.errors import DataError, OptionError, TokenizerError
from lcsb_mobile.text.tokenizer import Tokenizer

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[1] / "golden" / "data_pipeline.json").read_text())


@pytest.fixture
def tokenizer() -> Tokenizer:
    return make_tokenizer(byte_backend())


@st.composite
def whole_examples(draw: st.DrawFn) -> Example:
    """Any tokens, any of them counted."""
    ids = draw(st.lists(st.integers(0, 2**30 - 1), max_size=12))
    counted = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    labels = [token if count else IGNORED_LABEL for token, count in zip(ids[1:], counted[1:], strict=False)]
    return example(ids, [*labels, IGNORED_LABEL] if ids else [])


@given(st.lists(whole_examples(), min_size=1, max_size=12), st.integers(1, 10))
def test_gives_back_what_was_written(wholes: list[Example], seq_len: int) -> None:
    expected = [lists(whole.cut(seq_len)) for whole in wholes]
    expected = [(ids, labels) for ids, labels in expected if any(label != IGNORED_LABEL for label in labels)]
    if not expected:
        with pytest.raises(DataError, match=f"none of the {len(wholes)} lines has a counted label within {seq_len} tokens"):
            dataset_of(wholes, seq_len)
        return
    dataset = dataset_of(wholes, seq_len)
    assert [lists(dataset.example(index)) for index in range(len(dataset))] == expected
    assert dataset.lengths.dtype == np.int32 and dataset.lengths.tolist() == [len(ids) for ids, _ in expected]
    report = dataset.report
    assert (report.lines, report.examples, report.without_labels) == (len(wholes), len(expected), len(wholes) - len(expected))
    assert (report.tokens, report.counted_labels) == (
        sum(len(ids) for ids, _ in expected),
        sum(label != IGNORED_LABEL for _, labels in expected for label in labels),
    )
    excess = [len(whole.input_ids) - seq_len for whole in wholes if len(whole.input_ids) > seq_len]
    assert (report.truncated, report.tokens_cut) == (len(excess), sum(excess))
    assert report.longest == max(len(whole.input_ids) for whole in wholes)


def test_reads_a_file_line_by_line(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(
        tmp_path, {"text": "ab"}, {"text": "abcdefgh"}, {"prompt": "abcdefgh", "completion": "x"}, {"text": "ab"}, {"messages": CHAT}
    )
    dataset = read_dataset(path, tokenizer, 4)
    assert [lists(dataset.example(index)) for index in range(3)] == [
        ([*tokenizer.encode("ab"), 256], [*tokenizer.encode("b"), 256, IGNORED_LABEL]),
        (tokenizer.encode("abcd"), tokenizer.encode("bcde")),  # the token after the cut is known
        ([*tokenizer.encode("ab"), 256], [*tokenizer.encode("b"), 256, IGNORED_LABEL]),
    ]
    report = dataset.report
    assert (report.lines, report.examples, report.without_labels) == (5, 3, 2)
    assert (report.texts, report.completions, report.conversations) == (3, 1, 1)
    assert (report.truncated, report.tokens_cut) == (3, 5 + 6 + report.longest - 4)
    assert (report.length_p50, report.duplicates, report.uncounted_turns) == (9, 1, 0)
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def read_pipe(tmp_path: Path, tokenizer: Tokenizer, content: bytes, progress: Callable[[int, int], None]) -> Dataset:
    """As a shell gives a file for `<(command)`: nobody knows its size."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    try:
        return read_dataset(pipe, tokenizer, 10, progress)
    finally:
        writer.join()


def test_windows_files_and_pipes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A byte order mark, and a last line without an end."""
    content = b'\xef\xbb\xbf{"text": "ab"}\r\n{"text": "cd"}'
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    of_file, of_pipe = read_dataset(path, tokenizer, 10), read_pipe(tmp_path, tokenizer, content, lambda done, total: None)
    assert len(of_file) == 2
    assert (of_pipe.report, of_pipe.sha256) == (of_file.report, of_file.sha256)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_are_the_nearest_rank(numbers: list[int], percent: int) -> None:
    (found,) = _percentiles(dataset_module.Counter(numbers), (percent,))
    assert found == sorted(numbers)[math.ceil(len(numbers) * percent / 100) - 1]


def test_duplicates(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path, *({"text": text} for text in ("ab", "cd", "ab", "ab", "ef", "cd")), b'{"text": "gh"}\r', b'{"text": "gh"}')
    assert read_dataset(path, tokenizer, 10).report.duplicates == 4


def test_the_first_malformed_line_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path, {"text": "a"}, {"text": 1}, {"text": 2})
    with pytest.raises(DataError, match=r"data.jsonl:2: text: expected a string, found a number") as caught:
        read_dataset(path, tokenizer, 10)
    assert str(caught.value).startswith(f"{path}:2: ")
    with pytest.raises(TokenizerError, match=r"data.jsonl:1: token 258 .* vocabulary of 258"):
        read_dataset(write(tmp_path, {"text": "a<|im_end|>"}), make_tokenizer(byte_backend(), vocab_size=258), 10)
    with pytest.raises(TokenizerError, match=r"data.jsonl:1: the tokenizer has no chat template"):
        read_dataset(write(tmp_path, {"messages": CHAT}), make_tokenizer(byte_backend(), None), 10)


def test_files_without_anything_to_train_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="the file is empty"):
        read_dataset(write(tmp_path), tokenizer, 10)
    with pytest.raises(DataError, match="none of the 1 lines has a counted label within 2 tokens"):
        read_dataset(write(tmp_path, {"prompt": "ab" * 9, "completion": "c"}), tokenizer, 2)
    with pytest.raises(DataError, match="No such file"):
        read_dataset(tmp_path / "nope", tokenizer, 10)
    with pytest.raises(DataError, match="Is a directory"):
        read_dataset(tmp_path, tokenizer, 10)


def test_a_line_without_end_is_not_read_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="/dev/zero:1: a line of more than 1048576 bytes; give it in parts"):
        read_dataset(Path("/dev/zero"), tokenizer, 10)
    longest = b'{"text": "ab"' + b" " * ((1 << 20) - 15) + b"}"
    assert len(read_dataset(write(tmp_path, {"text": "a"}, longest), tokenizer, 10)) == 2
    with pytest.raises(DataError, match=r"data.jsonl:2: a line of more than"):
        read_dataset(write(tmp_path, {"text": "a"}, longest + b" "), tokenizer, 10)


def test_progress_counts_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path, *[{"text": "ab" * 50_000}] * 6)
    calls: list[tuple[int, int]] = []
    read_dataset(path, tokenizer, 10, lambda done, total: calls.append((done, total)))
    size = path.stat().st_size
    assert calls == [(size // 2, size), (size, size)]
    calls.clear()
    read_pipe(tmp_path, tokenizer, path.read_bytes(), lambda done, total: calls.append((done, total)))
    assert calls == [(size // 2, size // 2), (size, size)]


@given(st.integers(2, 40), st.floats(0.001, 0.999), st.integers(-(2**64), 2**64))
def test_hold_out_parts_the_examples(count: int, share: float, seed: int) -> None:
    whole = dataset_of(example([index, index + 1], [index + 1, IGNORED_LABEL]) for index in range(count))
    training, evaluation = ([lists(part.example(i)) for i in range(len(part))] for part in hold_out(whole, share, seed))
    assert sorted(training + evaluation) == [lists(whole.example(i)) for i in range(count)]
    assert training == sorted(training) and evaluation == sorted(evaluation)  # in file order
    assert len(evaluation) == min(max(math.floor(share * count + 0.5), 1), count - 1)


@pytest.mark.parametrize("case", VECTORS["held_out"], ids=lambda case: f"{case['count']} {case['share']}")
def test_hold_out_vectors(case: dict[str, Any]) -> None:
    whole = dataset_of(example([index, 0], [0, IGNORED_LABEL]) for index in range(case["count"]))
    _, evaluation = hold_out(whole, case["share"], case["seed"])
    assert [int(evaluation.example(i).input_ids[0]) for i in range(len(evaluation))] == case["held_out"]


def test_hold_out_refuses() -> None:
    one = dataset_of([example([1, 2], [2, IGNORED_LABEL])])
    with pytest.raises(DataError, match="examples: has one example; expected at least two"):
        hold_out(one, 0.1, 0)
    for share in (0.0, 1.0, -0.1, math.nan, math.inf):
        with pytest.raises(OptionError, match="hold-out: expected more than 0 and less than 1"):
            hold_out(one, share, 0)


def test_parts_keep_the_whole_files_report_and_share_its_tokens() -> None:
    whole = dataset_of(example([index, 0], [0, IGNORED_LABEL]) for index in range(9))
    training, evaluation = hold_out(whole, 0.3, 0)
    for part in (training, evaluation, *hold_out(training, 0.5, 1)):
        assert part.report == whole.report and part.sha256 == whole.sha256 and part.words is whole.words


def test_chunks_lose_and_double_nothing(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "CHUNK", 3)
    for count in (1, 2, 3, 4, 6, 7):
        assert [number for chunk in chunks(np.arange(count)) for number in chunk] == list(range(count))
    texts = [f"{number % 8:02}" for number in range(11)]
    whole = read_dataset(write(tmp_path, *({"text": text} for text in texts)), tokenizer, 10)
    assert whole.report.duplicates == 3
    parts = hold_out(whole, 0.4, 0)
    examples = [lists(part.example(index)) for part in parts for index in range(len(part))]
    assert sorted(examples) == sorted(lists(whole.example(index)) for index in range(11))


def test_memory_does_not_grow_with_the_data() -> None:
    """60,000 examples of 200 tokens: 48 MB of tokens and some 3 MB beside them, all in mapped files, split and put in order."""
    program = """
import itertools
import numpy as np
from pathlib import Path
from lcsb_mobile.data.dataset import DatasetWriter, hold_out
from lcsb_mobile.measuring.memory import MemorySampler, process_memory
from lcsb_mobile.data.packing import epochs
from lcsb_mobile.data.records import Example, LineExample

def run(count):
    writer = DatasetWriter(256)
    line = LineExample(Example(np.arange(200, dtype=np.int32), np.arange(1, 201, dtype=np.int32)), "text")
    for number in range(count):
        writer.add(line, number)
    training, evaluation = hold_out(writer.dataset(Path("data"), ""), 0.1, 0)
    return sum(1 for _ in itertools.islice(epochs(training, 256, 0, 0), 100))

run(1000)
with MemorySampler(interval=0.002) as sampler:
    before = sampler.sample()
    run(60_000)
    sampler.sample()
    print((sampler.peak_anonymous or 0) - before)
"""
    done = python(program)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 << 19
