"""The tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`.

Two kinds are read: byte-level (`gpt2`), whose splits are `gguf_splits`', and sentencepiece's byte-pair encoding (`llama`), whose merges
follow from its scores. What a file says of its tokenizer is read, without effect, or refused by name.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.export.checkpoints.gguf_file import Value
from lcsb_mobile.export.checkpoints.gguf_splits import split_of
from lcsb_mobile.io.bounded import one_line, refused_as, some

SPACE = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # llama.cpp's types of tokens
BLANK = "▁"
TEMPLATE = "tokenizer.chat_template"
NAMED = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id", "pad_token": "padding_token_id"}
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # of a text, a turn, a message to a tool
READ = {
    "model",
    "pre",
    "tokens",
    "token_type",
    "scores",
    "merges",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    *NAMED.values(),
    *ENDS,
}
HARMLESS = {
    "token_type_count", "add_sep_token", "seperator_token_id", "cls_token_id", "mask_token_id",  # BERT's
    "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",
    "prefix_token_id", "suffix_token_id", "middle_token_id",  # names of tokens for filling in
}  # fmt: skip
NEUTRAL = {"remove_extra_whitespaces": False, "normalizer.lowercase": False, "normalizer.strip_accents": False}
EMPTY = ("precompiled_charsmap", "suppress_tokens")  # lists that are refused unless they are empty
OTHER_KEYS = ("tokenizer.chat_template.", "tokenizer.chat_templates", "tokenizer.huggingface.json")  # no program takes them for the model's


def write_tokenizer(keys: Mapping[str, Value], directory: Path) -> None:
    """Raises TokenizerError."""
    check_tokenizer_keys(keys)
    tokens = _tokens(keys)
    kind = keys.get(f"{SPACE}model")
    if kind == "gpt2":
        backend, adds_bos = _byte_level(keys, tokens)
    elif kind == "llama":
        backend, adds_bos = _sentencepiece(keys, tokens)
    else:
        raise TokenizerError(f"{SPACE}model: found {one_line(repr(kind), 40)}, supported gpt2, llama")
    settings = _settings(keys, tokens, adds_bos)
    _add_tokens(backend, keys, tokens)
    _add_template(backend, settings)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_tokenizer_keys(keys: Mapping[str, Value]) -> None:
    """Raises one TokenizerError that names every key that would change the tokens and is not read."""
    faults = []
    for key, value in keys.items():
        name = key.removeprefix(SPACE)
        if not key.startswith("tokenizer.") or key == TEMPLATE or key.startswith(OTHER_KEYS):
            continue
        if key.startswith(SPACE) and (name in READ or name in HARMLESS or NEUTRAL.get(name) is value):
            continue
        if key.startswith(SPACE) and name in EMPTY and not isinstance(value, bool | int | float) and len(value) == 0:
            continue
        faults.append(f"{key}: found {one_line(repr(value), 40)}")
    if faults:
        raise TokenizerError(f"keys that are not read and would change its tokens: {some(faults)}")


class _Tokens:
    """`texts` by number. `kinds`: llama.cpp's type of each; `named`: the number of each special token that the keys name."""

    def __init__(self, texts: list[str], kinds: Sequence[int], named: Mapping[str, int]) -> None:
        self.texts, self.kinds, self.named = texts, kinds, named

    def text(self, name: str) -> str | None:
        return self.texts[self.named[name]] if name in self.named else None

    def is_special(self, index: int) -> bool:
        return self.kinds[index] in (CONTROL, UNKNOWN) or index in self.named.values()


def _tokens(keys: Mapping[str, Value]) -> _Tokens:
    texts = [text or f"[EMPTY_{index}]" for index, text in enumerate(_strings(keys, "tokens"))]  # llama.cpp's name for one without a text
    repeated = [f"{text!r} stands there twice" for text, before in itertools.pairwise(sorted(texts)) if text == before]
    if not texts or repeated:
        raise TokenizerError(f"{SPACE}tokens: expected different tokens, found {some(repeated) or 'none'}")
    kinds = _numbers(keys, "token_type", len(texts), NORMAL)
    named = {name: _index(keys, name, len(texts)) for name in (*NAMED.values(), *ENDS[1:]) if f"{SPACE}{name}" in keys}
    return _Tokens(texts, [int(kind) for kind in kinds], named)


def _strings(keys: Mapping[str, Value], name: str) -> list[str]:
    value = keys.get(SPACE + name)
    if not isinstance(value, list):
        raise TokenizerError(f"{SPACE}{name}: expected a list of strings, found {one_line(repr(value), 40)}")
    return value


def _numbers(keys: Mapping[str, Value], name: str, count: int, default: float | None) -> list[float]:
    value = keys.get(SPACE + name)
    if value is None and default is not None:
        return [default] * count
    if not isinstance(value, np.ndarray) or len(value) != count or not np.all(np.isfinite(value)):
        raise TokenizerError(f"{SPACE}{name}: expected {count} numbers, one a token, found {one_line(repr(value), 40)}")
    numbers: list[float] = value.tolist()
    return numbers


def _index(keys: Mapping[str, Value], name: str, count: int) -> int:
    value = keys[SPACE + name]
    if type(value) is not int or not 0 <= value < count:
        raise TokenizerError(f"{SPACE}{name}: expected the number of one of {count} tokens, found {one_line(repr(value), 40)}")
    return value


def _flag(keys: Mapping[str, Value], name: str, default: bool) -> bool:
    value = keys.get(SPACE + name, default)
    if type(value) is not bool:
        raise TokenizerError(f"{SPACE}{name}: expected true or false, found {one_line(repr(value), 40)}")
    return value


def _byte_level(keys: Mapping[str, Value], tokens: _Tokens) -> tuple[Tokenizer, bool]:
    split = split_of(keys.get(f"{SPACE}pre"), keys.get("general.architecture"))
    pairs = [(left, right) for left, _, right in (_cut(merge) for merge in _strings(keys, "merges"))]
    made = {left + right for left, right in pairs}
    unused = {index for index, kind in enumerate(tokens.kinds) if kind == UNUSED and tokens.texts[index] not in made}  # fill up a matrix
    vocabulary = {text: index for index, text in enumerate(tokens.texts) if index not in unused}
    with refused_as(TokenizerError, f"{SPACE}merges"):
        backend = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=split.ignore_merges))
        backend.pre_tokenizer = split.pre_tokenizer()
    if split.compose:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend, _flag(keys, "add_bos_token", split.add_bos)


def _cut(merge: str) -> tuple[str, str, str]:
    """At its first blank behind the first character."""
    left, blank, right = merge[1:].partition(" ")
    if not blank or not merge or not right:
        raise TokenizerError(f"{SPACE}merges: expected two tokens and a blank between, found {one_line(repr(merge), 40)}")
    return merge[0] + left, blank, right


def _sentencepiece(keys: Mapping[str, Value], tokens: _Tokens) -> tuple[Tokenizer, bool]:
    """Text goes by fragments between special tokens, each with a blank before it unless `add_space_prefix` is false."""
    typed = list(zip(tokens.texts, tokens.kinds, strict=True))
    unknown = next((text for text, kind in typed if kind == UNKNOWN), tokens.text("unknown_token_id"))
    vocabulary = {text: index for index, text in enumerate(tokens.texts)}
    merges = _merges(tokens, _numbers(keys, "scores", len(tokens.texts), None))
    with refused_as(TokenizerError, f"{SPACE}tokens"):
        backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in tokens.kinds))
    prefixed = _flag(keys, "add_space_prefix", True)
    spaces = normalizers.Replace(" ", BLANK)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), spaces]) if prefixed else spaces
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    backend.decoder = decoders.Sequence([decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend, _flag(keys, "add_bos_token", True)


def _merges(tokens: _Tokens, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every pair that makes a piece, the pieces from the highest score down. What the model's author defined is never merged."""
    typed = zip(tokens.texts, tokens.kinds, scores, strict=True)
    pieces = {text: (-score, index) for index, (text, kind, score) in enumerate(typed) if kind == NORMAL}
    merges = []
    for text in sorted(pieces, key=pieces.__getitem__):
        halves = ((text[:at], text[at:]) for at in range(1, len(text)))
        pairs = [(left, right) for left, right in halves if left in pieces and right in pieces]
        merges += sorted(pairs, key=lambda pair: (pieces[pair[0]][1], pieces[pair[1]][1]))
    return merges


def _add_tokens(backend: Tokenizer, keys: Mapping[str, Value], tokens: _Tokens) -> None:
    numbers = [index for index, text in enumerate(tokens.texts) if text]
    special = [tokens.texts[index] for index in numbers if tokens.is_special(index)]
    others = [tokens.texts[index] for index in numbers if tokens.kinds[index] == USER_DEFINED and not tokens.is_special(index)]
    with refused_as(TokenizerError, f"{SPACE}tokens"):
        backend.add_special_tokens([AddedToken(text, normalized=False) for text in special])
        backend.add_tokens([AddedToken(text, normalized=False) for text in others])


def _settings(keys: Mapping[str, Value], tokens: _Tokens, adds_bos: bool) -> dict[str, Any]:
    named = {name: tokens.text(key) for name, key in NAMED.items()}
    settings: dict[str, Any] = {name: text for name, text in named.items() if text is not None}
    settings |= {"add_bos_token": adds_bos and "bos_token" in settings, "add_eos_token": _flag(keys, "add_eos_token", False)}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    ends = list(dict.fromkeys(tokens.named[name] for name in ENDS if name in tokens.named))
    if len(ends) > 1:
        settings["eos_token_id"] = ends
    template = keys.get(TEMPLATE)
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{TEMPLATE}: expected a string, found {one_line(repr(template), 40)}")
    return settings | ({"chat_template": template} if template else {})


def _add_template(backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """What goes around a text."""
    first = settings["bos_token"] if settings["add_bos_token"] else None
    last = settings.get("eos_token") if settings["add_eos_token"] else None
    around = [token for token in (first, last) if token is not None]
    if not around:
        return
    single = [token for token in (first, "$A", last) if token is not None]
    numbers = [(token, backend.token_to_id(token)) for token in dict.fromkeys(around)]
    with refused_as(TokenizerError, f"{SPACE}tokens"):
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=numbers)
