"""What the verbs share: ranges checked first, one line for an error, progress on standard error, results on standard output.

Text from outside (paths, manifests, what a model writes) is shown as it is: never as markup, and with escapes for what could steer a
terminal. A result that cannot be printed is said so, apart from the work; progress that cannot be is dropped.
"""

from __future__ import annotations

import functools
import inspect
import io
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Annotated, Any, NoReturn, cast

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from lcsb_mobile import targets
from lcsb_mobile.errors import LcsbError, PrintingError
from lcsb_mobile.io.bounded import printable
from lcsb_mobile.ranges import check_ranges

SURROGATE = re.compile("[\udc80-\udcff]")  # a byte of an argument that the locale has no letter for
SIGNALLED = 128  # and the signal's number, as a shell reports it
FILE_WIDTH = 100  # columns of a table that goes into a file or a pipe
PLAIN_SECONDS = 20.0  # between two lines of progress where no bar can be drawn
DEBUG_HELP = "Show the traceback of an error."

debug_enabled: ContextVar[bool] = ContextVar("debug_enabled", default=False)


class PlainConsole(Console):
    """Text is text: no markup, no `:names:` of pictures, control characters and marks of direction escaped. Failed writes are raised."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Called while the error is handled. Rich would end the process."""
        raise


class Progressing:
    """Standard error as it is when it is written to. Who cannot read it any more loses the lines, and nobody the work."""

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys.stderr, "rich_proxied_file", sys.stderr), name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.__getattr__("write")(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.__getattr__("flush")()


def shown(text: str) -> str:
    """`printable`, but for the ends of lines and tabs."""
    return "".join(character if character in "\n\t" else printable(character) for character in text)


out = PlainConsole(width=None if sys.stdout is not None and sys.stdout.isatty() else FILE_WIDTH)
err = PlainConsole(file=cast(io.TextIOBase, Progressing()))

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the runtime.", show_default="the runtime's choice")]
Provider = Annotated[
    targets.Provider,
    typer.Option(help="webgpu: a GPU, by ONNX Runtime's plugin; for bundles exported with --programs gpu. Experimental."),
]


class Stopped(KeyboardInterrupt):
    """The command was stopped, by the person or by the signal `number`; the text says what is left of it."""

    def __init__(self, text: str, number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose numbers are held to their ranges before it runs, and whose errors become one line and an exit code: LcsbError its
    own, a signal 128 and its number, anything else 1. Who has stopped reading the result has what they wanted: 0. Adds `--debug`."""
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def command(*args: Any, debug: bool, **options: Any) -> None:
        debug = debug or debug_enabled.get()
        try:
            numbers = {name.replace("_", "-"): value for name, value in options.items() if type(value) in (int, float)}
            check_ranges(numbers, function.__name__)
            function(*args, **options)
        except BrokenPipeError as error:
            discard_output()
            raise typer.Exit from error
        except (LcsbError, KeyboardInterrupt) as error:
            if debug:
                err.print_exception()
            stopped = isinstance(error, KeyboardInterrupt)
            print_error("stopped" if stopped else "error", str(error))
            if isinstance(error, PrintingError):
                discard_output()
            code = SIGNALLED + getattr(error, "number", signal.SIGINT) if isinstance(error, KeyboardInterrupt) else error.exit_code
            raise typer.Exit(code) from error
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


def as_text(argument: str) -> str:
    """An argument that is a text: as UTF-8 where the locale has none of its letters. (A path stays as it is: so it is opened.)"""
    try:
        return os.fsencode(argument).decode() if SURROGATE.search(argument) else argument
    except UnicodeError:  # nor is it UTF-8
        return argument


def print_error(kind: str, message: str) -> None:
    """One line, whatever the message holds and however narrow the terminal is."""
    line = printable(" ".join(message.split("\n")))
    err.print(Text.assemble((kind, "bold red"), f": {line}" if line else ""), soft_wrap=True)


def note(message: str) -> None:
    """A line on standard error, whole."""
    err.print(Text(shown(message)), soft_wrap=True)


def say(message: str) -> None:
    """A line of the result, whole."""
    show_result(Text(shown(message)), soft_wrap=True)


def show_result(result: RenderableType, soft_wrap: bool = False) -> None:
    """A table, or text, of the result. Raises PrintingError, and BrokenPipeError where nobody reads it."""
    with printing():
        out.print(result, soft_wrap=soft_wrap)
        out.file.flush()


def write(text: str) -> None:
    """A part of the result, as it is for a file, and without what could steer a terminal for one. Raises as `show_result` does."""
    with printing():
        sys.stdout.write(shown(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()


@contextmanager
def printing() -> Iterator[None]:
    """Whatever goes wrong within it is standard output's fault. Raises PrintingError, and BrokenPipeError where nobody reads it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PrintingError(
            f"standard output: cannot be written: {error.strerror or error}; what was asked for is done but for printing its result"
        ) from error


def discard_output() -> None:
    """What is left in the buffer goes nowhere: the interpreter would try again at its exit, and complain."""
    with suppress(OSError, ValueError):  # a stream of another's making has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any) -> None:
    """In an encoding that is not UTF-8, with other letters than ASCII's escaped: JSON is read as UTF-8, whatever the locale."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8; JSON has escapes for it, by which Python finds the file again
        text = json.dumps(_without_nan(msgspec.to_builtins(value)), separators=(",", ":"))
    if (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8"):
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0]).strip('"'), text)
    with printing():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _without_nan(value: Any) -> Any:
    """As msgspec writes what is no number: null."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def prepare_streams() -> None:
    """A result's dash or letter that the locale's encoding lacks is shown as `?`; standard error escapes such by itself. A stream that was
    closed leads nowhere: its number would be that of the next file, and a runtime's own messages would go into an adapter."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r+" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def progress_bars(*columns: TextColumn) -> Iterator[Progress]:
    """Bars on standard error while it is a terminal, with the time taken and the time left; otherwise nothing is drawn."""
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    bars = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *columns, *times)
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
