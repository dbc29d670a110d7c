"""Text to token ids and back, and the model's chat template, from `tokenizer.json` alone: no transformers.

The file names are those that Hugging Face writes.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import tokenizers

from lcsb_mobile.errors import TemplateTimeError, TokenizerError
from lcsb_mobile.io.bounded import TooLongError, bounded_memory, bounded_time, one_line, read_bounded, refused_as

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"  # where newer versions of transformers write the template; wins over CONFIG_FILE's
TOKENIZER_FILES = (TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE)  # all that a bundle copies; the last may be absent

MIB = 2**20
FILE_BYTES = {TOKENIZER_FILE: 64 * MIB, CONFIG_FILE: 16 * MIB, TEMPLATE_FILE: MIB}  # that are read
RENDER_BYTES = 256 * MIB  # of memory that a chat template may take to render a conversation
RENDER_SECONDS = 10.0  # that it may take: a thousand turns take it a tenth of one

PROBE = "lcsb"  # a message, to see what a chat template puts after one
SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair, which JSON can hold and UTF-8 cannot

TEMPLATE_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")  # the variables of a chat template


class Tokenizer:
    """A tokenizer held to one model's vocabulary. Token ids are plain ints from 0 to `vocab_size` - 1. `now`: the local time that the chat
    template may write, that of opening until another is set: it does not go on while a file is read."""

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], vocab_size: int) -> None:
        backend.no_truncation()  # a tokenizer.json may carry its trainer's own settings
        backend.no_padding()
        self._backend = backend
        from lcsb_mobile.text.chat_template import compile_template  # jinja2, which a command's --help need not wait for

        self.now = local_time()
        self._template = compile_template(_chat_template(config), lambda pattern: self.now.strftime(pattern))
        self._tokens = {name: _token(config, name) for name in TEMPLATE_TOKENS}
        self.vocab_size = vocab_size
        self.bos_id = self._special_id("bos_token")
        self.eos_id = self._special_id("eos_token")
        pad = backend.token_to_id(self._tokens["pad_token"] or "")
        self.pad_id: int = pad if pad is not None and pad < vocab_size else (self.eos_id or 0)
        self._adds_bos = self.bos_id is not None and _adds_bos(backend, config, self.bos_id)
        self.special_ids = frozenset(index for index, token in backend.get_added_tokens_decoder().items() if token.special)
        self._stated_ends = _end_ids(config)
        self._pending = frozenset(_byte_ids(backend)) | self.special_ids

    @classmethod
    def open(cls, directory: Path, vocab_size: int) -> Tokenizer:
        """Reads TOKENIZER_FILES in `directory`. Raises TokenizerError when one is missing or cannot be read."""
        config = _read_config(directory / CONFIG_FILE)
        path = directory / TOKENIZER_FILE
        with refused_as(TokenizerError, f"{path}: not a readable tokenizer"):
            backend = tokenizers.Tokenizer.from_buffer(_read(path))
        template = directory / TEMPLATE_FILE
        if template.is_file():
            config["chat_template"] = _read_text(template)
        try:
            with refused_as(TokenizerError, f"{TOKENIZER_FILE} cannot be used"):
                return cls(backend, config, vocab_size)
        except TokenizerError as error:
            raise TokenizerError(f"{directory / CONFIG_FILE}: {error}") from error

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and nothing else. Raises TokenizerError when one lies outside the model's vocabulary."""
        return self._encoding(text).ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode`, and for each token the range of characters [start, end) that it stands for.

        Tokens follow each other without gaps, though the library trims blanks from some: a token starts at the latest where
        the one before it ends. Tokens that together make up one character share its range.
        """
        encoding = self._encoding(text)
        offsets, end = [], 0
        for start, stop in encoding.offsets:
            offsets.append((min(start, end), stop))
            end = stop
        return encoding.ids, offsets

    def encode_prompt(self, text: str) -> list[int]:
        """The beginning of a document: the token of beginning, if this tokenizer adds one, and the text."""
        return self._bos() + self.encode(text)

    def encode_continuation(self, text: str) -> list[int]:
        """The ids of a text that follows another: without the blank that SentencePiece puts before a text's first word."""
        newline = self.encode("\n")
        ids = self.encode("\n" + text)
        if ids[: len(newline)] == newline:
            return ids[len(newline) :]
        return self.encode(text)

    def encode_document(self, text: str) -> list[int]:
        """A whole document: `encode_prompt`, then the token of end if there is one."""
        return self.encode_prompt(text) + self.eos()

    def eos(self) -> list[int]:
        """The token of end as a list of one, or of none."""
        return [] if self.eos_id is None else [self.eos_id]

    @functools.cached_property
    def end_ids(self) -> frozenset[int]:
        """What a text or an assistant's turn ends with: `eos_token`, `eos_token_id` (a number or several), and the token that the chat
        template puts after an assistant's message, if it is one that no text is made of."""
        return self._stated_ends | frozenset(self.eos()) | self._turn_end()

    def _turn_end(self) -> frozenset[int]:
        if not self.has_chat_template:
            return frozenset()
        try:
            _, probe, after = self.render_chat([{"role": role, "content": PROBE} for role in ("user", "assistant")]).rpartition(PROBE)
            ids = self.encode(after.lstrip()) if probe else []
        except TokenizerError:  # a template that cannot render so little ends turns in a way of its own
            return frozenset()
        added = self._backend.get_added_tokens_decoder()
        return frozenset(index for index in ids[:1] if index in added)

    def decode(self, ids: Sequence[int], special_tokens: bool = False) -> str:
        """The text of `ids`, without special tokens unless they are asked for."""
        with refused_as(TokenizerError, "tokens that cannot be decoded"):
            return str(self._backend.decode(list(ids), skip_special_tokens=not special_tokens))

    def settled(self, ids: Sequence[int]) -> int:
        """How many of `ids`, from the first, no token after them can give another text: all but a run of byte fallback at the end, with
        special tokens in it, which the library writes as so many U+FFFD once a byte comes that breaks it."""
        end = len(ids)
        while end and ids[end - 1] in self._pending:
            end -= 1
        return end

    def render_chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False, **variables: Any) -> str:
        """The conversation as the model reads it. The template writes its own special tokens, the one of beginning too. `variables` take
        the place of those that a template has besides.

        Raises TokenizerError without a template, and when the template refuses the messages.
        """
        from lcsb_mobile.text.chat_template import split_marks

        return split_marks(self._render(messages, add_generation_prompt, **variables))[0]

    def render_marked_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int]] | None]:
        """As `render_chat`, and the ranges of characters [start, end) that the template marks as the assistant's with
        `{% generation %}`; None where it has no such tag."""
        from lcsb_mobile.text.chat_template import has_marks, split_marks

        text, spans = split_marks(self._render(messages, False))
        return text, spans if self._template is not None and has_marks(self._template) else None

    def _render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, **variables: Any) -> str:
        """With the marks of `chat_template`."""
        if self._template is None:
            raise TokenizerError(f"the tokenizer has no chat template (`chat_template` in {CONFIG_FILE}), so messages cannot be used")
        tokens = {name: token for name, token in self._tokens.items() if token is not None}
        try:
            with bounded_memory(RENDER_BYTES), bounded_time(RENDER_SECONDS):
                return self._template.render(
                    messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **tokens, **variables
                )
        except TooLongError as error:
            raise TemplateTimeError(f"the chat template refused the messages: {error}") from error
        except Exception as error:  # a template is a program: it can fail in any way, most often by its own raise_exception
            raise TokenizerError(f"the chat template refused the messages: {one_line(error)}") from error

    def _bos(self) -> list[int]:
        return [self.bos_id] if self._adds_bos and self.bos_id is not None else []

    def _special_id(self, name: str) -> int | None:
        token = self._tokens[name]
        if token is None:
            return None
        index = self._backend.token_to_id(token)
        if index is None:
            raise TokenizerError(f"{name} {token!r} is not a token of {TOKENIZER_FILE}")
        if index >= self.vocab_size:
            raise TokenizerError(f"{name}: {self._outside(index, token)}")
        return int(index)

    def _encoding(self, text: str) -> tokenizers.Encoding:
        with refused_as(TokenizerError, f"text that cannot be tokenised, {text[:40]!r}"):
            encoding = self._backend.encode(text, add_special_tokens=False)
        if encoding.ids and (highest := max(encoding.ids)) >= self.vocab_size:
            raise TokenizerError(self._outside(highest, encoding.tokens[encoding.ids.index(highest)]))
        return encoding

    def _outside(self, index: int, token: str) -> str:
        return f"token {index} ({token!r}) is outside the model's vocabulary of {self.vocab_size}"


def local_time() -> datetime:
    """To the second, without a zone."""
    return datetime.now().replace(microsecond=0)


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, FILE_BYTES[path.name])
    except FileNotFoundError:
        raise TokenizerError(f"{path}: no such file; a tokenizer needs {TOKENIZER_FILE} and {CONFIG_FILE}") from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from error


def _read_text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error


def _read_config(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not readable JSON: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise TokenizerError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def _token(config: Mapping[str, Any], name: str) -> str | None:
    value = config.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not (isinstance(value, str) and SURROGATE.search(value) is None):
        raise TokenizerError(f'{name}: expected a string or {{"content": string}}, found {one_line(repr(config[name]), 80)}')
    return value or None


def _end_ids(config: Mapping[str, Any]) -> frozenset[int]:
    value = config.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(index) is int for index in ids):
        raise TokenizerError(f"eos_token_id: expected a number or a list of numbers, found {one_line(repr(value), 80)}")
    return frozenset(ids)


def _chat_template(config: Mapping[str, Any]) -> str | None:
    """The template, or the one named `default` in a list of {name, template}, or else the list's first."""
    value = config.get("chat_template")
    if isinstance(value, list):
        if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) and "template" in entry for entry in value):
            raise TokenizerError("chat_template: expected a list of {name, template}")
        named = {entry["name"]: entry["template"] for entry in reversed(value)}
        value = named.get("default", next(reversed(named.values()), None))
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f"chat_template: expected a string or a list of {{name, template}}, found {type(value).__name__}")
    return value or None


def _byte_ids(backend: tokenizers.Tokenizer) -> Iterator[int]:
    """The tokens that stand for a byte by their name, `<0x41>`, where the decoder takes them so."""
    if backend.decoder is not None and b'"ByteFallback"' in backend.decoder.__getstate__():
        for high, low in itertools.product(string.hexdigits, repeat=2):
            if (index := backend.token_to_id(f"<0x{high}{low}>")) is not None:
                yield index


def _adds_bos(backend: tokenizers.Tokenizer, config: Mapping[str, Any], bos_id: int) -> bool:
    """What the configuration says outright; else what the tokenizer's post-processor does to an empty text."""
    if isinstance(stated := config.get("add_bos_token"), bool):
        return stated
    return bool(backend.encode("", add_special_tokens=True).ids[:1] == [bos_id])
