"""How often Python looks for garbage in cycles while graphs are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from lcsb_mobile.export.collector import OBJECTS, rarely_collected


@pytest.fixture(autouse=True)
def own_setting() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("threshold", "within"), [(700, OBJECTS), (OBJECTS + 1, OBJECTS + 1), (0, 0)])
def test_seldom_within_and_as_before_afterwards(threshold: int, within: int) -> None:
    """Never more often than the caller has it, and not at all where the caller collects by itself."""
    gc.set_threshold(threshold, 11, 12)
    with pytest.raises(ZeroDivisionError), rarely_collected():
        assert gc.get_threshold() == (within, 11, 12)
        raise ZeroDivisionError
    assert gc.get_threshold() == (threshold, 11, 12)
