"""Foreign code within a bounded time, wherever it runs."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from helpers.data import byte_backend, make_tokenizer

from lcsb_mobile.data import records
from lcsb_mobile.data.records import read_line
from lcsb_mobile.errors import TemplateTimeError, TokenizerError
from lcsb_mobile.io.bounded import TooLongError, bounded_time
from lcsb_mobile.text import tokenizer as tokenizer_module

# Programs of templates that never end, or not in a lifetime. None takes much memory.
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = {
    "two loops": LOOPS,
    "a loop's condition": LOOPS.replace("range(99999) %}{% endfor %}", "range(99999) if b is none %}{% endfor %}"),
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "squares": "{% set n = namespace(x=3) %}{% for a in range(40) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "filters": "{% for a in range(99999) %}{% set x = range(99999) | map('string') | join | length %}{% endfor %}",
}


# A single instruction of Python's is ended by the main thread's timer alone.
PLACES = [(name, thread) for name in HOSTILE for thread in (False, True) if not thread or name not in ("a power", "squares")]


@pytest.mark.parametrize(("name", "thread"), PLACES)
def test_a_template_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, thread: bool) -> None:
    monkeypatch.setattr(tokenizer_module, "RENDER_SECONDS", 0.2)
    tokenizer = make_tokenizer(byte_backend(), HOSTILE[name])
    started, faults = time.monotonic(), []

    def render() -> None:
        with pytest.raises(TokenizerError, match=r"the chat template refused the messages: it took more than 0\.2 seconds"):
            tokenizer.render_chat([{"role": "user", "content": "a"}])
        faults.append(None)

    if thread:
        other = threading.Thread(target=render)
        other.start()
        other.join()
    else:
        render()
    assert faults == [None] and time.monotonic() - started < 5


@pytest.mark.parametrize("thread", [False, True], ids=["main", "another"])
def test_it_is_the_time_whatever_foreign_code_makes_of_it(thread: bool) -> None:
    """Jinja, for one, fails while it looks for the line at which it was ended."""
    faults: list[str] = []

    def foreign() -> None:
        try:
            with bounded_time(0.05):
                try:
                    while True:
                        pass
                except TooLongError:
                    raise TypeError("of its own") from None
        except TooLongError as error:
            faults.append(str(error))

    if thread:
        other = threading.Thread(target=foreign)
        other.start()
        other.join()
    else:
        foreign()
    assert faults == ["it took more than 0.05 seconds"]
    with pytest.raises(TypeError, match="of its own"), bounded_time(9):
        raise TypeError("of its own")


EARLIER = "{% if messages | length < 19 %}" + LOOPS + "{% endif %}{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
LATER = "{% for a in range(messages | length * 200) %}{% for b in range(999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(("template", "seconds"), [(EARLIER, 0.2), (LATER + EARLIER.replace(LOOPS, ""), 0.5)], ids=["once", "often"])
def test_a_line_is_bounded_too(monkeypatch: pytest.MonkeyPatch, template: str, seconds: float) -> None:
    """Though the conversation is rendered through each of its turns, and a refusal of one may be passed over."""
    monkeypatch.setattr(tokenizer_module, "RENDER_SECONDS", 0.2 if seconds == 0.2 else 30)
    monkeypatch.setattr(records, "LINE_SECONDS", 0.5)
    turns = [{"role": role, "content": "a"} for _ in range(10) for role in ("user", "assistant")]
    started = time.monotonic()
    with pytest.raises(TemplateTimeError, match=f"it took more than {seconds} seconds"):
        read_line(json.dumps({"messages": turns}).encode(), make_tokenizer(byte_backend(), template))
    assert time.monotonic() - started < 3


def test_what_is_quick_is_let_be(tmp_path: Path) -> None:
    """Nothing is left of the timer, nor of a handler that was there."""
    before = signal.getsignal(signal.SIGALRM)
    for _ in range(3):
        with bounded_time(0.05):
            pass
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(("outer", "inner"), [(0.2, 30), (30, 0.2)])
def test_one_within_another(outer: float, inner: float) -> None:
    with pytest.raises(TooLongError, match=re.escape("more than 0.2 seconds")), bounded_time(outer):
        with bounded_time(0.01):
            pass
        with bounded_time(inner):
            while True:
                pass
