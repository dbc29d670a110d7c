"""A model's chat template, in the environment that Hugging Face's templates are written for. It runs as it does in transformers: in
jinja2's immutable sandbox, with the same filters and functions, because a template that comes with a model is foreign code.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.io.bounded import one_line

# Around what `{% generation %}` marks in a rendering. Half surrogate pairs, which no text that came as UTF-8 contains.
MARKS = "\ud800\ud801"


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text in some templates. Its body is rendered as it stands, between MARKS."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it
    found = False

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        self.found = True
        line = next(parser.stream).lineno
        begin, end = (jinja2.nodes.Output([jinja2.nodes.TemplateData(mark)], lineno=line) for mark in MARKS)
        return [begin, *parser.parse_statements(("name:endgeneration",), drop_needle=True), end]


def has_marks(template: jinja2.Template) -> bool:
    """Whether the template has a `{% generation %}`, rendered or not."""
    extension = template.environment.extensions[Generation.identifier]
    return isinstance(extension, Generation) and extension.found


def split_marks(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without MARKS, and the ranges of its characters [start, end) that stood between them.

    Raises TokenizerError when they are not in pairs, one after the other.
    """
    parts = re.split(f"([{MARKS}])", rendered)
    if parts[1::2] != list(MARKS) * (len(parts) // 4):
        raise TokenizerError("the chat template's {% generation %} tags are not one after the other")
    ends = list(itertools.accumulate(map(len, parts[::2])))
    return "".join(parts[::2]), list(zip(ends[:-1:2], ends[1::2]))


def compile_template(source: str | None, strftime_now: Callable[[str], str]) -> jinja2.Template | None:
    """A template in the environment that Hugging Face's templates are written for. `strftime_now`: what it asks for the time."""
    if source is None:
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
        optimized=False,  # with it, and without `finalize`, jinja2 computes constant expressions while it compiles, however large
        finalize=_as_it_is,
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = strftime_now
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TokenizerError(f"chat_template: line {error.lineno}: {one_line(error.message)}") from error
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:  # of the Python program that it becomes
        raise TokenizerError(f"chat_template: cannot be compiled: {one_line(error)}") from error


@jinja2.pass_context
def _as_it_is(context: jinja2.runtime.Context, value: Any) -> Any:
    return value


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    """jinja2's own `tojson` escapes HTML, which a prompt must not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
