"""What the verbs share: one line for an error, progress on standard error, results on standard output."""

from __future__ import annotations

import functools
import inspect
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from lcsb_mobile.errors import LcsbError
from lcsb_mobile.io.bounded import printable

INTERRUPTED = 130  # as a shell reports SIGINT
FILE_WIDTH = 100  # columns of a table that goes into a file or a pipe
PLAIN_SECONDS = 20.0  # between two lines of progress where no bar can be drawn
DEBUG_HELP = "Show the traceback of an error."

debug_enabled: ContextVar[bool] = ContextVar("debug_enabled", default=False)

out = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the runtime.", show_default="the runtime's choice")]


class Stopped(KeyboardInterrupt):
    """The person stopped the command; the text says what is left of it."""


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors become one line and an exit code: LcsbError its own, an interrupt 130, anything else 1. Adds `--debug`."""
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def command(*args: Any, debug: bool, **options: Any) -> None:
        debug = debug or debug_enabled.get()
        try:
            function(*args, **options)
        except (LcsbError, KeyboardInterrupt) as error:
            if debug:
                err.print_exception()
            stopped = isinstance(error, KeyboardInterrupt)
            print_error("stopped" if stopped else "error", str(error))
            raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else error.exit_code) from error
        except BrokenPipeError as error:  # whoever read the output has seen enough; without this the interpreter complains at its exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except Exception as error:
            if debug:
                err.print_exception()
            hint = "" if debug else "; run again with --debug for the traceback"
            print_error("error", f"{type(error).__name__}: {error}{hint}")
            raise typer.Exit(1) from error

    option = Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)]
    added = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    parameters = [*signature.parameters.values(), added]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def print_error(kind: str, message: str) -> None:
    """One line, whatever the message holds and however narrow the terminal is."""
    line = printable(" ".join(message.split("\n")))
    err.print(Text.assemble((kind, "bold red"), f": {line}" if line else ""), soft_wrap=True)


def note(message: str) -> None:
    """A line on standard error, whole."""
    err.print(Text(message), soft_wrap=True)


def say(message: str) -> None:
    """A line of the result, whole."""
    out.print(Text(message), soft_wrap=True)


def print_json(value: Any) -> None:
    """In an encoding that is not UTF-8, with other letters than ASCII's escaped: JSON is read as UTF-8, whatever the locale."""
    text = msgspec.json.encode(value).decode()
    if (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8"):
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0]).strip('"'), text)
    sys.stdout.write(text + "\n")


def write_in_any_encoding() -> None:
    """A result's dash or letter that the locale's encoding lacks is shown as `?`; standard error escapes such by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def progress_bars(*columns: TextColumn) -> Iterator[Progress]:
    """Bars on standard error while it is a terminal, with the time taken and the time left; otherwise nothing is drawn."""
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *columns, *times)
    with Progress(*bars, console=err, disable=not err.is_terminal, refresh_per_second=4) as progress:
        yield progress


class StageBars:
    """One bar a stage, from calls of (stage, done, total). A new stage completes the one before it. Where no bar can be drawn, a stage that
    takes long says in a line, each PLAIN_SECONDS at most, how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._began = self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
            self._began = self._said = time.monotonic()
        self._progress.update(self._tasks[stage], completed=done, total=total)
        if self._progress.disable and 0 < done < total:
            self._say(stage, done, total, time.monotonic())

    def _say(self, stage: str, done: int, total: int, now: float) -> None:
        if now - self._said >= PLAIN_SECONDS:
            note(f"{stage}: {done} of {total}, about {(now - self._began) * (total - done) / done:.0f} s left")
            self._said = now
