"""Small tokenizers, data files, and datasets of given examples."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.data.dataset import Dataset, DatasetWriter
from lcsb_mobile.data.records import Example, LineExample
from lcsb_mobile.text.tokenizer import Tokenizer

SPECIAL = ["</s>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Ça va 🙂?"},
    {"role": "assistant", "content": " Oui, très bien.\n"},
    {"role": "user", "content": "assistant"},
    {"role": "assistant", "content": "Two\n\nlines 🙂"},
]


def byte_backend() -> Backend:
    """256 byte tokens without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Backend(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))


def bpe_backend() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(["assistant user system Two lines Oui, bien.\n\n"] * 4, trainer)
    return backend


def make_tokenizer(
    backend: Backend, template: str | None = CHATML, vocab_size: int = 1000, special: Iterable[str] = (), **config: Any
) -> Tokenizer:
    """With SPECIAL, then `special`, after the backend's own tokens."""
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([*SPECIAL, *special])
    return Tokenizer(backend, {"eos_token": "</s>", "chat_template": template} | config, vocab_size)


def write(directory: Path, *lines: Any) -> Path:
    """A data file; bytes are written as they are, anything else as JSON."""
    path = directory / "data.jsonl"
    path.write_bytes(b"".join(line + b"\n" if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return path


def example(ids: list[int], labels: list[int]) -> Example:
    return Example(np.array(ids, np.int32), np.array(labels, np.int32))


def lists(example: Example) -> tuple[list[int], list[int]]:
    """(input_ids, labels): examples hold arrays, which have no equality."""
    return example.input_ids.tolist(), example.labels.tolist()


def dataset_of(examples: Iterable[Example], seq_len: int = 1000) -> Dataset:
    writer = DatasetWriter(seq_len)
    for each in examples:
        writer.add(LineExample(each, "text"))
    return writer.dataset(Path("examples"), "")


def learned(tokenizer: Tokenizer, example: Example) -> str:
    """The text of the counted labels, with special tokens."""
    counted = example.labels[example.labels != IGNORED_LABEL].tolist()
    return str(tokenizer._backend.decode(counted, skip_special_tokens=False))


def all_text(tokenizer: Tokenizer, example: Example) -> str:
    return str(tokenizer._backend.decode(example.input_ids.tolist(), skip_special_tokens=False))


def fill(batches: Iterable[Batch]) -> float:
    """The share of tokens that are not padding, from 0 to 1. Padding is a last segment without counted labels."""
    total = padding = 0
    for batch in batches:
        total += len(batch.segment_ids)
        last = batch.segment_ids == batch.segment_ids[-1]
        if (batch.labels[last] == IGNORED_LABEL).all():
            padding += int(np.count_nonzero(last))
    return 1.0 - padding / total if total else 0.0
