"""From a chat template to `chat.json`: probed with made-up conversations, then proved on others.

A template is a program; what it writes between contents is found by looking for the contents in what it renders. The proof renders many
conversations both ways: where one differs, or is refused by the template alone, there is no format.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.text.chat_format import CHAT_BYTES, CHAT_FILE, DATE_MARK, ChatFormat, ChatThoughts, ChatTurn
from lcsb_mobile.text.tokenizer import Tokenizer

Turn = Mapping[str, str]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)
DATE_FORMAT = re.compile("(?:[^%]|%[dmYbB])*")  # that a phone has code for
BLANKS = " \t\n"
TOOL = ("<tool_response>", "</tool_response>")
THINK, THOUGHT = ("<think>", "</think>"), "tqz"
# Of the proof: blanks at the ends, nothing, several lines, thoughts whole and broken off, what looks like a part of a template.
CONTENTS = (
    "qz",
    " \n\tqz  \n",
    "",
    "qz\n\nzq\r\n",
    "\n\nqz",
    "\u00a0\x1cqz\u2003",
    "<think>\ntz\n</think>\n\nqz",
    "\n<think>\n\n tz \n\n</think>qz ",
    "a</think>b<think>c",
    "x<think>y</think>z</think>\n\n\nw",
    "{{ qz }}{% if %}",
    "<tool_response>\nqz\n</tool_response>",
    "é🙂",
)
MOST_ROLES = 5  # of a proof's conversations


class NotOfThisForm(Exception):
    """A template does what ChatFormat cannot say."""


class Refused(Exception):
    """A conversation that a format does not take."""


def write_chat_format(directory: Path, tokenizer: Tokenizer) -> str | None:
    """Writes `chat.json` where the tokenizer has a chat template of that form. Returns why not, as a sentence, for one of another form."""
    if not tokenizer.has_chat_template:
        return None
    try:
        content = msgspec.json.format(msgspec.json.encode(derive(tokenizer)), indent=1)
        if len(content) > CHAT_BYTES:
            raise NotOfThisForm(f"it takes {len(content)} bytes, more than {CHAT_BYTES}")
    except NotOfThisForm as error:
        return f"no {CHAT_FILE}, so that a phone cannot use messages: the chat template is of no known form: {error}"
    (directory / CHAT_FILE).write_bytes(content + b"\n")
    return None


def derive(tokenizer: Tokenizer) -> ChatFormat:
    """Raises NotOfThisForm."""
    template = _Template(tokenizer)
    if template.marks:
        raise NotOfThisForm("it marks itself what the assistant writes ({% generation %})")
    chat = _Probes(template).format()
    for messages, prompt in _conversations():
        wanted, found = template.text(messages, prompt), _text_or_none(chat, messages, prompt, DATE_MARK)
        if found is not None and found != wanted:
            raise NotOfThisForm(f"a conversation of {', '.join(turn['role'] for turn in messages) or 'nothing'} is written otherwise")
    return chat


def render(chat: ChatFormat, messages: Sequence[Turn], add_generation_prompt: bool, date: str) -> str:
    """What a phone writes. `date`: today in `chat.date_format`. Raises Refused."""
    prompt = chat.generation_prompt if add_generation_prompt else ""
    if not messages:
        if chat.empty is None:
            raise Refused
        return chat.empty + prompt
    if any(turn["role"] not in ROLES for turn in messages) or (chat.thoughts is not None and any(map(_is_tools, messages))):
        raise Refused
    text, in_next, rest = chat.opening, "", messages
    if messages[0]["role"] == SYSTEM:
        if chat.system is None:
            raise Refused
        system, rest = _content(chat.system, messages[0]["content"]) + chat.system.after, messages[1:]
        text, in_next = (chat.system.before, system) if chat.system_in_next else (chat.system.before + system, "")
    text = text.replace(DATE_MARK, date) if chat.date_format is not None else text
    for place, turn in enumerate(rest):
        if chat.alternates and turn["role"] != (USER, ASSISTANT)[place % 2]:
            raise Refused
        text += _turn(chat, messages, len(messages) - len(rest) + place, in_next if place == 0 else "")
    return text + prompt


def _is_tools(turn: Turn) -> bool:
    """Qwen3's template takes such a turn of the user for a tool's: not for a question, so that thoughts before it stay."""
    return turn["role"] == USER and turn["content"].startswith(TOOL[0]) and turn["content"].endswith(TOOL[1])


def _turn(chat: ChatFormat, messages: Sequence[Turn], index: int, in_next: str) -> str:
    role, content = messages[index]["role"], messages[index]["content"]
    turn = {SYSTEM: chat.later_system, USER: chat.user, ASSISTANT: chat.assistant}[role]
    if turn is None:
        raise Refused
    content = _content(turn, content)
    if chat.thoughts is not None and role == ASSISTANT:
        questions = [place for place, other in enumerate(messages) if other["role"] == USER]
        after = index > questions[-1] if questions else chat.thoughts.without_question
        content = _answer(chat.thoughts, content, after, index == len(messages) - 1)
    return turn.before + in_next + content + turn.after


def _answer(thoughts: ChatThoughts, content: str, after: bool, last: bool) -> str:
    start, end = thoughts.open.strip("\n"), thoughts.close.strip("\n")
    thought, answer = "", content
    if end in content:
        thought = content.split(end)[0].split(start)[-1].strip("\n")
        answer = content.split(end)[-1].lstrip("\n")
    if not (after and (last or thought)):
        return answer
    return thoughts.open + thought + thoughts.close + (answer.lstrip("\n") if thoughts.strips else answer)


def _content(turn: ChatTurn, content: str) -> str:
    return content.strip() if turn.trimmed else content


def _text_or_none(chat: ChatFormat, messages: Sequence[Turn], prompt: bool, date: str) -> str | None:
    try:
        return render(chat, messages, prompt, date)
    except Refused:
        return None


class _Template:
    """The tokenizer's template on a day that is always DATE_MARK."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._date_formats: set[str] = set()

    def text(self, messages: Sequence[Turn], add_generation_prompt: bool = False) -> str | None:
        """None where it refuses the messages. Raises NotOfThisForm for a date that a phone has no code for."""
        try:
            text = self._tokenizer.render_chat(messages, add_generation_prompt, strftime_now=self._today)
        except TokenizerError:
            text = None
        if len(self._date_formats) > 1 or any(not DATE_FORMAT.fullmatch(pattern) for pattern in self._date_formats):
            raise NotOfThisForm(f"it writes the date as {', '.join(map(repr, sorted(self._date_formats)))}")
        return text

    @property
    def marks(self) -> bool:
        """Whether it says which text is the assistant's."""
        try:
            return self._tokenizer.render_marked_chat(_turns([(USER, "u1"), (ASSISTANT, "a1")]))[1] is not None
        except TokenizerError:
            return False

    @property
    def date_format(self) -> str | None:
        """What it asked for, once it was rendered."""
        return next(iter(self._date_formats), None)

    def _today(self, pattern: str) -> str:
        self._date_formats.add(pattern)
        return DATE_MARK


@dataclass(frozen=True)
class _Probes:
    """What a template writes around contents that no template has."""

    template: _Template

    def format(self) -> ChatFormat:
        between = self._around([(USER, "u1"), (ASSISTANT, "a1"), (USER, "u2"), (ASSISTANT, "a2"), (USER, "u3")])
        user_after = self._around([(USER, "u1")])[-1]
        last = self._around([(USER, "u1"), (ASSISTANT, "a1")])
        user_before = _without_start(between[2], last[-1])
        user = ChatTurn(user_before, user_after, self._trims([], USER, [ASSISTANT]))
        before = _without_start(between[1], user_after)
        assistant = ChatTurn(before, last[-1], self._trims([USER], ASSISTANT, [USER]))
        system, in_next = self._system(user)
        return ChatFormat(
            empty=self.template.text([]),
            opening=_without_end(between[0], user_before),
            system=system,
            system_in_next=in_next,
            later_system=self._later_system(user),
            user=user,
            assistant=assistant,
            generation_prompt=self._generation_prompt(),
            alternates=self.template.text(_turns([(USER, "u1"), (USER, "u2")])) is None,
            thoughts=self._thoughts(_without_start(last[1], user_after + before)),
            date_format=self.template.date_format,
        )

    def _around(self, turns: Sequence[tuple[str, str]]) -> list[str]:
        """The texts before, between and behind the contents."""
        text = self.template.text(_turns(turns))
        if text is None:
            raise NotOfThisForm(f"it refuses a conversation of {', '.join(role for role, _ in turns)}")
        parts = []
        for _, content in turns:
            before, found, text = text.partition(_probe(content))
            if not found:
                raise NotOfThisForm("it does not write every content as it stands")
            parts.append(before)
        return [*parts, text]

    def _generation_prompt(self) -> str:
        turns = _turns([(USER, "u1")])
        without, with_prompt = self.template.text(turns), self.template.text(turns, True)
        return _without_start(with_prompt or "", without or "")

    def _trims(self, before: list[str], role: str, after: list[str]) -> bool:
        roles = [*before, role, *after]
        contents = [f"{BLANKS}{_probe('c')}{BLANKS}" if place == len(before) else _probe(f"o{place}") for place in range(len(roles))]
        text = self.template.text([{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)])
        return contents[len(before)] not in (text or "")

    def _system(self, user: ChatTurn) -> tuple[ChatTurn | None, bool]:
        if self.template.text(_turns([(SYSTEM, "s1"), (USER, "u1")])) is None:
            return None, False
        before, between, _ = self._around([(SYSTEM, "s1"), (USER, "u1")])
        trimmed = self._trims([], SYSTEM, [USER])
        if between.endswith(user.before):
            return ChatTurn(before, _without_end(between, user.before), trimmed), False
        return ChatTurn(_without_end(before, user.before), between, trimmed), True

    def _later_system(self, user: ChatTurn) -> ChatTurn | None:
        turns = [(USER, "u1"), (SYSTEM, "s1"), (USER, "u2")]
        if self.template.text(_turns(turns)) is None:
            return None
        _, before, after, _ = self._around(turns)
        return ChatTurn(_without_start(before, user.after), _without_end(after, user.before), self._trims([USER], SYSTEM, [USER]))

    def _thoughts(self, written: str) -> ChatThoughts | None:
        """`written`: what stands before the answer in a conversation's last turn alone."""
        if not written:
            return None
        start, end = THINK
        turns = [{"role": USER, "content": "u"}, {"role": ASSISTANT, "content": f"{start}{THOUGHT}{end}{_probe('a1')}"}]
        head, _, tail = (self.template.text(turns) or "").partition(THOUGHT)
        close = tail.partition(_probe("a1"))[0]
        opened = head.rpartition(start)
        if not close.strip("\n") == end or opened[1] != start or written != start + opened[2] + close:
            raise NotOfThisForm("its last turn differs from those before it")
        alone = self.template.text([{"role": ASSISTANT, "content": _probe("a1")}])
        newline = self.template.text([{"role": USER, "content": "u"}, {"role": ASSISTANT, "content": "\n" + _probe("a1")}]) or ""
        return ChatThoughts(start + opened[2], close, close + _probe("a1") in (alone or ""), close + "\n" not in newline)


def _probe(name: str) -> str:
    return f"zq{name}qz"


def _turns(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": _probe(content)} for role, content in turns]


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise NotOfThisForm("it writes a turn otherwise in another place")
    return text[len(start) :]


def _without_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise NotOfThisForm("it writes a turn otherwise in another place")
    return text[: len(text) - len(end)]


def _conversations() -> Iterator[tuple[list[dict[str, str]], bool]]:
    """Every order of roles up to MOST_ROLES, with contents that go around; and every content in every place of a few."""
    contents = itertools.cycle(CONTENTS)
    for count in range(MOST_ROLES + 1):
        for roles in itertools.product(ROLES, repeat=count):
            for prompt in (False, True):
                yield [{"role": role, "content": next(contents)} for role in roles], prompt
    turn = (USER, ASSISTANT)
    for roles in ((SYSTEM, USER), turn, (SYSTEM, *turn), (*turn, *turn), (*turn, ASSISTANT)):
        for place, content in itertools.product(range(len(roles)), CONTENTS):
            for prompt in (False, True):
                yield [{"role": role, "content": content if at == place else f"q{at}z"} for at, role in enumerate(roles)], prompt
