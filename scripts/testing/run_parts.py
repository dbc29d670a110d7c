"""Runs the parts of `make test` and ends with a table of what ran: `run_parts.py [PART...]`, all of them or those and what they need.

A part ran, FAILED, or did NOT RUN, for want of something that is not to be had here or of a part that it needs. A part that did not run
fails the run like one that failed, unless the environment variable LCSB_MAY_SKIP, a comma list, names it; on a Mac that has a default. A
test that is skipped in every environment is a part that did not run, by the name of skipped-tests. The last lines say how long it took, how
much of that was set-up, and the totals.
Parts that do not use all cores run two at a time, and one that waits for the network runs beside any; what they print comes when they end.
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from part_reports import Case, Counts, count, read_cases, read_closing_line
from part_table import FAILED, MAY_SKIP, NOT_RUN, RAN, SHOWN, SKIPPED_TESTS, Result, Span, report
from parts import LANES, MAC_MAY_SKIP, PARTS, ROOT, Command, Part

Show = Callable[[str], object]  # takes what is printed, piece by piece
Group = list[Part]

UNAVAILABLE = 3  # a script's exit code when something is not to be had


@dataclass(frozen=True)
class Ended:
    """What a part's commands came to: the exit code, from which command, after how many that went well, all that they printed, and when
    one ran that is no set-up."""

    code: int
    command: Command
    went_well: int
    output: str
    tested: tuple[Span, ...] = ()

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
    output, tested = "", ()
    for number, command in enumerate(commands):
        started = time.monotonic()
        code, printed = run_command(command, show)
        output += printed
        tested += () if command.sets_up else ((started, time.monotonic()),)
        if code:
            return Ended(code, command, number, output, tested)
    return Ended(0, commands[-1], len(commands), output, tested)


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
        for path in reports(member):  # of an earlier run
            path.unlink()
        if member.reports:
            Path(member.reports).parent.mkdir(parents=True, exist_ok=True)
    started, clock = time.time(), time.monotonic()
    ended = run_commands(group[0].commands, show)
    first, *others = judge_together(group, ended, started) if len(group) > 1 else [judge(group[0], ended, time.monotonic() - clock)]
    return [replace(first, tested=ended.tested), *others]


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
