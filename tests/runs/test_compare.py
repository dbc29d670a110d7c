"""Losses by example: which examples, what each is computed from, and what is refused before anything is."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from helpers.bundles import RandomBundle, StubRunner, lcsb, lcsb_error, lcsb_json, write_lines

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import Base, load_adapter, save_adapter
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.data.dataset import hold_out, read_dataset
from lcsb_mobile.data.packing import pack
from lcsb_mobile.errors import AdapterError, DataError, NonFiniteLossError, OptionError
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.compare import CompareOptions, compare
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import Simulation, simulate

TEXTS = [f"message {number} of many, about {'boats and ' * (number % 5)}rain" for number in range(40)]  # some are cut


@pytest.fixture(scope="module")
def run(random_bundle: RandomBundle, tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """One that has learnt its data, a fifth of which it held out."""
    directory = tmp_path_factory.mktemp("run")
    data = write_lines(directory / "data.jsonl", [{"text": text} for text in TEXTS])
    adapter = directory / "adapter.safetensors"
    return simulate(SimulateOptions(random_bundle.bundle, data, 30, adapter, learning_rate=0.01, hold_out=0.2, seed=5, threads=1))


@pytest.fixture
def options(run: Simulation) -> CompareOptions:
    of = run.run.options
    return CompareOptions(of.bundle, of.data, of.adapter, hold_out=of.hold_out, seed=of.seed, threads=1)


def test_what_the_run_held_out(options: CompareOptions, run: Simulation) -> None:
    """All eight of them, so that their mean by tokens is the run's own evaluation."""
    found = compare(options)
    bundle = Bundle.open(options.bundle)
    held_out = hold_out(read_dataset(options.data, bundle.tokenizer, bundle.manifest.seq_len), 0.2, 5)[1]
    counts = [held_out.example(index).counted_labels for index in range(len(held_out))]
    assert found.held_out_examples == found.verdict.examples == len(counts) == run.run.numbers.held_out_examples == 8
    evaluated = run.result.eval_loss_before, run.result.eval_loss_after
    for losses, expected in zip((found.losses_before, found.losses_after), evaluated, strict=True):
        mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
        assert mean == pytest.approx(expected, rel=1e-5)  # attention's sums in sequences of another layout
    assert found.verdict.outcome == "better" and found.verdict.improved == 8


def test_examples_alone(options: CompareOptions, tmp_path: Path) -> None:
    """Six of eight lines, each as the only one of a file."""
    data = write_lines(tmp_path / "held-out.jsonl", [{"text": text} for text in TEXTS[:8]])
    told: list[tuple[int, int]] = []
    found = compare(dataclasses.replace(options, data=data, hold_out=None, examples=6), lambda *numbers: told.append(numbers))
    bundle = Bundle.open(options.bundle)
    runner, adapter = make_runner(bundle, threads=1), bundle.initial_adapter()
    expected = []
    for number in (0, 1, 2, 4, 5, 6):
        line = write_lines(tmp_path / "line.jsonl", [{"text": TEXTS[number]}])
        (batch,) = pack(read_dataset(line, bundle.tokenizer, bundle.manifest.seq_len), bundle.manifest.seq_len, bundle.tokenizer.pad_id)
        expected.append(runner.evaluate(batch, adapter))
    assert list(found.losses_before) == expected
    assert told == [(number, 12) for number in range(1, 13)]


def test_an_adapter_and_itself(options: CompareOptions) -> None:
    found = compare(dataclasses.replace(options, before=options.after))
    assert found.losses_before == found.losses_after and found.verdict.outcome == "no-difference" and found.verdict.p == 1


def test_back(options: CompareOptions, tmp_path: Path) -> None:
    """From the adapter to what it began with."""
    bundle = Bundle.open(options.bundle)
    save_adapter(tmp_path / "initial.safetensors", bundle.manifest.adapter, bundle.initial_adapter())
    found = compare(dataclasses.replace(options, before=options.after, after=tmp_path / "initial.safetensors"))
    assert found.verdict.outcome == "worse" and found.verdict.improved == 0
    assert compare(options).losses_after == found.losses_before


class OfNothing(StubRunner):
    """Gives NaN to adapters that were trained, and no other method may be called."""

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        assert (batch.labels != IGNORED_LABEL).any()
        return math.nan if self.trained(adapter) else 1.0

    def trained(self, adapter: Float32Array) -> bool:
        return bool(adapter[-1])  # of the last layer's B, which begins as zero


def test_a_loss_that_is_none(options: CompareOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcsb_mobile.runs.compare.make_runner", lambda *_: OfNothing())
    assert load_adapter(options.after, Bundle.open(options.bundle).manifest.adapter)[-1] != 0
    with pytest.raises(NonFiniteLossError, match="example 1 of 8: its loss after is nan"):
        compare(options)


def test_refusals_before_anything_is_computed(options: CompareOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lcsb_mobile.runs.compare.make_runner", lambda *_: pytest.fail("a runner was made"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(options.after.read_bytes()[:-4])
    absent = tmp_path / "absent"
    for path, wrong in (
        (other, dataclasses.replace(options, after=other)),
        (other, dataclasses.replace(options, before=other)),
        (absent, dataclasses.replace(options, after=absent)),
    ):
        with pytest.raises(AdapterError, match=str(path)):
            compare(wrong)
    with pytest.raises(OptionError, match="examples: expected at least 6, found 5"):
        compare(dataclasses.replace(options, examples=5))
    one = write_lines(tmp_path / "one.jsonl", [{"text": "one"}])
    with pytest.raises(DataError, match="has one example; expected at least two"):
        compare(dataclasses.replace(options, data=one))


def test_another_bases_adapter(options: CompareOptions, tmp_path: Path) -> None:
    bundle = Bundle.open(options.bundle)
    other = dataclasses.replace(bundle.manifest.adapter, base=Base("another model", "ab" * 32, "0.1.0"))
    save_adapter(tmp_path / "other.safetensors", other, bundle.initial_adapter())
    with pytest.raises(AdapterError, match="was trained on another base: .* found another model"):
        compare(dataclasses.replace(options, after=tmp_path / "other.safetensors"))


def test_the_verb(options: CompareOptions, tmp_path: Path) -> None:
    arguments = ("compare", options.bundle, "--after", options.after, "--threads", 1)
    of_run = ("--data", options.data, "--hold-out", 0.2, "--seed", 5)
    shown = lcsb(*arguments, *of_run)
    assert "the base model and" in shown and "on 8 held-out examples" in " ".join(shown.split()) and "better: mean loss" in shown
    row = lcsb_json(*arguments, *of_run)
    assert row["verdict"]["outcome"] == "better" and len(row["losses_before"]) == 8 and row["before"] is None
    whole = lcsb_json(*arguments, "--eval-data", options.data, "--examples", 7, "--before", options.after)
    assert whole["verdict"]["outcome"] == "no-difference" and whole["held_out_examples"] == 40 and len(whole["losses_after"]) == 7
    few = write_lines(tmp_path / "few.jsonl", [{"text": "one"}, {"text": "two"}])
    assert "too few examples to say: 2, expected at least 6" in " ".join(lcsb(*arguments, "--eval-data", few).split())
    assert "found neither" in lcsb_error(2, *arguments)
    assert "found both" in lcsb_error(2, *arguments, *of_run, "--eval-data", options.data)
