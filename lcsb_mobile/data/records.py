"""One line of a data file to one example: tokens, and which of them count for the loss. Specification: docs/data.md.

A label stands at the position that predicts it: `labels[t]` is the token after t. What a label counts for depends on the
form of the line: all of a `text`, the completion of a `prompt`, the assistant's turns of a conversation.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.data.line_record import ASSISTANT, CompletionLine, Line, Message, TextLine, decode_line
from lcsb_mobile.errors import DataError, TemplateTimeError, TokenizerError
from lcsb_mobile.io.bounded import TooLongError, bounded_time
from lcsb_mobile.text.tokenizer import Tokenizer

Int32Array: TypeAlias = npt.NDArray[np.int32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Form = Literal["text", "completion", "messages"]
Span = tuple[int, int]

LINE_SECONDS = 60.0  # that the chat template may take for a line: a thousand turns take it some ten
MOST_MESSAGES = 1000  # of a line: each of the assistant's turns is found by rendering the conversation up to it


@dataclass(frozen=True, eq=False)
class Example:
    """Two arrays of one length. `labels[t]` is the token after position t where it is counted, else IGNORED_LABEL.

    The last label is ignored, unless the example was truncated: then the token after the last position is known.
    """

    input_ids: Int32Array
    labels: Int32Array

    @property
    def counted_labels(self) -> int:
        return int(np.count_nonzero(self.labels != IGNORED_LABEL))

    def cut(self, length: int) -> Example:
        """Its first `length` tokens."""
        return Example(self.input_ids[:length], self.labels[:length])


@dataclass(frozen=True)
class LineExample:
    """One line's example, not truncated. `uncounted_turns`: those of the assistant that its chat template does not let be found.
    `doubled_ends`: as `has_doubled_ends`. `further_keys`: those of the line that were passed over."""

    example: Example
    form: Form
    uncounted_turns: int = 0
    doubled_ends: bool = False
    further_keys: tuple[str, ...] = ()


def read_line(raw: bytes, tokenizer: Tokenizer) -> LineExample:
    """Decodes and tokenises one line. Raises DataError or TokenizerError without a file's name."""
    line, further = decode_line(raw)
    read = _read(line, tokenizer)
    doubled = has_doubled_ends(read.example.input_ids.tolist(), tokenizer.bos_id, tokenizer.eos_id)
    return replace(read, doubled_ends=doubled, further_keys=further)


def has_doubled_ends(ids: Sequence[int], bos_id: int | None, eos_id: int | None) -> bool:
    """Whether an example begins with two tokens of beginning, or two of end stand together in it: its text held one, and got another."""
    begins = bos_id is not None and list(ids[:2]) == [bos_id, bos_id]
    return begins or any(pair == (eos_id, eos_id) for pair in itertools.pairwise(ids))


def _read(line: Line, tokenizer: Tokenizer) -> LineExample:
    if isinstance(line, TextLine):
        ids = tokenizer.encode_document(line.text)
        return LineExample(_example(ids, np.ones(len(ids), np.bool_)), "text")
    if isinstance(line, CompletionLine):
        # Apart, not as one text: a prompt's tokens must be those that generating from the prompt will give the model.
        prompt = tokenizer.encode_prompt(line.prompt)
        completion = tokenizer.encode_continuation(line.completion) + tokenizer.eos()
        counted = np.arange(len(prompt) + len(completion)) >= len(prompt)
        return LineExample(_example(prompt + completion, counted), "completion")
    try:
        with bounded_time(LINE_SECONDS):  # of all its renderings; each has a bound of its own
            return _chat_example(line.messages, tokenizer)
    except TooLongError as error:  # between two of them
        raise TemplateTimeError(f"the conversation cannot be written: {error}; give it in parts, a line each") from error


def _example(ids: list[int], counted: BoolArray) -> Example:
    """`counted[t]`: whether predicting token t counts."""
    input_ids = np.array(ids, np.int32)
    labels = np.full(len(ids), IGNORED_LABEL, np.int32)
    labels[:-1] = np.where(counted[1:], input_ids[1:], IGNORED_LABEL)
    return Example(input_ids, labels)


def _chat_example(messages: Sequence[Message], tokenizer: Tokenizer) -> LineExample:
    """The conversation through the assistant's last turn, rendered and tokenised once.

    A token counts when any of its characters is in what the template marks as the assistant's, or, where it has no marks, in one of the
    assistant's turns that can be found.
    """
    assistant = [index for index, message in enumerate(messages) if message.role == ASSISTANT]
    if not assistant:
        raise DataError(f"messages: expected at least one with the role {ASSISTANT!r}, found none")
    if len(messages) > MOST_MESSAGES:
        raise DataError(f"messages: expected at most {MOST_MESSAGES}, found {len(messages)}; give the conversation in parts, a line each")
    turns = [msgspec.to_builtins(message) for message in messages[: assistant[-1] + 1]]
    text, spans = tokenizer.render_marked_chat(turns)
    uncounted = 0
    if spans is None:
        spans = [span for index in assistant[:-1] if (span := _earlier_turn(turns, index, text, tokenizer))]
        spans.append(_last_turn(turns, text, tokenizer))
        uncounted = len(assistant) - len(spans)
    ids, offsets = tokenizer.encode_with_offsets(text)
    return LineExample(_example(ids, _overlaps(offsets, spans, len(text))), "messages", uncounted)


def _last_turn(turns: Sequence[Mapping[str, str]], text: str, tokenizer: Tokenizer) -> Span:
    """Where the last turn stands in `text`, the conversation: what the model is to write after the generation prompt.

    Raises DataError when the conversation does not begin with that prompt.
    """
    before = tokenizer.render_chat(turns[:-1], add_generation_prompt=True)
    if not text.startswith(before):
        raise DataError(
            f"the chat template rewrites earlier text at messages[{len(turns) - 1}], so that turn cannot be found; "
            "give it as prompt and completion"
        )
    return len(before), len(text)


def _earlier_turn(turns: Sequence[Mapping[str, str]], index: int, text: str, tokenizer: Tokenizer) -> Span | None:
    """Where turn `index` stands in `text`. None when it is not there as the model writes it: some templates shorten a turn once
    others follow it, and to count the short form would teach the model to write that."""
    try:
        through = tokenizer.render_chat(turns[: index + 1])
        return _last_turn(turns[: index + 1], through, tokenizer) if text.startswith(through) else None
    except TemplateTimeError:
        raise
    except (DataError, TokenizerError):  # some refuse a conversation that ends there
        return None


def _overlaps(offsets: Sequence[Span], spans: Sequence[Span], length: int) -> BoolArray:
    """For each token whether it shares a character with a span, in a text of `length` characters."""
    inside = np.zeros(length + 1, np.int32)  # inside[c + 1]: whether character c is in a span
    for start, end in spans:
        inside[start + 1 : end + 1] = 1
    before = np.cumsum(inside, dtype=np.int32)  # before[c]: how many characters in spans stand before character c
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    result: BoolArray = before[ends] > before[starts]
    return result
