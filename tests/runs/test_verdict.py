"""The verdict: against the vectors that the ports read, and what it refuses."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.errors import DataError, LcsbError, NonFiniteLossError, OptionError
from lcsb_mobile.runs.compare import spread
from lcsb_mobile.runs.verdict import Outcome, Verdict, judge, verdict_line

ROOT = Path(__file__).parents[2]
VECTORS: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "tests" / "golden" / "verdicts.json").read_text())
MIRRORED = {"better": "worse", "worse": "better"}


def test_the_vectors_are_what_the_script_writes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("write_verdict_vectors", ROOT / "scripts" / "golden" / "write_verdict_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    assert json.loads((tmp_path / "verdicts.json").read_text()) == VECTORS


# What the names of the cases say, and the mean of losses, which says another thing in one of them.
@pytest.mark.parametrize(
    ("name", "outcome", "p"),
    [
        ("five, all lower", "too-few", 2 / 2**5),
        ("six, all lower", "better", 2 / 2**6),
        ("six, all higher by the same", "worse", 2 / 2**6),
        ("nothing changed", "no-difference", 1.0),
        ("six of forty changed, all lower", "better", 2 / 2**6),
        ("five of forty changed, all lower", "no-difference", 2 / 2**5),
        ("as many ties as pairs", "no-difference", 1.0),
    ],
)
def test_by_hand(name: str, outcome: str, p: float) -> None:
    (row,) = (row for row in VECTORS["verdicts"] if row["name"] == name)
    found = judge(row["before"], row["after"])
    assert (found.outcome, found.p) == (outcome, p)


def test_one_example_counts_once() -> None:
    """Nineteen get a little better and one far worse: the mean loss is higher, and the verdict is better."""
    verdict = judge([3.0] * 20, [2.9 - number / 100 for number in range(19)] + [90.0])
    assert verdict.outcome == "better" and verdict.loss_after > verdict.loss_before
    assert verdict.improved == 19 and verdict.improved_share == 0.95


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40))
def test_the_other_way_round(pairs: list[tuple[int, int]]) -> None:
    old, new = map(list, zip(*pairs, strict=True))
    found, mirrored = judge(old, new), judge(new, old)
    assert mirrored.outcome == MIRRORED.get(found.outcome, found.outcome) and mirrored.p == found.p
    assert (mirrored.loss_before, mirrored.loss_after) == (found.loss_after, found.loss_before)


@pytest.mark.parametrize(
    ("before", "after", "kind", "expected"),
    [
        ([1.0, 2.0], [1.0], OptionError, "losses: expected as many after as before, found 1 and 2"),
        ([], [], DataError, "losses: expected those of at least one example, found none"),
        ([1.0, float("nan")], [1.0, 1.0], NonFiniteLossError, "example 2 of 2: its loss before is nan"),
        ([1.0, 1.0], [float("inf"), 1.0], NonFiniteLossError, "example 1 of 2: its loss after is inf"),
    ],
)
def test_refusals(before: list[float], after: list[float], kind: type[LcsbError], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        judge(before, after)


def test_in_words() -> None:
    lines = {outcome: verdict_line(Verdict(outcome, 40, 30, 3.0, 2.5, 0.0123)) for outcome in get_args(Outcome)}
    assert lines["better"] == "better: mean loss 3.0000 -> 2.5000, lower for 30 of 40 examples (p = 0.0123)"
    assert lines["worse"].startswith("worse: mean") and lines["no-difference"].startswith("no difference that these 40 examples can show: ")
    assert lines["too-few"].startswith("too few examples to say: 40, expected at least 6; mean loss") and "p =" not in lines["too-few"]
    assert "p < 0.0001" in verdict_line(judge([2.0] * 40, [1.0] * 40))


def test_spread() -> None:
    for count, most in ((1, 32), (33, 32), (1000, 7)):
        chosen = spread(count, most)
        assert len(chosen) == min(count, most) and sorted({*chosen}) == chosen and 0 <= chosen[0] <= chosen[-1] < count
        gaps = [second - first for first, second in itertools.pairwise(chosen)]
        assert not gaps or max(gaps) - min(gaps) <= 1
    for row in VECTORS["spreads"]:
        assert spread(row["count"], row["most"]) == row["chosen"]
