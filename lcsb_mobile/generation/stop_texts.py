"""Texts that end what is generated."""

from __future__ import annotations

from collections.abc import Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of bytes that are no character


class StopTexts:
    """What may be given out of a text that grows at its end. `met`: a stop text is in it; nothing comes after that."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.met = stop, False
        self._given = 0  # characters

    def grow(self, text: str) -> str:
        """The next piece, perhaps empty; `text` is all that was written so far, and stays as it is."""
        return self._give(text, self._begun(text))

    def end(self, text: str) -> str:
        """The last piece: of the whole text, of which no more is to come."""
        return self._give(text, 0)

    def _give(self, text: str, held: int) -> str:
        # The one that is complete first, so that it does not matter where one token ends and the next begins.
        ends = [(start + len(stop), start) for stop in self.stop if (start := text.find(stop)) >= 0]
        self.met = bool(ends)
        end = min(ends)[1] if ends else len(text) - held
        piece, self._given = text[self._given : end], max(self._given, end)
        return piece

    def _begun(self, text: str) -> int:
        """Characters at the end of `text` that may be the beginning of a stop text."""
        most = min(len(text), max(map(len, self.stop), default=1) - 1)
        return next((size for size in range(most, 0, -1) if any(stop.startswith(text[-size:]) for stop in self.stop)), 0)
