"""Ctrl-C, SIGTERM and a closed terminal at a moment that does no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)


class Interrupted(KeyboardInterrupt):
    """`number`: of the signal that came; the text names it where it is not Ctrl-C's."""

    def __init__(self, number: int) -> None:
        super().__init__("" if number == signal.SIGINT else f"by {signal.Signals(number).name}")
        self.number = number


@final
class Interrupts:
    """Within it the first of SIGNALS is raised as Interrupted, and those after it change nothing: what it asked for is under way. What
    somebody handles or ignores already stays so (`nohup`), and outside the main thread, to which no signal comes, everything does. One
    within another is the other. `last`: what follows is the end of the process, which after a signal is not to be interrupted either."""

    _active: Interrupts | None = None

    def __init__(self, last: bool = False) -> None:
        self._last = last
        self._taken: dict[int, Any] = {}
        self._arrived: int | None = None

    def __enter__(self) -> Interrupts:
        if Interrupts._active is not None or threading.current_thread() is not threading.main_thread():
            return Interrupts._active or self
        Interrupts._active = self
        self._taken = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) in UNHANDLED}
        for number in self._taken:
            signal.signal(number, self._arrive)
        return self

    def __exit__(self, *_: object) -> None:
        if Interrupts._active is not self:
            return
        Interrupts._active = None
        for number, handler in self._taken.items():
            signal.signal(number, signal.SIG_IGN if self._last and self._arrived is not None else handler)

    def check(self) -> None:
        """Raises Interrupted once more where it was raised in code that drops what is raised (a destructor)."""
        if self._arrived is not None:
            raise Interrupted(self._arrived)

    def _arrive(self, number: int, _: object) -> None:
        if self._arrived is None:
            self._arrived = number
            raise Interrupted(number)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal that arrives within is handled at the end instead, the first of them. Signals come to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[Any] = []
    handlers: dict[int, Any] = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda *details: arrived.append(details))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            handlers[arrived[0][0]](*arrived[0])
