"""Reading what came from anywhere: a regular file of a bounded size, and foreign code within a bounded memory and time."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lcsb_mobile.errors import LcsbError

MOST_FAULTS = 8  # that an error names
STATM = Path("/proc/self/statm")  # its first number: pages of address space


def read_bounded(path: Path, limit: int) -> bytes:
    """A file's content. Raises OSError as `open` does, for what is no regular file (a pipe or a device may never end), and for more than
    `limit` bytes."""
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes, more than the {limit} that are read", str(path))
        return file.read(status.st_size)


def _without_waiting(name: str, flags: int) -> int:
    """A pipe without a writer is opened at once, and found to be none of ours."""
    return os.open(name, flags | os.O_NONBLOCK)


@contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    """Within it the process gets at most `limit` bytes of memory more than it has; what asks for more is given a MemoryError.

    For Python code: a library that does not expect to be refused memory ends the process. Without /proc nothing is bounded.
    """
    if not STATM.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(STATM.read_text("ascii").split()[0]) * resource.getpagesize() + limit
    others = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *others]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class TooLongError(Exception):
    """Foreign code took longer than it may: `seconds`, where they are known."""

    def __str__(self) -> str:
        return f"it took more than {self.args[0]:g} seconds" if self.args else "it took too long"


@contextmanager
def bounded_time(seconds: float) -> Iterator[None]:
    """Python code that takes longer within it is given a TooLongError.

    In the main thread by the system's timer, which ends products of long numbers and regular expressions too; in another between two of
    Python's instructions. One within another is held to both.
    """
    with _alarm(seconds) if threading.current_thread() is threading.main_thread() else _watched(seconds):
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    outer, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer < seconds:  # the one around it is due first
        yield
        return
    over = fired = False

    def stop(*_: Any) -> None:
        nonlocal fired
        if not over:
            fired = True
            raise TooLongError(seconds)

    started, handler = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        except Exception as error:
            if fired:  # whatever the foreign code made of it: Jinja fails while it looks for the line of some
                raise TooLongError(seconds) from error
            raise
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:  # of the one around it, whose time has gone on
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - started), 1e-3))


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    thread, lock, over, fired = threading.get_ident(), threading.Lock(), False, False

    def stop() -> None:
        nonlocal fired
        with lock:
            if not over:
                fired = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooLongError))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if fired:  # it comes without arguments, or as what the foreign code made of it
            raise TooLongError(seconds) from error
        raise
    finally:
        with lock:
            over = True
        timer.cancel()


@contextmanager
def refused_as(kind: type[LcsbError], what: str) -> Iterator[None]:
    """Whatever a library raises within it, as one of our errors: bare exceptions, and a panic of Rust's, which is no Exception."""
    try:
        yield
    except LcsbError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {one_line(error)}") from error


def printable(text: str) -> str:
    """With escapes in place of what could change a terminal: control characters, marks that turn the direction of writing."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(error: object, most: int = 300) -> str:
    """An error's text as one printable line, cut to `most` characters; its type where the text is empty."""
    text = printable((" ".join(str(error).split()) or type(error).__name__)[: most + 1])
    return text if len(text) <= most else f"{text[:most]}…"


def some(faults: Sequence[str]) -> str:
    """The first MOST_FAULTS of what is wrong, each as `one_line`, and how many more there are."""
    more = f" (and {len(faults) - MOST_FAULTS} more)" if len(faults) > MOST_FAULTS else ""
    return "; ".join(map(one_line, faults[:MOST_FAULTS])) + more
