"""What one line of a data file says: a text, a prompt with its completion, or a conversation. Specification: docs/data.md.

ShareGPT's and Alpaca's forms are conversations by other names, and are read as the tools of their own world read them. A key that no form
has is passed over and named, so that the report can count it. Android's and iOS' readers say the same, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from lcsb_mobile.config import Record
from lcsb_mobile.errors import DataError
from lcsb_mobile.io.bounded import one_line

FORMS = '{"text"}, {"prompt", "completion"}, {"messages"}, {"conversations"} or {"instruction", "output"}'
# What each form must have, and what it may have beside that. A `system` is what the model is told first, where no turn says it.
REQUIRED: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("prompt", "completion"),
    ("messages",),
    ("conversations",),
    ("instruction", "output"),
)
OPTIONAL = {"messages": ("system",), "conversations": ("system",), "instruction": ("input", "system", "history")}
TURN_KEYS = (("role", "content"), ("from", "value"))
TURN_FORMS = '{"role", "content"} or {"from", "value"}'
# `from` of ShareGPT. Tools' calls and results (`function_call`, `observation`, `tool`) are refused: each template has a way of its own.
SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

NOT_UTF8 = "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
SHOWN_CHARACTERS = 200  # of what a stranger's file says, in an error
KEY_CHARACTERS = 40  # of a key that is passed over, in the report
# To say why a line was refused; it does not decide.
HALF_PAIR = re.compile(r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")


class TextLine(Record, frozen=True):
    """Every token is counted, the end token too; the first has nothing before it that could predict it."""

    text: str


class CompletionLine(Record, frozen=True):
    """The completion and the end token are counted."""

    prompt: str
    completion: str


class Message(Record, frozen=True):
    role: str
    content: str


class ChatLine(Record, frozen=True):
    """The assistant's turns are counted, with the tokens that end them. What follows the last of them is dropped."""

    messages: tuple[Message, ...]


Line = TextLine | CompletionLine | ChatLine


class Decoded(NamedTuple):
    """`further_keys`: those that were passed over, in their order, each once; of a turn as `messages[].name`."""

    line: Line
    further_keys: tuple[str, ...]


def is_blank(raw: bytes) -> bool:
    return not raw.lstrip().startswith(b"{") and not raw.decode("utf-8-sig", "replace").strip()


def decode_line(raw: bytes) -> Decoded:
    """One line's record. Raises DataError with what was expected and found."""
    fields = _fields(_text(raw))
    form = _form(fields)
    known = {*form, *OPTIONAL.get(form[0], ())}
    further = [key for key in fields if key not in known]
    line: Line
    if form == ("text",):
        line = TextLine(_nonempty("text", fields))
    elif form == ("prompt", "completion"):
        line = CompletionLine(_nonempty("prompt", fields), _nonempty("completion", fields))
    else:
        turns = _alpaca(fields) if form == ("instruction", "output") else _turns(form[0], fields, further)
        line = ChatLine(_with_system(turns, fields, further))
        if not any(message.content for message in line.messages):
            raise DataError(f"{form[0]}: expected text, found an empty string")
    return Decoded(line, tuple(dict.fromkeys(map(_shown_key, further))))


def _text(raw: bytes) -> str:
    if utf16(raw) is not None:
        raise DataError(NOT_UTF8)
    try:
        text = raw.decode("utf-8-sig")  # editors on Windows put a byte order mark before the first line
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error.reason} at byte {error.start}; save the file as UTF-8") from error
    if not text.strip():
        raise DataError(f"a blank line; expected {FORMS}")
    return text


def utf16(raw: bytes) -> str | None:
    """UTF-16, or UTF-16LE or UTF-16BE without a mark, where the first two bytes are of it: JSON and CSV begin with ASCII."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    if len(raw) < 2 or (raw[0] == 0) == (raw[1] == 0):
        return None
    return "UTF-16BE" if raw[0] == 0 else "UTF-16LE"


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "half a surrogate pair" if HALF_PAIR.search(text) else str(error)
        raise DataError(f"not JSON: {reason}") from error
    if not isinstance(fields, dict):
        raise DataError(f"expected an object, found {_kind(fields)}")
    return fields


def _form(fields: Mapping[str, Any]) -> tuple[str, ...]:
    forms = [form for form in REQUIRED if all(key in fields for key in form)]
    if len(forms) == 1:
        return forms[0]
    if forms:
        raise DataError(f"more than one form: expected the keys of one of {FORMS}, found {_names(key for form in forms for key in form)}")
    raise DataError(f"expected the keys of {FORMS}, found {_names(fields)}")


def _turns(name: str, fields: Mapping[str, Any], further: list[str]) -> list[Message]:
    """The conversation of `messages` or `conversations`. Adds to `further` the turns' keys that are passed over."""
    turns = fields[name]
    if not isinstance(turns, list):
        raise DataError(f"{name}: expected an array, found {_kind(turns)}")
    if not turns:
        raise DataError(f"{name}: expected at least one turn, found an empty array")
    return [_turn(f"{name}[{index}]", turn, name, further) for index, turn in enumerate(turns)]


def _turn(place: str, turn: object, name: str, further: list[str]) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"{place}: expected an object, found {_kind(turn)}")
    forms = [keys for keys in TURN_KEYS if all(key in turn for key in keys)]
    if len(forms) != 1:
        raise DataError(f"{place}: expected the keys of {TURN_FORMS}, found {_names(turn)}")
    role_key, content_key = forms[0]
    role, content = (_string(f"{place}.{key}", turn[key]) for key in forms[0])
    if not role:
        raise DataError(f"{place}.{role_key}: expected text, found an empty string")
    if role_key == "from":
        if role not in SHAREGPT_ROLES:
            raise DataError(f"{place}.from: expected system, human or gpt, found {_names([role])}")
        role = SHAREGPT_ROLES[role]
    further += [f"{name}[].{key}" for key in turn if key not in (role_key, content_key)]
    return Message(role, content)


def _alpaca(fields: Mapping[str, Any]) -> list[Message]:
    """The pairs of `history`, then instruction and input, a line each, as the user's turn, and the output as the assistant's."""
    history = fields.get("history")
    if history is not None and not isinstance(history, list):
        raise DataError(f"history: expected an array, found {_kind(history)}")
    turns: list[Message] = []
    for index, pair in enumerate(history or ()):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"history[{index}]: expected an array of two strings")
        texts = [_string(f"history[{index}][{place}]", text) for place, text in enumerate(pair)]
        turns += [Message(USER, texts[0]), Message(ASSISTANT, texts[1])]
    instruction, output = (_string(name, fields[name]) for name in ("instruction", "output"))
    question = "\n".join(part for part in (instruction, _optional("input", fields)) if part)
    return [*turns, Message(USER, question), Message(ASSISTANT, output)]


def _with_system(turns: list[Message], fields: Mapping[str, Any], further: list[str]) -> tuple[Message, ...]:
    """With the text of `system` before it, unless the conversation begins with such a turn: then that one counts."""
    system = _optional("system", fields)
    if system and turns[0].role == SYSTEM:
        further.append("system")
    elif system:
        return (Message(SYSTEM, system), *turns)
    return tuple(turns)


def _nonempty(name: str, fields: Mapping[str, Any]) -> str:
    if not (text := _string(name, fields[name])):
        raise DataError(f"{name}: expected text, found an empty string")
    return text


def _optional(name: str, fields: Mapping[str, Any]) -> str:
    """Libraries write null for what a record does not have."""
    value = fields.get(name)
    return "" if value is None else _string(name, value)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name}: expected a string, found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    """A value's kind in words, with its article."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), "a number")


def _names(keys: Iterable[str]) -> str:
    return one_line(", ".join(repr(key[:SHOWN_CHARACTERS]) for key in sorted(keys)) or "none", SHOWN_CHARACTERS)


def _shown_key(key: str) -> str:
    return key if len(key) <= KEY_CHARACTERS else f"{key[:KEY_CHARACTERS]}…"
