"""Runs the parts of `make test` and ends with a table of what ran: `run_parts.py [PART...]`, all of them or those and what they need.

A part ran, FAILED, or did NOT RUN, for want of something that is not to be had here or of a part that it needs. A part that did not run
fails the run like one that failed, unless the environment variable LCSB_MAY_SKIP, a comma list, names it; on a Mac that has a default. A
test that is skipped in every environment is a part that did not run, by the name of skipped-tests. The last line has the totals.
Parts that leave cores idle run two at a time, and one that waits for the network runs beside any; what they print comes when they end.
docs/testing.md tells more.

Exit codes: 1, something failed or did not run; 2, a name is not one of a part. It needs no package: it is what sets them up.
"""

from __future__ import annotations

import codecs
import glob
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from part_reports import Case, Counts, count, read_cases, read_closing_line
from parts import MAC_MAY_SKIP, PARTS, ROOT, Command, Part

Status = Literal["ran", "FAILED", "NOT RUN"]
Show = Callable[[str], object]  # takes what is printed, piece by piece
Group = list[Part]

MAY_SKIP = "LCSB_MAY_SKIP"
SKIPPED_TESTS = "skipped-tests"
UNAVAILABLE = 3  # a script's exit code when something is not to be had
RAN: Status = "ran"
FAILED: Status = "FAILED"
NOT_RUN: Status = "NOT RUN"
LANES = 2  # parts at a time, of those that may
SHOWN = 3  # failed tests that a note names
NOTE_WIDTH = 160


@dataclass(frozen=True)
class Result:
    """`counts`: none where there is nothing to count. `note`: why it failed or did not run."""

    name: str
    status: Status
    seconds: float = 0.0
    counts: Counts | None = None
    cases: Sequence[Case] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Ended:
    """What a part's commands came to: the exit code, from which command, after how many that went well, and all that they printed."""

    code: int
    command: Command
    went_well: int
    output: str

    @property
    def unavailable(self) -> bool:
        return self.command.can_be_unavailable and self.code == UNAVAILABLE

    @property
    def reason(self) -> str:
        """The line that says it: the last one, or Maven's first error; its last one tells how to go on."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [] if self.unavailable else [line for line in lines if line.startswith("[ERROR]")]
        return [*errors[:1], *lines[-1:], f"{self.command.arguments[0]} ended with {self.code}"][0]


def run_commands(commands: Sequence[Command], show: Show) -> Ended:
    """Until one does not end with 0."""
    output = ""
    for number, command in enumerate(commands):
        code, printed = run_command(command, show)
        output += printed
        if code:
            return Ended(code, command, number, output)
    return Ended(0, commands[-1], len(commands), output)


def run_command(command: Command, show: Show) -> tuple[int, str]:
    """The exit code, and what it printed, which is shown as it comes: pytest's dots too, which are no lines."""
    show(f"$ {' '.join(command.arguments)}\n")
    environment = os.environ | dict(command.environment)
    try:
        process = subprocess.Popen(command.arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment)
    except OSError as error:
        show(f"{error}\n")
        return 127, f"{error}\n"
    decoder, printed = codecs.getincrementaldecoder("utf-8")("replace"), []
    assert process.stdout is not None
    with process:
        while chunk := process.stdout.read(1 << 16):
            printed.append(decoder.decode(chunk))
            show(printed[-1])
    return process.returncode, "".join(printed)


def reports(part: Part) -> list[Path]:
    return [Path(path) for path in sorted(glob.glob(part.reports))] if part.reports else []


def counted(part: Part, ended: Ended) -> tuple[Counts | None, list[Case]]:
    if part.counted == "reports":
        cases = read_cases(reports(part))
        return count(cases), cases
    if part.counted == "closing line":
        return read_closing_line(ended.output) or Counts(), []
    if part.counted == "commands":
        return Counts(passed=ended.went_well, failed=int(ended.code != 0 and not ended.unavailable)), []
    return None, []


def judge(part: Part, ended: Ended, seconds: float) -> Result:
    counts, cases = counted(part, ended)
    failed = [case.name for case in cases if case.outcome == "failed"]
    if failed or (counts and counts.failed):
        note = ", ".join(failed[:SHOWN]) + (f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else "")
        return Result(part.name, FAILED, seconds, counts, cases, note or ended.reason)
    if ended.unavailable:
        return Result(part.name, NOT_RUN, seconds, note=ended.reason)
    if ended.code:
        return Result(part.name, FAILED, seconds, counts, cases, ended.reason)
    if counts and not counts.passed:
        return Result(part.name, FAILED, seconds, counts, cases, "it ended well, but no test ran")
    return Result(part.name, RAN, seconds, counts, cases)


def judge_together(parts: Sequence[Part], ended: Ended, started: float) -> list[Result]:
    """Parts whose tests the same commands run, one after the other: each by its own reports.

    One without reports did not run for want of the one before if that failed, and else it is what failed. Commands that fail although no
    report says so are the last part's failure. A part lasts until its last report was written.
    """
    results: list[Result] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        finished = time.time() if last else max((path.stat().st_mtime for path in reports(part)), default=started)
        seconds, started = max(finished - started, 0.0), max(finished, started)
        broken = next((result.name for result in results if result.status == FAILED), None)
        reported = bool(reports(part))
        if broken and not reported:
            results.append(Result(part.name, NOT_RUN, seconds, note=f"needs {broken}, which failed"))
        elif reported and (broken or not last):
            results.append(judge(part, Ended(0, ended.command, ended.went_well, ended.output), seconds))
        else:
            results.append(judge(part, ended, seconds))
    return results


def lacking(part: Part, results: Mapping[str, Result]) -> str:
    """Why the part cannot run, if a part that it needs did not come to a good end."""
    for name in part.needs:
        if results[name].status != RAN:
            return f"needs {name}, which {'failed' if results[name].status == FAILED else 'did not run'}"
    return ""


def show_now(text: str) -> None:
    print(text, end="", flush=True)


def run_group(group: Group, show: Show) -> list[Result]:
    """A part and those that its commands run along with it."""
    for member in group:
        for report in reports(member):  # of an earlier run
            report.unlink()
        if member.reports:
            Path(member.reports).parent.mkdir(parents=True, exist_ok=True)
    started, clock = time.time(), time.monotonic()
    ended = run_commands(group[0].commands, show)
    return judge_together(group, ended, started) if len(group) > 1 else [judge(group[0], ended, time.monotonic() - clock)]


def heading(group: Group) -> str:
    return f"\n== {' and '.join(member.name for member in group)}\n"


def has_company(part: Part) -> bool:
    """Whether it may run beside others; what it prints is then shown at its end, in one piece."""
    return part.beside or part.waits


def run_in_lane(group: Group) -> tuple[list[Result], str]:
    """The results, and what is still to be shown."""
    texts = [heading(group)]
    if has_company(group[0]):
        return run_group(group, texts.append), "".join(texts)
    show_now(texts.pop())
    return run_group(group, show_now), ""


def may_run(part: Part, running: Sequence[Part]) -> bool:
    """Beside those that do: of parts that use all cores, one alone."""
    working = [other for other in running if not other.waits]
    if part.writes and part.writes in {other.writes for other in running}:
        return False
    if part.waits:
        return working == running
    return not working or (part.beside and len(working) < LANES and all(other.beside for other in working))


def next_group(waiting: Sequence[Group], running: Sequence[Group], results: Mapping[str, Result]) -> Group | None:
    """The first whose needs are decided, and which may run now or never."""
    for group in waiting:
        part = group[0]
        decided = all(name in results for name in part.needs)
        if decided and (lacking(part, results) or may_run(part, [other[0] for other in running])):
            return group
    return None


def run_parts(parts: Sequence[Part]) -> list[Result]:
    """In their order where they can. A part that fails does not keep others from running that do not need it."""
    results: dict[str, Result] = {}
    waiting = [[part, *(other for other in parts if other.along_with == part.name)] for part in parts if not part.along_with]
    running: dict[Future[tuple[list[Result], str]], Group] = {}
    texts: list[str] = []
    with ThreadPoolExecutor(LANES + 1) as pool:
        while waiting or running:
            while group := next_group(waiting, list(running.values()), results):
                waiting.remove(group)
                if reason := lacking(group[0], results):
                    texts.append(f"{heading(group)}{reason}\n")
                    results |= {member.name: Result(member.name, NOT_RUN, note=reason) for member in group}
                else:
                    running[pool.submit(run_in_lane, group)] = group
            assert running or not waiting, "a part needs one that is not there"
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                found, text = done.result()
                results |= {result.name: result for result in found}
                texts.append(text)
                del running[done]
            if all(has_company(group[0]) for group in running.values()):  # else it would stand in the middle of what another prints
                show_now("".join(texts))
                texts.clear()
    return [results[part.name] for part in parts]


def wanted(names: Sequence[str], parts: Sequence[Part]) -> list[Part]:
    """The parts of these names and all that they need; when no name is given, all but those that run by name alone."""
    if not names:
        return [part for part in parts if not part.only_by_name]
    table = {part.name: part for part in parts}
    found: set[str] = set()
    rest = list(names)
    while rest:
        part = table[rest.pop()]
        if part.name not in found:
            found.add(part.name)
            rest += [*part.needs, *([part.along_with] if part.along_with else [])]
    return [part for part in parts if part.name in found]


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
    print(f"{ending}; {seconds / 60:.1f} minutes")
    print(total, flush=True)
    return not bad


def main(arguments: Sequence[str], parts: Sequence[Part] = PARTS) -> int:
    default = ",".join(MAC_MAY_SKIP) if sys.platform == "darwin" else ""
    may_skip = [name.strip() for name in os.environ.get(MAY_SKIP, default).split(",") if name.strip()]
    names = [part.name for part in parts]
    for where, given, known in (("run_parts.py", arguments, names), (MAY_SKIP, may_skip, [*names, SKIPPED_TESTS])):
        unknown = [name for name in given if name not in known]
        if unknown:
            print(f"{where}: there is no part {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
            return 2
    started = time.monotonic()
    results = run_parts(wanted(arguments, parts))
    return 0 if report(results, parts, may_skip, time.monotonic() - started) else 1


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
