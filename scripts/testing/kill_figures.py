"""What the kill tests share: their figures, and the failure of a process that nobody killed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Figures:
    """Processes killed, and runs that ended; of the kills, `early`: before the first checkpoint, `writing`: while one was written,
    `saved`: by what left them the time to save the adapter."""

    kills: int = 0
    runs: int = 0
    early: int = 0
    writing: int = 0
    saved: int = 0


class RunFailed(Exception):
    """A process ended by itself, and not well."""
