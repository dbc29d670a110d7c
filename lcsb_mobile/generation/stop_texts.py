"""Texts that end what is generated."""

from __future__ import annotations

from collections.abc import Sequence

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of the first bytes of a character


class StopTexts:
    """What may be given out of a text that grows at its end. `met`: a stop text is in it; nothing comes after that."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.met = stop, False
        self._given, self._held = "", ""

    def grow(self, text: str) -> str:
        """The next piece, perhaps empty; `text` is all that was written so far."""
        whole = text.rstrip(INCOMPLETE)
        # The one that is complete first, so that it does not matter where one token ends and the next begins.
        ends = [(start + len(stop), start) for stop in self.stop if (start := whole.find(stop)) >= 0]
        self.met = bool(ends)
        end = min(ends)[1] if ends else len(whole) - self._begun(whole)
        self._held = "" if ends else whole[end:]
        if not whole.startswith(self._given):  # what was given out cannot be taken back
            return ""
        piece, self._given = whole[len(self._given) : end], whole[:end]
        return piece

    def rest(self) -> str:
        """What was held back and turned out to be text."""
        return self._held

    def _begun(self, text: str) -> int:
        """Characters at the end of `text` that may be the beginning of a stop text."""
        most = min(len(text), max(map(len, self.stop), default=1) - 1)
        return next((size for size in range(most, 0, -1) if any(stop.startswith(text[-size:]) for stop in self.stop)), 0)
