"""Python's collector of garbage in cycles, where there is little: PyTorch's modules and traced graphs are a million objects that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New ones before it looks at them. By Python's own 700 (2,000 from 3.13 on) it looks through all that there are ten times as often.
OBJECTS = 10_000


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Within it looking for garbage takes a twentieth of the time, not a seventh. Arrays in cycles are held longer: not for where a model's
    weights are worked on."""
    threshold, *others = gc.get_threshold()
    gc.set_threshold(max(threshold, OBJECTS) if threshold else 0, *others)  # 0: the caller collects by itself
    try:
        yield
    finally:
        gc.set_threshold(threshold, *others)
