"""Figures as text."""

from __future__ import annotations

from collections.abc import Iterable

MEGABYTE = 1_000_000


def layer_ranges(layers: Iterable[int]) -> str:
    """Layer numbers as ranges: "0–3, 7"."""
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in layer_runs(layers)) or "none"


def megabytes(count: int | None) -> str:
    """Bytes as millions of them: "212.4 MB"."""
    return "–" if count is None else f"{count / MEGABYTE:,.1f} MB"


def layer_runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Stretches of consecutive numbers as (first, last)."""
    runs: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return runs
