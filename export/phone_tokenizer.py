"""Whether phones read a `tokenizer.json`: what the Kotlin and the Swift tokenizer have code for (`TokenizerParts` of each)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lcsb_mobile.io.bounded import one_line

# Of Qwen2 and Llama 3.
MODERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPLITS = (MODERN % "", MODERN % "{1,3}", GPT2)
NORMALIZERS = ("NFC", "Replace", "Prepend")
PRE_TOKENIZERS = ("Digits", "Split", "ByteLevel")
POST_PROCESSORS = ("ByteLevel", "TemplateProcessing")
DECODERS = ("ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip")
TOKEN_OPTIONS = ("single_word", "lstrip", "rstrip")
MOST_TOKENS, MOST_MERGES = 2**19, 2**20

Part = Mapping[str, Any]


def phone_refusal(path: Path) -> str | None:
    """A sentence that names what phones will refuse in a `tokenizer.json` that the library reads; None where they read it."""
    content: Part = json.loads(path.read_text(encoding="utf-8"))
    reason = next(_reasons(content), None)
    return None if reason is None else f"phones will refuse this bundle's tokenizer, which desktops read: {one_line(reason)}"


def _reasons(content: Part) -> Iterator[str]:
    model: Part = content["model"]
    if model.get("type") != "BPE":
        yield f"a model of the type {model.get('type')}"
        return
    if len(model["vocab"]) > MOST_TOKENS or len(model["merges"]) > MOST_MERGES:
        yield f"{len(model['vocab'])} tokens and {len(model['merges'])} merges, where {MOST_TOKENS} and {MOST_MERGES} are read"
    yield from (name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name))
    for token in content.get("added_tokens", []):
        yield from (f"the added token {token['content']!r} with {option}" for option in TOKEN_OPTIONS if token.get(option))
    yield from _of_known_types("normalizer", _flat(content.get("normalizer"), "normalizers"), NORMALIZERS)
    yield from _of_known_types("post-processor", _flat(content.get("post_processor"), "processors"), POST_PROCESSORS)
    yield from _of_known_types("decoder", _flat(content.get("decoder"), "decoders"), DECODERS)
    parts = _flat(content.get("pre_tokenizer"), "pretokenizers")
    yield from _of_known_types("pre-tokenizer", parts, PRE_TOKENIZERS)
    yield from (reason for part in parts if (reason := _split_reason(part)) is not None)
    types = [part["type"] for part in parts]
    if "ByteLevel" in types[:-1]:
        yield "a pre-tokenizer behind ByteLevel"
    if "ByteLevel" in types and model.get("byte_fallback"):
        yield "byte_fallback with ByteLevel"


def _flat(part: Part | None, member: str) -> list[Part]:
    """Parts of a Sequence, one level deep; a part alone is one of one."""
    if part is None:
        return []
    return list(part[member]) if part["type"] == "Sequence" else [part]


def _of_known_types(name: str, parts: list[Part], known: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if part["type"] not in known:
            yield f"the {name} {part['type']}"
        elif part["type"] == "Replace" and not part["pattern"].get("String"):
            yield f"the {name} Replace of a regular expression"


def _split_reason(part: Part) -> str | None:
    if part["type"] == "ByteLevel" and part.get("add_prefix_space"):
        return "the pre-tokenizer ByteLevel with add_prefix_space"
    if part["type"] != "Split":
        return None
    if part.get("invert"):
        return "the pre-tokenizer Split with invert"
    text, expression = part["pattern"].get("String"), part["pattern"].get("Regex")
    if (text and part["behavior"] == "MergedWithPrevious") or (expression in SPLITS and part["behavior"] == "Isolated"):
        return None
    return f"the pre-tokenizer Split of {one_line(repr(expression or text), 60)}, {part['behavior']}"
