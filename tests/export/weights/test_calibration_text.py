"""The text that weights are rounded against: which tokens are taken of it, what is recorded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.export.weights.calibrate import read_calibration
from lcsb_mobile.text.tokenizer import Tokenizer
from lcsb_mobile.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of the embedded model: a token a byte."""
    return Tokenizer.open(tiny_checkpoint(), 259)


def test_the_own_text(tokenizer: Tokenizer) -> None:
    text = read_calibration(None, tokenizer)
    assert text.tokens.shape == (64, 128) and text.tokens.dtype == torch.int64
    assert text.description.startswith("the toolkit's own text, 8192 of 3")
    assert torch.equal(text.tokens, read_calibration(None, tokenizer).tokens)


def test_sequences_are_spread_over_a_long_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (path := tmp_path / "long.txt").write_text("\n".join(f"line {number:4d}" for number in range(3000)))  # 10 tokens a line
    text = read_calibration(path, tokenizer)
    ids = np.array(tokenizer.encode_document(path.read_text()))
    starts = [index * (len(ids) // 128) // 64 * 128 for index in range(64)]
    assert text.tokens.tolist() == [ids[start : start + 128].tolist() for start in starts]
    assert text.description.startswith("long.txt, 8192 of 30000 tokens, sha256 ")


def test_training_data_serve_as_they_would_be_trained_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = [
        {"text": "a" * 900},
        {"prompt": "b" * 300, "completion": "c" * 100},
        {"messages": [{"role": "assistant", "content": "d" * 200}]},
    ]
    (path := tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in data))
    tokens = read_calibration(path, tokenizer).tokens.flatten().tolist()
    assert tokens[:901] == [ord("a")] * 900 + tokenizer.eos()
    assert tokens[901:1301] == [ord("b")] * 300 + [ord("c")] * 100


@pytest.mark.parametrize(
    ("name", "content", "error", "expected"),
    [
        ("short.txt", b"x" * 1000, DataError, "short.txt: calibration needs at least 1024 tokens, found 1001; use a longer text"),
        ("short.jsonl", b'{"text": "x"}\n', DataError, "short.jsonl: calibration needs at least 1024 tokens, found 2; use a longer text"),
        ("empty.jsonl", b"", DataError, "empty.jsonl: the file is empty"),
        ("bad.jsonl", b'{"text": "x"}\n{"text"\n', DataError, "bad.jsonl:2: not JSON"),
        ("latin.txt", b"caf\xe9" * 1000, DataError, "latin.txt: not UTF-8: invalid continuation byte at byte 3; give a text file"),
    ],
)
def test_a_text_that_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, name: str, content: bytes, error: type[Exception], expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=expected):
        read_calibration(tmp_path / name, tokenizer)


def test_a_text_that_cannot_be_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for path, reason in ((tmp_path / "absent.txt", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=f"{path}: {reason}"):
            read_calibration(path, tokenizer)


def test_a_text_outside_the_vocabulary(tmp_path: Path) -> None:
    (path := tmp_path / "text.txt").write_text("z" * 2000)
    with pytest.raises(TokenizerError, match="outside the model's vocabulary of 100"):
        read_calibration(path, Tokenizer.open(tiny_checkpoint(), 100))
