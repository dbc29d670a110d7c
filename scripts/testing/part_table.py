"""The table of `make test`: what became of each part, which tests were skipped and where else they ran, the time and the totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from part_reports import Case, Counts
from parts import Part

Status = Literal["ran", "FAILED", "NOT RUN"]
Span = tuple[float, float]  # from when to when, of time.monotonic()

MAY_SKIP = "LCSB_MAY_SKIP"
SKIPPED_TESTS = "skipped-tests"
RAN: Status = "ran"
FAILED: Status = "FAILED"
NOT_RUN: Status = "NOT RUN"
SHOWN = 3  # tests that a note names
NOTE_WIDTH = 160


@dataclass(frozen=True)
class Result:
    """`counts`: none where there is nothing to count. `note`: why it failed or did not run. `tested`: when a command of it ran that is no
    set-up."""

    name: str
    status: Status
    seconds: float = 0.0
    counts: Counts | None = None
    cases: Sequence[Case] = field(default_factory=list)
    note: str = ""
    tested: Sequence[Span] = ()


def skips(results: Sequence[Result], parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Lines for the skipped tests, with the reason and where else the test ran; and the tests that were skipped wherever they could run.

    Of a test that was skipped nothing can be said until every part of its suite ran.
    """
    suites = {part.name: part.suite or part.name for part in parts}
    outcomes: dict[tuple[str, str], dict[str, Case]] = defaultdict(dict)
    for result in results:
        for case in result.cases:
            outcomes[suites[result.name], case.name][result.name] = case
    with_cases = {result.name for result in results if result.cases}
    open_suites = {suites[part.name] for part in parts if part.counted == "reports" and part.name not in with_cases}
    lines: dict[tuple[str, str, str, str], int] = defaultdict(int)
    nowhere = []
    for (suite, name), places in outcomes.items():
        others = [place for place, case in places.items() if case.outcome != "skipped"]
        for place, case in places.items():
            if case.outcome == "skipped":
                elsewhere = f"ran in {', '.join(others)}" if others else "ran nowhere"
                lines[place, name.split("[")[0], case.reason, elsewhere] += 1
        if not others and suite not in open_suites:
            nowhere.append(name)
    return [f"{place}: {name}{f' ({number} cases)' if number > 1 else ''}: {reason}; {elsewhere}"
            for (place, name, reason, elsewhere), number in lines.items()], nowhere  # fmt: skip


def judge_skips(results: Sequence[Result], nowhere: Sequence[str]) -> list[Result]:
    """A row for the tests that ran nowhere, in a run that has tests with names."""
    if not any(result.cases for result in results):
        return []
    if nowhere:
        more = f" and {len(nowhere) - SHOWN} more" if len(nowhere) > SHOWN else ""
        return [Result(SKIPPED_TESTS, NOT_RUN, note=f"skipped in every environment: {', '.join(nowhere[:SHOWN])}{more}")]
    return [Result(SKIPPED_TESTS, RAN, note="no test is skipped in every environment")]


def table(results: Sequence[Result], may_skip: Sequence[str]) -> str:
    """In plain text, to be read in a log."""
    rows = [("part", "", "passed", "failed", "skipped", "seconds", "")]
    for result in results:
        numbers = ("", "", "") if result.counts is None else (result.counts.passed, result.counts.failed, result.counts.skipped)
        note = result.note if len(result.note) <= NOTE_WIDTH else f"{result.note[: NOTE_WIDTH - 1]}…"
        if result.status == NOT_RUN and result.name in may_skip:
            note = f"{note} ({MAY_SKIP} allows it)"
        rows.append((result.name, result.status, *map(str, numbers), f"{result.seconds:.0f}", note))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join([*cells, row[6]]).rstrip())
    return "\n".join(lines)


def only_set_up(results: Sequence[Result], seconds: float) -> float:
    """Of the seconds of the run, those in which nothing ran but what fetches and installs."""
    until = 0.0
    for start, end in sorted(span for result in results for span in result.tested):
        seconds -= max(end - max(start, until), 0.0)
        until = max(until, end)
    return seconds


def report(results: Sequence[Result], parts: Sequence[Part], may_skip: Sequence[str], seconds: float) -> bool:
    """Prints the table, the skips and the totals. Whether the run is good."""
    lines, nowhere = skips(results, parts)
    rows = [*results, *judge_skips(results, nowhere)]
    bad = [row.name for row in rows if row.status == FAILED or (row.status == NOT_RUN and row.name not in may_skip)]
    total = Counts()
    for row in rows:
        total += row.counts or Counts()
        if row.status == FAILED and not (row.counts and row.counts.failed):
            total += Counts(failed=1)  # so that no failure is missing in the last line
    print(f"\n{table(rows, may_skip)}\n")
    if lines:
        print("skipped tests:\n" + "\n".join(f"  {line}" for line in lines) + "\n")
    allowed = [row.name for row in rows if row.status == NOT_RUN and row.name in may_skip]
    ending = (
        f"failed or did not run: {', '.join(bad)}" if bad else f"every part ran but {', '.join(allowed)}" if allowed else "every part ran"
    )
    print(f"{ending}; {seconds / 60:.1f} minutes, {only_set_up(results, seconds) / 60:.1f} of them nothing but set-up")
    print(total, flush=True)
    return not bad
