"""Training data: JSON lines to examples, examples to packed sequences.

A label stands at the position that predicts it: `labels[t]` is the token after t. What a label counts for depends on the
form of the line: all of a `text`, the completion of a `prompt`, the assistant's turns of `messages`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from lcsb_mobile.batch import IGNORED_LABEL, Batch
from lcsb_mobile.config import Record
from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.tokenizer import Tokenizer

FORMS = '{"text"}, {"prompt", "completion"} or {"messages"}'


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
    """The assistant's turns are counted, with the tokens that end them."""

    messages: tuple[Message, ...]


Line = TextLine | CompletionLine | ChatLine


@dataclass(frozen=True)
class Example:
    """Two lists of one length. `labels[t]` is the token after position t where it is counted, else IGNORED_LABEL.

    The last label is ignored, unless the example was truncated: then the token after the last position is known.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def counted_labels(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED_LABEL)


@dataclass(frozen=True)
class DataReport:
    """What a data file came to. `tokens` and `counted_labels` are those of the `examples` that are trained on.

    `truncated` examples lost `tokens_cut` tokens to the sequence length; `without_labels` examples were dropped because
    nothing to learn was left of them. So lines = examples + without_labels.
    """

    lines: int
    examples: int
    tokens: int
    counted_labels: int
    truncated: int
    tokens_cut: int
    without_labels: int


def read_examples(path: Path, tokenizer: Tokenizer, seq_len: int) -> tuple[list[Example], DataReport]:
    """Reads one example a line, each cut to `seq_len` tokens.

    Raises DataError "FILE:LINE: reason" for the first malformed line, and when nothing to train on is left; TokenizerError
    likewise when a token is outside the model's vocabulary or `messages` meet a tokenizer without a chat template.
    """
    examples: list[Example] = []
    lines = truncated = tokens_cut = 0
    for number, raw in _lines(path):
        lines += 1
        try:
            whole = make_example(_decode(raw), tokenizer)
        except (DataError, TokenizerError) as error:
            raise type(error)(f"{path}:{number}: {error}") from error
        if (excess := len(whole.input_ids) - seq_len) > 0:
            truncated += 1
            tokens_cut += excess
        example = Example(whole.input_ids[:seq_len], whole.labels[:seq_len])
        if example.counted_labels:
            examples.append(example)
    if not lines:
        raise DataError(f"{path}: the file is empty; expected one JSON object a line: {FORMS}")
    if not examples:
        raise DataError(
            f"{path}: nothing to train on: none of the {lines} lines has a counted label within {seq_len} tokens; "
            "use longer texts or a larger sequence length"
        )
    tokens = sum(len(example.input_ids) for example in examples)
    counted = sum(example.counted_labels for example in examples)
    return examples, DataReport(lines, len(examples), tokens, counted, truncated, tokens_cut, lines - len(examples))


def make_example(line: Line, tokenizer: Tokenizer) -> Example:
    """One line's tokens and labels, not truncated. Raises DataError or TokenizerError without a file's name."""
    if isinstance(line, TextLine):
        ids = tokenizer.encode_document(line.text)
        return _shifted(ids, [True] * len(ids))
    if isinstance(line, CompletionLine):
        # Apart, not as one text: a prompt's tokens must be those that generating from the prompt will give the model.
        prompt = tokenizer.encode_prompt(line.prompt)
        completion = tokenizer.encode_continuation(line.completion) + tokenizer.eos()
        return _shifted(prompt + completion, [False] * len(prompt) + [True] * len(completion))
    return _chat_example(line.messages, tokenizer)


def _shifted(ids: list[int], counted: Sequence[bool]) -> Example:
    """`counted[t]`: whether predicting token t counts."""
    labels = [token if count else IGNORED_LABEL for token, count in zip(ids[1:], counted[1:], strict=True)]
    return Example(ids, [*labels, IGNORED_LABEL] if ids else [])


def _chat_example(messages: Sequence[Message], tokenizer: Tokenizer) -> Example:
    """The rendered conversation, tokenised once. A token counts when any of its characters is in an assistant's turn."""
    turns = [msgspec.to_builtins(message) for message in messages]
    whole = tokenizer.render_chat(turns)
    spans = []
    for index, turn in enumerate(turns):
        if turn["role"] == "assistant":
            before = tokenizer.render_chat(turns[:index], add_generation_prompt=True)
            through = tokenizer.render_chat(turns[: index + 1])
            if not (through.startswith(before) and whole.startswith(through)):
                raise DataError(
                    f"the chat template rewrites earlier text at messages[{index}], so that turn cannot be found; "
                    "give it as prompt and completion"
                )
            spans.append((len(before), len(through)))
    if not spans:
        raise DataError("messages: expected at least one with the role 'assistant', found none")
    ids, offsets = tokenizer.encode_with_offsets(whole)
    return _shifted(ids, _overlaps(offsets, spans))


def _overlaps(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """For each token whether it shares a character with a span. Both are in the order of the text."""
    result, current = [], 0
    for start, end in offsets:
        while current < len(spans) and spans[current][1] <= start:
            current += 1
        result.append(current < len(spans) and end > spans[current][0] and end > start)
    return result


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines and their numbers from 1, read as they are needed."""
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _decode(raw: bytes) -> Line:
    """One line's record. Raises DataError with what was expected and found."""
    try:
        text = raw.decode("utf-8-sig")  # editors on Windows put a byte order mark before the first line
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise DataError(f"a blank line; expected {FORMS}")
    try:
        keys = set(msgspec.json.decode(text, type=dict[str, msgspec.Raw]))
        line: Line = msgspec.json.decode(text, type=_form(keys))
    except msgspec.ValidationError as error:
        raise DataError(str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"not JSON: {error}") from error
    for name, value in _strings(line):
        if not value:
            raise DataError(f"{name}: expected text, found an empty string")
    return line


def _form(keys: set[str]) -> type[Line]:
    if "text" in keys and keys.isdisjoint({"prompt", "completion", "messages"}):
        return TextLine
    if keys & {"prompt", "completion"} and keys.isdisjoint({"text", "messages"}):
        return CompletionLine
    if "messages" in keys and keys.isdisjoint({"text", "prompt", "completion"}):
        return ChatLine
    raise DataError(f"expected the keys of {FORMS}, found {', '.join(map(repr, sorted(keys))) or 'none'}")


def _strings(line: Line) -> Iterator[tuple[str, str]]:
    """The texts that must not be empty, with their names. A single turn of a conversation may be."""
    if isinstance(line, ChatLine):
        yield from (("messages[].role", message.role) for message in line.messages)
        yield "messages", "".join(message.content for message in line.messages)
    else:
        yield from msgspec.structs.asdict(line).items()


def pack(examples: Iterable[Example], seq_len: int, pad_id: int) -> list[Batch]:
    """Sequences of `seq_len` tokens with the examples in order, each a segment (numbered from 0, positions from 0).

    Next fit: a sequence is closed when the next example does not fit. What is left of it is padding, the last segment.
    Raises ValueError for an example that is longer than `seq_len`, or has no counted label.
    """
    return list(_packed(examples, seq_len, pad_id))


def epochs(examples: Sequence[Example], seq_len: int, pad_id: int, seed: int) -> Iterator[Batch]:
    """Packed sequences without end: every epoch holds each example once, in an order of its own.

    Epoch e's order depends on `seed` and e alone. A run that resumes skips the batches it has had (`itertools.islice`).
    Raises ValueError as `pack` does, and for no examples.
    """
    if not examples:
        raise ValueError("expected examples, found none")
    epoch = 0
    while True:
        order = list(range(len(examples)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from _packed((examples[index] for index in order), seq_len, pad_id)
        epoch += 1


def fill(batches: Iterable[Batch]) -> float:
    """The share of tokens that are not padding, from 0 to 1. Padding is a last segment without counted labels."""
    total = padding = 0
    for batch in batches:
        total += len(batch.segment_ids)
        last = batch.segment_ids == batch.segment_ids[-1]
        if (batch.labels[last] == IGNORED_LABEL).all():
            padding += int(np.count_nonzero(last))
    return 1.0 - padding / total if total else 0.0


def _packed(examples: Iterable[Example], seq_len: int, pad_id: int) -> Iterator[Batch]:
    waiting: list[Example] = []
    room = seq_len
    for example in examples:
        size = len(example.input_ids)
        if size > seq_len or not example.counted_labels:
            raise ValueError(f"expected an example of at most {seq_len} tokens with a counted label, found {size} tokens")
        if size > room:
            yield _sequence(waiting, seq_len, pad_id)
            waiting, room = [], seq_len
        waiting.append(example)
        room -= size
    if waiting:
        yield _sequence(waiting, seq_len, pad_id)


def _sequence(examples: Sequence[Example], seq_len: int, pad_id: int) -> Batch:
    """One batch of `seq_len` tokens; the examples fit."""
    input_ids = np.full(seq_len, pad_id, np.int64)
    labels = np.full(seq_len, IGNORED_LABEL, np.int64)
    position_ids = np.empty(seq_len, np.int64)
    segment_ids = np.full(seq_len, len(examples), np.int64)
    start = 0
    for segment, example in enumerate(examples):
        end = start + len(example.input_ids)
        input_ids[start:end] = example.input_ids
        labels[start:end] = example.labels
        position_ids[start:end] = np.arange(end - start)
        segment_ids[start:end] = segment
        start = end
    position_ids[start:] = np.arange(seq_len - start)
    return Batch(input_ids, labels, position_ids, segment_ids)
