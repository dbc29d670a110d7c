"""The laws of packing: against a slow first fit, and against the vectors that the ports read."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import dataset_of, example, fill, lists
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.data.dataset import Dataset
from lcsb_mobile.data.packing import OPEN_SEQUENCES, assign, epochs, pack
from lcsb_mobile.data.records import Example

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "tests" / "golden" / "data_pipeline.json").read_text()
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(TEXT)
PAD = 7
SEQ_LEN = 12

EXAMPLES = st.lists(
    st.lists(st.integers(0, 50), min_size=2, max_size=SEQ_LEN).flatmap(
        lambda ids: st.integers(0, len(ids) - 2).map(
            lambda first: example(ids, [IGNORED_LABEL] * first + ids[first + 1 :] + [IGNORED_LABEL]),
        )
    ),
    min_size=1,
    max_size=20,
)
Frozen = tuple[tuple[int, ...], tuple[int, ...]]


def frozen(example: Example) -> Frozen:
    ids, labels = lists(example)
    return tuple(ids), tuple(labels)


def unpack(batch: Batch) -> list[Example]:
    """The examples of one batch, by its segments; checks the batch's own laws on the way."""
    arrays = (batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids)
    assert all(array.shape == (SEQ_LEN,) and array.dtype == np.int64 for array in arrays)
    assert batch.counted_labels > 0
    changes = np.diff(batch.segment_ids)
    assert batch.segment_ids[0] == 0 and set(changes.tolist()) <= {0, 1}  # contiguous, numbered from 0
    examples = []
    for segment in range(int(batch.segment_ids[-1]) + 1):
        mask = batch.segment_ids == segment
        assert batch.position_ids[mask].tolist() == list(range(mask.sum()))
        examples.append(example(batch.input_ids[mask].tolist(), batch.labels[mask].tolist()))
    if not examples[-1].counted_labels:
        assert set(examples.pop().input_ids.tolist()) == {PAD}
    return examples


def first_fit(sizes: list[int], seq_len: int, bound: int) -> list[list[int]]:
    """As it is said: every example looks at every sequence that is open."""
    closed: list[list[int]] = []
    sequences: list[list[int]] = []
    for index, size in enumerate(sizes):
        fitting = [sequence for sequence in sequences if sum(sizes[i] for i in sequence) + size <= seq_len]
        if fitting:
            fitting[0].append(index)
        else:
            sequences.append([index])
        if len(sequences) > bound:
            closed.append(sequences.pop(0))
    return closed + sequences


@given(st.lists(st.integers(1, SEQ_LEN), max_size=40), st.integers(1, 6))
def test_assign_is_first_fit_over_open_sequences(sizes: list[int], bound: int) -> None:
    assert list(assign(enumerate(sizes), SEQ_LEN, bound)) == first_fit(sizes, SEQ_LEN, bound)


@given(st.lists(st.integers(1, SEQ_LEN), max_size=40))
def test_one_open_sequence_is_next_fit(sizes: list[int]) -> None:
    sequences = list(assign(enumerate(sizes), SEQ_LEN, 1))
    assert list(itertools.chain(*sequences)) == list(range(len(sizes)))
    for one, following in itertools.pairwise(sequences):
        assert sum(sizes[i] for i in one) + sizes[following[0]] > SEQ_LEN


def test_sequences_come_as_soon_as_they_are_closed() -> None:
    """What is read ahead of a sequence is bounded by the open ones, not by the data."""
    taken = 0

    def sizes() -> Any:
        nonlocal taken
        for index in itertools.count():
            taken += 1
            yield index, SEQ_LEN

    assert next(assign(sizes(), SEQ_LEN)) == [0]
    assert taken == OPEN_SEQUENCES + 1


@given(EXAMPLES)
def test_packing_loses_and_doubles_nothing(examples: list[Example]) -> None:
    batches = list(pack(dataset_of(examples), SEQ_LEN, PAD))
    order = itertools.chain(*first_fit([len(each.input_ids) for each in examples], SEQ_LEN, OPEN_SEQUENCES))
    assert [lists(each) for batch in batches for each in unpack(batch)] == [lists(examples[index]) for index in order]
    tokens = sum(len(each.input_ids) for each in examples)
    assert fill(batches) == pytest.approx(tokens / (SEQ_LEN * len(batches)))


@given(EXAMPLES, st.integers(0, 2**40))
def test_epochs_hold_every_example_once_and_depend_on_the_seed_alone(examples: list[Example], seed: int) -> None:
    dataset = dataset_of(examples)
    stream = (frozen(each) for batch in epochs(dataset, SEQ_LEN, PAD, seed) for each in unpack(batch))
    once = Counter(map(frozen, examples))
    for _ in range(3):
        assert Counter(itertools.islice(stream, len(examples))) == once
    first = list(itertools.islice(epochs(dataset, SEQ_LEN, PAD, seed), 9))
    assert same(first, list(itertools.islice(epochs(dataset, SEQ_LEN, PAD, seed), 9)))


@given(EXAMPLES, st.integers(0, 9), st.integers(0, 30))
def test_a_cursor_goes_on_where_it_stands(examples: list[Example], seed: int, start: int) -> None:
    dataset = dataset_of(examples)
    unbroken = list(itertools.islice(epochs(dataset, SEQ_LEN, PAD, seed), start + 5))
    assert same(list(itertools.islice(epochs(dataset, SEQ_LEN, PAD, seed, start), 5)), unbroken[start:])


def same(batches: list[Batch], others: list[Batch]) -> bool:
    return len(batches) == len(others) and all(
        np.array_equal(array, vars(other)[name])
        for batch, other in zip(batches, others, strict=True)
        for name, array in vars(batch).items()
    )


def test_what_a_cursor_passes_over_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(example([token, token], [token, IGNORED_LABEL]) for token in range(50))
    built: list[int] = []
    original = Dataset.example
    monkeypatch.setattr(Dataset, "example", lambda self, index: (built.append(index), original(self, index))[1])
    next(epochs(dataset, 2, PAD, 0, 130))
    assert len(built) == 1


def test_epochs_differ_from_each_other_and_between_seeds() -> None:
    dataset = dataset_of(example([token] * SEQ_LEN, [token] * (SEQ_LEN - 1) + [IGNORED_LABEL]) for token in range(30))

    def order(seed: int) -> list[int]:
        return [int(batch.input_ids[0]) for batch in itertools.islice(epochs(dataset, SEQ_LEN, PAD, seed), 60)]

    assert order(0)[:30] != order(0)[30:]
    assert order(0) != order(1)


def test_packing_refuses_what_it_cannot_place() -> None:
    dataset = dataset_of([example([1] * 4, [1, 1, 1, IGNORED_LABEL])])
    for batches in (pack(dataset, 3, PAD), epochs(dataset, 3, PAD, 0)):
        with pytest.raises(ValueError, match="at most 3 tokens, found 4"):
            next(batches)
    assert fill([]) == 0.0


@pytest.mark.parametrize("case", VECTORS["packing"], ids=lambda case: f"{case['open_sequences']} open of {case['seq_len']}")
def test_packing_vectors(case: dict[str, Any]) -> None:
    assert first_fit(case["sizes"], case["seq_len"], case["open_sequences"]) == case["sequences"]
    assert list(assign(enumerate(case["sizes"]), case["seq_len"], case["open_sequences"])) == case["sequences"]


@pytest.mark.parametrize("case", VECTORS["epochs"], ids=lambda case: case["start"])
def test_epoch_vectors(case: dict[str, Any]) -> None:
    """Example e is e times its size, so that a sequence's tokens say which examples it holds."""
    sizes = case["sizes"]
    dataset = dataset_of(example([e] * size, [*[IGNORED_LABEL] * (size - 2), e, IGNORED_LABEL]) for e, size in enumerate(sizes))
    batches = itertools.islice(epochs(dataset, case["seq_len"], PAD, case["seed"], case["start"]), len(case["sequences"]))
    for batch, members in zip(batches, case["sequences"], strict=True):
        tokens = [e for e in members for _ in range(sizes[e])]
        assert batch.input_ids.tolist() == tokens + [PAD] * (case["seq_len"] - len(tokens))


@pytest.mark.parametrize("case", VECTORS["sequences"])
def test_sequence_vectors(case: dict[str, Any]) -> None:
    dataset = dataset_of(example(each["input_ids"], each["labels"]) for each in case["examples"])
    batches = [{name: array.tolist() for name, array in vars(batch).items()} for batch in pack(dataset, case["seq_len"], case["pad_id"])]
    assert batches == case["batches"]


def test_the_vectors_are_those_of_the_script() -> None:
    spec = importlib.util.spec_from_file_location("write_data_vectors", ROOT / "scripts/golden/write_data_vectors.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.text() == TEXT
