"""Each number of a run, recomputed from the records: the lines of the file, the sequences that are made of them, the steps."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.bundles import SEQ_LEN, RandomBundle, lcsb, lcsb_json, python, write_lines

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.data.dataset import hold_out, read_dataset
from lcsb_mobile.data.packing import assign
from lcsb_mobile.data.shuffling import shuffled
from lcsb_mobile.runs.setup import EVALUATION_SEQUENCES

WORDS = ["the", "train", "was", "late", "again"]
# Examples in the file, those of a file of evaluation data (0: a share is held out), the share.
CASES = [(2, 0, 0.5), (3, 0, 0.1), (10, 1, 0.1), (1, 2, 0.1), (121, 0, 0.5), (40, 100, 0.1)]


def lines(count: int) -> list[dict[str, Any]]:
    """Of odd lengths, and one in seven is cut."""
    return [{"text": " ".join(WORDS[: 1 + number % 5]) * (4 if number % 7 == 6 else 1)} for number in range(count)]


def recomputed(bundle: Path, data: Path, evaluation: Path | None, share: float) -> dict[str, int]:
    """By counting, from the text on."""
    tokenizer = Bundle.open(bundle).tokenizer

    def lengths(path: Path) -> list[int]:
        texts = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
        return [min(len(tokenizer.encode_document(text)), SEQ_LEN) for text in texts]

    trained = dict(enumerate(lengths(data)))
    held_out = trained if evaluation is None else dict(enumerate(lengths(evaluation)))
    if evaluation is None:
        dataset = read_dataset(data, tokenizer, SEQ_LEN)
        _, part = hold_out(dataset, share, 0)
        starts = dataset.starts.tolist()
        chosen = {starts.index(start) for start in part.starts.tolist()}
        held_out = {number: length for number, length in trained.items() if number in chosen}
        trained = {number: length for number, length in trained.items() if number not in chosen}
    order = [(int(index), list(trained.values())[int(index)]) for index in shuffled(len(trained), 0, 0)]
    sequences = list(assign(held_out.items(), SEQ_LEN))[:EVALUATION_SEQUENCES]
    evaluated = [held_out[number] for sequence in sequences for number in sequence]
    return {
        "trained_examples": len(trained),
        "trained_tokens": sum(trained.values()),
        "epoch_sequences": len(list(assign(order, SEQ_LEN))),
        "held_out_examples": len(held_out),
        "held_out_tokens": sum(held_out.values()),
        "evaluated_examples": len(evaluated),
        "evaluated_tokens": sum(evaluated),
        "evaluated_labels": sum(evaluated) - sum(length < SEQ_LEN for length in evaluated),
        "evaluated_sequences": len(sequences),
    }


def shown(numbers: dict[str, int]) -> tuple[str, str]:
    n = Counter(numbers)
    held_out = "" if n["evaluated_examples"] == n["held_out_examples"] else f" of the {n['held_out_examples']:,}"
    return (
        f"{n['trained_examples']:,} examples, {n['trained_tokens']:,} tokens; {n['epoch_sequences']:,} sequences an epoch",
        f"{n['evaluated_examples']:,}{held_out} examples held out, "
        f"{n['evaluated_tokens']:,} tokens in {n['evaluated_sequences']:,} sequences",
    )


@pytest.mark.parametrize(("examples", "evaluation", "share"), CASES)
def test_numbers_are_those_of_the_records(
    random_bundle: RandomBundle, tmp_path: Path, examples: int, evaluation: int, share: float
) -> None:
    """In JSON, on the console and in the report; of a run that was resumed too, whose steps are an even count."""
    data, other = write_lines(tmp_path / "data.jsonl", lines(examples)), tmp_path / "other.jsonl"
    run = ["simulate", random_bundle.bundle, "--data", data, "--adapter", tmp_path / "a", "--checkpoint-dir", tmp_path / "run"]
    run += ["--hold-out", share, *(("--eval-data", write_lines(other, lines(evaluation))) if evaluation else ())]
    lcsb(*run, "--steps", 4, "--checkpoint-every", 2)
    (tmp_path / "run" / max(path.name for path in (tmp_path / "run").glob("*.safetensors"))).unlink()
    result = lcsb_json(*run, "--steps", 4, "--resume", "--report", tmp_path / "r.html")
    expected = recomputed(random_bundle.bundle, data, other if evaluation else None, share)
    assert result["numbers"] == expected
    assert result["resumed_from"] == 2 and len(result["step_seconds"]) == len(result["losses"]) == result["steps"] == 4
    low, high = sorted(result["step_seconds"])[1:3]
    assert result["step_seconds_median"] == pytest.approx((low + high) / 2)
    assert result["packing_fill"] == pytest.approx(expected["trained_tokens"] / (expected["epoch_sequences"] * SEQ_LEN))
    assert result["data"]["examples"] == result["data"]["lines"] == examples
    page = html.unescape((tmp_path / "r.html").read_text("utf-8"))
    console = lcsb(*run, "--steps", 4, "--resume")
    for text in (*shown(expected), f"{result['step_seconds_median']:.3f} s (median of 4)"):
        assert text in page and text in console, text
    assert f"the mean over {expected['evaluated_labels']:,} counted labels" in page


def test_the_numbers_come_before_the_run(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """What is evaluated is no more called all that is held out."""
    data = write_lines(tmp_path / "data.jsonl", lines(121))
    main = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"
    done = python(main, "simulate", random_bundle.bundle, "--data", data, "--steps", 1, "--adapter", tmp_path / "a", "--hold-out", 0.5)
    assert re.search(r"^evaluated on: \d+ of the 61 examples held out, \d+ tokens in 16 sequences$", done.stderr, re.MULTILINE), done.stderr
