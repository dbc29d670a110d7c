"""What export says that phones will refuse: nothing that they are held to golden vectors for, and every part that they have no code for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from lcsb_mobile.export.checkpoints.gguf_splits import SPLITS
from lcsb_mobile.export.phone_tokenizer import phone_refusal

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizers"
STYLES = sorted(path.name.removesuffix(".json.gz") for path in GOLDEN.glob("*.json.gz"))
KNOWN = ("gpt-2", "smollm", "qwen2", "llama-bpe")
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


@pytest.mark.parametrize("style", STYLES)
def test_what_phones_are_held_to_is_read(tmp_path: Path, style: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(gzip.decompress((GOLDEN / f"{style}.json.gz").read_bytes()))
    assert phone_refusal(tmp_path / "tokenizer.json") is None


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_of_gguf(tmp_path: Path, name: str) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    backend.pre_tokenizer = SPLITS[name].pre_tokenizer()
    backend.save(str(tmp_path / "tokenizer.json"))
    is_known = any(SPLITS[name].patterns == SPLITS[known].patterns for known in KNOWN)
    assert (phone_refusal(tmp_path / "tokenizer.json") is None) == is_known


SPLIT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}
REFUSED: dict[str, dict[str, Any]] = {
    "a model of the type Unigram": {"model": {"type": "Unigram", "vocab": []}},
    "dropout": {"model": BPE | {"dropout": 0.1}},
    "end_of_word_suffix": {"model": BPE | {"end_of_word_suffix": "</w>"}},
    "the normalizer Lowercase": {"normalizer": {"type": "Lowercase"}},
    "the normalizer Replace of a regular expression": {"normalizer": {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}},
    "the pre-tokenizer Metaspace": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace"}]}},
    "the pre-tokenizer Split of 'a', Isolated": {"pre_tokenizer": SPLIT},
    "the pre-tokenizer Split with invert": {"pre_tokenizer": SPLIT | {"invert": True}},
    "the pre-tokenizer ByteLevel with add_prefix_space": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    "the post-processor BertProcessing": {"post_processor": {"type": "BertProcessing"}},
    "the decoder WordPiece": {"decoder": {"type": "WordPiece"}},
    "the added token '<x>' with lstrip": {"added_tokens": [{"content": "<x>", "lstrip": True}]},
    "a pre-tokenizer behind ByteLevel": {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}
    },
    "byte_fallback with ByteLevel": {"model": BPE | {"byte_fallback": True}, "pre_tokenizer": {"type": "ByteLevel"}},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_parts_are_named(tmp_path: Path, reason: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": BPE} | REFUSED[reason]))
    assert phone_refusal(tmp_path / "tokenizer.json") == f"phones will refuse this bundle's tokenizer, which desktops read: {reason}"
