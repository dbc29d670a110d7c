"""A model that writes what it is told, and a tokenizer of bytes: for what happens around a model when a text is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from helpers.bundles import StubRunner
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.text.tokenizer import Tokenizer

GREEDY = SamplingConfig(temperature=0)
ADAPTER = np.zeros((1, 1), np.float32)


def byte_tokenizer(*special: str, **config: Any) -> Tokenizer:
    """Bytes as tokens 1 to 256, then the `special` ones; 0 ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={"<end>": 0} | {letter: number for number, letter in enumerate(alphabet, 1)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>", *special])
    return Tokenizer(backend, {"eos_token": "<end>"} | config, 257 + len(special))


def fallback_tokenizer(**config: Any) -> Tokenizer:
    """As SentencePiece's tokenizers with byte fallback: bytes by their names as tokens 1 to 256, words, and `<s>`; 0 ends a text."""
    words = ("▁so", "▁", "a", "\N{REPLACEMENT CHARACTER}", "<s>")
    names = ("<end>", *(f"<0x{byte:02X}>" for byte in range(256)), *words)
    backend = Backend(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[], byte_fallback=True))
    strip = decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    backend.add_special_tokens(["<end>", "<s>"])
    return Tokenizer(backend, {"eos_token": "<end>"} | config, len(names))


class Script(StubRunner):
    """Writes the given tokens, whatever it reads, then the end; `seen`: the batches and positions it was asked about."""

    def __init__(self, tokens: Sequence[int], seq_len: int = 64) -> None:
        super().__init__(vocabulary=300, seq_len=seq_len)
        self.tokens = [*tokens, 0]
        self.seen: list[tuple[Batch, int]] = []

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        self.logits = {self.tokens[len(self.seen)]: 9.0}
        self.seen.append((batch, position))
        return super().next_logits(batch, position, adapter)
