"""A chat template as data, so that a phone needs no renderer of templates: the contents of a bundle's `chat.json`.

It says how a conversation of the roles system, user and assistant is written: what stands before and after each content, what in place of a
system's message that is not given, and what a turn of the assistant begins with. Exporting a bundle derives it from the template and proves
that it writes the same (`export/chat_format.py`); a template that is of no such form has no `chat.json`. Python itself goes on with the
template.
"""

from __future__ import annotations

from lcsb_mobile.config import Record

CHAT_FILE = "chat.json"
CHAT_BYTES = 2**16  # that are read
DATE_MARK = "\ue000"  # of `opening` and `system.before`: stands for the day of rendering, in `date_format`


class ChatTurn(Record, frozen=True):
    """`trimmed`: the content is written without the blanks at both ends, as Python's `strip` takes them away."""

    before: str
    after: str
    trimmed: bool


class ChatThoughts(Record, frozen=True):
    """A thought stands in an assistant's content between the marks that `open` and `close` are without their ends of lines.

    It is written between `open` and `close` in turns after the last user's: in the conversation's last turn even where it is empty, in
    others where there is one. Elsewhere it is left out. `without_question`: a conversation without a user's turn is all after it. `strips`:
    where a thought is written, ends of lines before the answer go even if it came without one.
    """

    open: str
    close: str
    without_question: bool
    strips: bool


class ChatFormat(Record, frozen=True, kw_only=True):
    """A conversation is `opening`, or for one that begins with a system's message `system`; then the turns; then `generation_prompt` if
    asked for.

    `empty`: a conversation without messages; None where the template refuses one. `system`: None where it is refused. `system_in_next`: its
    content and what is `after` it stand in the turn that follows, between that one's `before` and its content. `later_system`: of one that
    is not the first message. `alternates`: user and assistant take turns, the user first, or the conversation is refused. `date_format`:
    for C's `strftime`.
    """

    format_version: int = 1
    empty: str | None
    opening: str
    system: ChatTurn | None
    system_in_next: bool
    later_system: ChatTurn | None
    user: ChatTurn
    assistant: ChatTurn
    generation_prompt: str
    alternates: bool
    thoughts: ChatThoughts | None
    date_format: str | None
