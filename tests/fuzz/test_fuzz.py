"""Whatever a file holds, reading it succeeds or raises an error of ours: the fuzzers' corpus, and changes of every file that is read.

Longer runs, guided by coverage, are `make fuzz` (fuzz/README.md).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from helpers.bundles import RandomBundle
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fuzz"))

from mutate import mutate
from readers import CORPUS, READERS

from lcsb_mobile.errors import LcsbError
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint

ONE_LINE = (
    "manifest",
    "golden",
    "program",
    "training_checkpoint",
)  # readers that answer for what they say of a file, character by character
EXACT = ("adapter", "training_checkpoint", "run_checkpoint")  # readers that take no header but the one
INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def outcome(reader: str, data: bytes) -> str:
    """What the reader says: "" where it takes the input. Any other exception passes."""
    try:
        READERS[reader](data)
    except LcsbError as error:
        assert reader not in ONE_LINE or (str(error).isprintable() and len(str(error)) < 5000), error
        return str(error)
    return ""


def changed(reader: str, seed: int) -> bytes:
    """One of the reader's own seeds, with one to six changes."""
    random = Random(seed)
    data = random.choice([path for path in INPUTS if path.parent.name == reader and path.name.startswith("seed-")]).read_bytes()
    for _ in range(random.randint(1, 2)):
        data = mutate(data, random)
    return data


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_corpus(path: Path) -> None:
    said = outcome(path.parent.name, path.read_bytes())
    assert not (path.name.startswith("seed-") and said), said


def test_every_reader_has_a_corpus() -> None:
    assert {path.parent.name for path in INPUTS} == set(READERS)


@pytest.mark.parametrize("reader", READERS)
def test_changed_inputs(reader: str) -> None:
    @settings(deadline=None, max_examples=40, database=None, derandomize=True)
    @given(seed=st.integers(0, 2**32))
    def check(seed: int) -> None:
        outcome(reader, changed(reader, seed))

    check()


@pytest.mark.parametrize("reader", READERS)
def test_changes_reach_the_checks(reader: str) -> None:
    """They are not all stopped by the first one: many things are said, and some inputs are still taken."""
    said = Counter(outcome(reader, changed(reader, seed)) for seed in range(60))
    assert len(said) >= 12 and (said[""] or reader in EXACT)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_model_configurations(random_bundle: RandomBundle, seed: int) -> None:
    """Of the export half: a checkpoint's `config.json`, beside its weights."""
    directory = random_bundle.checkpoint.parent / "changed"
    directory.mkdir(exist_ok=True)
    for path in random_bundle.checkpoint.iterdir():
        if not (directory / path.name).exists():
            (directory / path.name).hardlink_to(path)
    (directory / "config.json").unlink()
    (directory / "config.json").write_bytes(mutate((random_bundle.checkpoint / "config.json").read_bytes(), Random(seed)))
    try:
        open_checkpoint(directory).close()
    except LcsbError as error:
        assert str(error).startswith(str(directory))


def test_changes_keep_the_form() -> None:
    """JSON stays JSON, whether it is all of a file or its header; a change is the same each time."""
    text = json.dumps({"a": [1, {"b": "text"}], "c": 2.5}, separators=(",", ":")).encode()
    framed = len(text).to_bytes(8, "little") + text + b"the rest"
    found = [mutate(text, Random(seed)) for seed in range(200)]
    shallow = [json.loads(data) for data in found if not data.startswith(b"[[[[")]
    assert 180 < len(shallow) < 200 and len({str(document) for document in shallow}) > 140
    for seed, data in enumerate(found):
        assert mutate(framed, Random(seed)) == len(data).to_bytes(8, "little") + data + b"the rest"
    assert len({mutate(b"not JSON", Random(seed)) for seed in range(50)}) > 20
