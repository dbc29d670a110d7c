"""Did it get better? The verdict on the losses of the same examples before and after. Specification: docs/verdict.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lcsb_mobile.config import Record
from lcsb_mobile.errors import DataError, NonFiniteLossError, OptionError
from lcsb_mobile.training.signed_ranks import LEAST_EXAMPLES, SIGNIFICANCE, signed_ranks

Outcome = Literal["better", "no-difference", "worse", "too-few"]


class Verdict(Record, frozen=True):
    """Whether `examples` that were not trained on have a lower loss after than before. `improved`: how many of them have. Losses are means
    over the examples, each of which counts once, however long it is. `p`: two-sided, of Wilcoxon's signed ranks; the outcome is a
    difference where it is at most 0.05, and `too-few` where so few examples could not have given such a p."""

    outcome: Outcome
    examples: int
    improved: int
    loss_before: float
    loss_after: float
    p: float

    @property
    def improved_share(self) -> float:
        return self.improved / self.examples


def judge(before: Sequence[float], after: Sequence[float]) -> Verdict:
    """The losses are of the same examples, in the same order. Raises OptionError where their number differs, DataError where there are
    none, NonFiniteLossError."""
    _check(before, after)
    differences = [old - new for old, new in zip(before, after, strict=True)]
    ranks = signed_ranks(differences)
    p = ranks.p()
    outcome: Outcome = "better" if ranks.positive > ranks.negative else "worse"
    if p > SIGNIFICANCE:
        outcome = "no-difference"
    if len(before) < LEAST_EXAMPLES:
        outcome = "too-few"
    improved = sum(difference > 0 for difference in differences)
    mean_before, mean_after = (math.fsum(losses) / len(losses) for losses in (before, after))
    return Verdict(outcome, len(before), improved, mean_before, mean_after, p)


def _check(before: Sequence[float], after: Sequence[float]) -> None:
    if len(before) != len(after):
        raise OptionError(f"losses: expected as many after as before, found {len(after)} and {len(before)}; compare the same examples")
    if not before:
        raise DataError("losses: expected those of at least one example, found none")
    for name, losses in (("before", before), ("after", after)):
        for number, loss in enumerate(losses, 1):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"example {number} of {len(losses)}: its loss {name} is {loss}; an adapter that gives such a loss is of no use"
                )


def verdict_line(verdict: Verdict) -> str:
    """In words, without what was compared."""
    n = verdict.examples
    found = f"mean loss {verdict.loss_before:.4f} -> {verdict.loss_after:.4f}, lower for {verdict.improved:,} of {n:,} examples"
    p = "p < 0.0001" if verdict.p < 1e-4 else f"p = {verdict.p:.4f}"
    return {
        "better": f"better: {found} ({p})",
        "no-difference": f"no difference that these {n:,} examples can show: {found} ({p})",
        "worse": f"worse: {found} ({p})",
        "too-few": f"too few examples to say: {n:,}, expected at least {LEAST_EXAMPLES}; {found}",
    }[verdict.outcome]
