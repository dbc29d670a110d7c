"""Signals in processes that tests begin."""

from __future__ import annotations

import signal


def as_usual() -> None:
    """For `preexec_fn`. What the tests are begun by is passed on: a shell lets its background jobs ignore SIGINT, `nohup` SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
