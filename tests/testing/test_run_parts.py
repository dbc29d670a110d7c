"""`make test`'s table of parts, on small commands instead of the parts: what did not run is a fault, and nothing is skipped quietly."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/testing"))

import part_reports
import part_table
import parts
import run_parts
from part_reports import Case, Counts
from parts import PARTS, Command, Part

WELL, BROKEN, UNAVAILABLE = "exit 0", "echo it is broken; exit 1", "echo no such package; exit 3"
TOTALS = "1 passed, 0 failed, 0 skipped"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LCSB_MAY_SKIP", raising=False)
    return tmp_path


def shell(script: str, can_be_unavailable: bool = True) -> Command:
    return Command(("sh", "-c", script), can_be_unavailable)


def part(name: str, script: str = WELL, *needs: str) -> Part:
    """Counted as one test."""
    return Part(name, (shell(script),), needs, "commands")


def with_report(name: str, cases: str, suite: str = "", script: str = WELL) -> Part:
    """Writes JUnit's XML as pytest would, then does what `script` says."""
    write = f"cat >{name}.xml <<'END'\n<testsuites><testsuite>{cases}</testsuite></testsuites>\nEND\n{script}"
    return Part(name, (shell(write, can_be_unavailable=False),), (), "reports", f"{name}.xml", suite=suite)


def passed(name: str) -> str:
    return f'<testcase classname="tests.test_x" name="{name}"/>'


def failed(name: str) -> str:
    return f'<testcase classname="tests.test_x" name="{name}"><failure message="assert 0">…</failure></testcase>'


def skipped(name: str, reason: str = "torch is here") -> str:
    return f'<testcase classname="tests.test_x" name="{name}"><skipped type="pytest.skip" message="{reason}">x.py:1</skipped></testcase>'


class Run:
    """What a run of parts came to: the exit code, the rows of the table, all that was printed."""

    def __init__(self, all_parts: Sequence[Part], capsys: pytest.CaptureFixture[str], names: Sequence[str] = ()) -> None:
        self.code = run_parts.main(names, all_parts)
        printed = capsys.readouterr()
        self.error = printed.err
        self.lines = printed.out.splitlines()
        start = next((number for number, line in enumerate(self.lines) if line.startswith("part ")), len(self.lines))
        self.rows = {line.split()[0]: " ".join(line.split()[1:]) for line in self.lines[start + 1 :] if line and line[0] != " "}


# What ran, failed, did not run


def test_all_well(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([part("one"), part("two")], capsys)
    assert run.code == 0
    assert run.rows["one"] == run.rows["two"] == "ran 1 0 0 0"
    assert run.lines[-1] == "2 passed, 0 failed, 0 skipped"


def test_what_is_not_to_be_had_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([part("one"), part("two", UNAVAILABLE)], capsys)
    assert run.code == 1
    assert run.rows["two"] == "NOT RUN 0 no such package"
    assert any(line.startswith("failed or did not run: two; 0.0 minutes, 0.0 of them nothing but set-up") for line in run.lines)


def test_unless_it_may_be_skipped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCSB_MAY_SKIP", " two,")
    run = Run([part("one"), part("two", UNAVAILABLE)], capsys)
    assert run.code == 0
    assert run.rows["two"] == "NOT RUN 0 no such package (LCSB_MAY_SKIP allows it)"
    assert run.lines[-1] == TOTALS


def test_what_may_be_skipped_may_not_fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCSB_MAY_SKIP", "two")
    run = Run([part("one"), part("two", BROKEN)], capsys)
    assert run.code == 1
    assert run.rows["two"] == "FAILED 0 1 0 0 it is broken"


def test_code_3_of_another_command_is_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest's own is an internal error."""
    monkeypatch.setenv("LCSB_MAY_SKIP", "one")
    run = Run([Part("one", (shell(UNAVAILABLE, can_be_unavailable=False),))], capsys)
    assert run.code == 1
    assert run.rows["one"] == "FAILED 0 no such package"


def test_a_broken_part_and_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    """What needs it does not run, nor what needs that; the others do."""
    run = Run([part("one", BROKEN), part("two", WELL, "one"), part("three", WELL, "two"), part("four")], capsys)
    assert run.code == 1
    assert run.rows["one"] == "FAILED 0 1 0 0 it is broken"
    assert run.rows["two"] == "NOT RUN 0 needs one, which failed"
    assert run.rows["three"] == "NOT RUN 0 needs two, which did not run"
    assert run.rows["four"].startswith("ran")
    assert run.lines[-1] == "1 passed, 1 failed, 0 skipped"


def test_a_command_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([Part("one", (Command(("./nothing-here",), True),))], capsys)
    assert run.code == 1 and "FAILED" in run.rows["one"] and "nothing-here" in run.rows["one"]
    assert run.lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_a_part_stops_at_its_first_failure(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([Part("one", (shell("echo first"), shell(BROKEN), shell("echo third")), (), "commands")], capsys)
    assert run.rows["one"] == "FAILED 1 1 0 0 it is broken"
    assert "first" in run.lines and "third" not in run.lines


# Two at a time


def beside(name: str, script: str, *needs: str) -> Part:
    return Part(name, (shell(script),), needs, "commands", beside=True)


def meet(name: str, other: str) -> str:
    """Ends well if `other` does this at the same time."""
    wait = f"for i in $(seq 100); do test -e here-{other} && break; sleep 0.05; done; sleep 0.2"
    return f"touch here-{name} busy-{name}; {wait}; rm busy-{name}; test -e here-{other}"


def test_parts_that_leave_cores_idle_run_two_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Never beside one that does not, in whatever order they stand; what each prints is in one piece."""
    alone = 'sleep 0.3; test -z "$(ls busy-* 2>/dev/null)" || exit 1; touch busy-$0; sleep 0.2; rm busy-$0'
    busy = "touch busy-{0}; echo {0} begins; sleep 0.2; echo {0} ends; rm busy-{0}"
    run = Run([part("a", alone), beside("b", meet("b", "c")), part("d", alone, "a"), beside("c", meet("c", "b")),
               beside("e", busy.format("e")), beside("f", busy.format("f"), "e"), beside("g", busy.format("g"))], capsys)  # fmt: skip
    assert run.code == 0 and run.lines[-1] == "7 passed, 0 failed, 0 skipped"
    for name in "efg":
        start = run.lines.index(f"== {name}")
        assert run.lines[start + 2 : start + 4] == [f"{name} begins", f"{name} ends"]
    assert run.lines.index("== e") < run.lines.index("== f")


def test_what_needs_a_broken_one_that_ran_beside(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([beside("one", BROKEN), beside("two", WELL, "one"), part("three", WELL, "two"), beside("four", WELL)], capsys)
    assert run.code == 1
    assert run.rows["two"] == "NOT RUN 0 needs one, which failed"
    assert run.rows["three"] == "NOT RUN 0 needs two, which did not run"
    assert run.rows["four"].startswith("ran")


def test_one_that_waits_for_the_network_runs_beside_any(capsys: pytest.CaptureFixture[str]) -> None:
    """One such at a time; what it prints does not stand in the middle of what the other does."""
    first = Part("first", (shell(f"echo is here; {meet('first', 'alone')}"),), (), "commands", waits=True)
    second = Part(
        "second", (shell(f"test -e here-first -a ! -e busy-first || exit 1; {meet('second', 'alone')}"),), (), "commands", waits=True
    )
    run = Run([first, part("alone", f"echo begins; {meet('alone', 'second')}; echo ends"), second, beside("last", WELL, "second")], capsys)
    assert run.code == 0 and run.lines[-1] == "4 passed, 0 failed, 0 skipped"
    start = run.lines.index("== alone")
    assert run.lines[start + 2 : start + 4] == ["begins", "ends"]
    assert start < run.lines.index("is here") < run.lines.index("== last")


def test_what_writes_to_one_place_does_so_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    busy = 'touch here-{0}; test -z "$(ls busy-* 2>/dev/null)" || exit 1; touch busy-{0}; sleep 0.2; rm busy-{0}'
    one, two = (Part(name, (shell(busy.format(name)),), (), "commands", beside=True, writes="a place") for name in ("one", "two"))
    other = beside("other", "for i in $(seq 100); do test -e here-one && exit; sleep 0.05; done; exit 1")
    assert Run([two, one, other], capsys).code == 0


def test_time_in_which_nothing_but_set_up_ran() -> None:
    """Not that of set-up beside tests, and of tests that run at once once."""
    spans = {"a": [(10.0, 20.0)], "b": [(12.0, 15.0), (18.0, 30.0)], "c": [(50.0, 60.0)], "d": []}
    results = [part_table.Result(name, part_table.RAN, tested=tested) for name, tested in spans.items()]
    assert part_table.only_set_up(results, 60.0) == 30.0


def test_set_up_is_no_test(tmp_path: Path) -> None:
    """Of the commands that ran, also of one that fails."""
    fetches, breaks = Command(("sh", "-c", WELL), sets_up=True), Command(("sh", "-c", BROKEN))
    (result,) = run_parts.run_group([Part("one", (fetches, breaks, fetches))], lambda text: None)
    ((start, end),) = result.tested
    assert 0 <= end - start <= result.seconds
    (result,) = run_parts.run_group([Part("one", (fetches,))], lambda text: None)
    assert result.tested == ()


def test_maven_runs_once_at_a_time() -> None:
    """Its directory of artifacts has no locks."""
    table = {each.name: each for each in PARTS}
    users = [name for name, each in table.items() if any("maven" in " ".join(one.arguments) or "gradle" in " ".join(one.arguments)
             or "minified" in " ".join(one.arguments) for one in each.commands)]  # fmt: skip
    assert users == ["gradle-names", "android-core", "minified"]
    assert {table[name].writes for name in users} == {parts.ARTIFACTS}


# Names


@pytest.mark.parametrize("names", ["nothing", "one, nothing"])
def test_an_unknown_name_is_refused_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv("LCSB_MAY_SKIP", names)
    run = Run([part("one", "touch ran")], capsys)
    assert run.code == 2 and not Path("ran").exists()
    assert run.error == "LCSB_MAY_SKIP: there is no part nothing; there are: one, skipped-tests\n"
    monkeypatch.delenv("LCSB_MAY_SKIP")
    assert Run([part("one")], capsys, ["nothing"]).code == 2


def test_a_part_alone_runs_with_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([part("one"), part("two"), part("three", WELL, "one"), part("four", WELL, "three")], capsys, ["three"])
    assert set(run.rows) >= {"one", "three"} and not {"two", "four"} & set(run.rows)


def test_needs_stand_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real parts: each needs only earlier ones, and each name is there once."""
    names = [each.name for each in PARTS]
    assert len(set(names)) == len(names)
    for number, each in enumerate(PARTS):
        assert {*each.needs, each.along_with} - {""} <= set(names[:number])
        assert bool(each.commands) != bool(each.along_with)
        assert (each.counted == "reports") == bool(each.reports)


@pytest.mark.parametrize(("mark", "name"), [("model", "real-model"), ("training_api", "training-api"), ("coreai", "coreai")])
def test_parts_of_a_mark_name_every_file_that_has_it(mark: str, name: str) -> None:
    """A mark that came from anywhere else, such as a helper, would be of tests that no part runs."""
    (run,) = (command.arguments for part in PARTS if part.name == name for command in part.commands if "pytest" in command.arguments)
    assert run[run.index(mark) - 1] == "-m"
    files = {path.relative_to(parts.ROOT) for path in (parts.ROOT / "tests").rglob("*.py") if f"mark.{mark}" in path.read_text("utf-8")}
    assert files == {Path(word) for word in run if word.endswith(".py")} and len(files) > 1


def test_every_script_of_the_parts_is_there() -> None:
    named = {word for each in PARTS for command in each.commands for word in command.arguments if word.endswith((".py", ".sh"))}
    assert len(named) > 8
    assert all((parts.ROOT / name).is_file() for name in named if " " not in name)


# Counts


def test_counts_of_pytest(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([with_report("one", passed("a") + passed("b") + failed("c"), script=BROKEN)], capsys)
    assert run.code == 1
    assert run.rows["one"] == "FAILED 2 1 0 0 tests.test_x::c"
    assert run.lines[-1] == "2 passed, 1 failed, 0 skipped"


def test_failures_that_did_not_end_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Maven can be told to pass over them."""
    assert Run([with_report("one", passed("a") + failed("c"))], capsys).code == 1


def test_a_run_of_nothing_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    for each in (with_report("one", ""), Part("one", (shell(WELL),), (), "closing line"), with_report("one", skipped("a"))):
        run = Run([each], capsys)
        assert run.code == 1 and "it ended well, but no test ran" in run.rows["one"]


def test_a_report_of_an_earlier_run_does_not_count(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    (directory / "one.xml").write_text(f"<testsuite>{passed('a')}</testsuite>")
    run = Run([Part("one", (shell(WELL),), (), "reports", "one.xml")], capsys)
    assert run.code == 1 and "no test ran" in run.rows["one"]


def test_a_report_that_ends_in_the_middle(directory: Path) -> None:
    (directory / "one.xml").write_text(f"<testsuite>{passed('a')}")
    (case,) = part_reports.read_cases([directory / "one.xml"])
    assert case.outcome == "failed"


def test_counts_of_surefire(directory: Path) -> None:
    """A file a class; a test that fails and whose clean-up fails too counts once."""
    (directory / "TEST-a.xml").write_text(
        '<testsuite name="lcsbmobile.ATest" tests="3" errors="1" skipped="1" failures="0">'
        '<testcase name="runs" classname="lcsbmobile.ATest" time="0.1"/>'
        '<testcase name="breaks" classname="lcsbmobile.ATest"/>'
        '<testcase name="breaks" classname="lcsbmobile.ATest"><error type="E">…</error></testcase>'
        '<testcase name="waits" classname="lcsbmobile.ATest"><skipped message="got: &lt;1&gt;&#10;expected"/></testcase></testsuite>'
    )
    (directory / "TEST-b.xml").write_text('<testsuite><testcase name="runs" classname="lcsbmobile.BTest"/></testsuite>')
    cases = part_reports.read_cases(sorted(directory.glob("TEST-*.xml")))
    assert part_reports.count(cases) == Counts(passed=2, failed=1, skipped=1)
    assert Case("lcsbmobile.ATest::waits", "skipped", "got: <1> expected") in cases


def test_a_closing_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one, alone on its line."""
    script = "echo 9 passed, 0 failed, 0 skipped; echo 4 passed, 0 failed, 1 skipped; echo x 7 passed, 0 failed, 0 skipped"
    run = Run([Part("one", (shell(script),), (), "closing line")], capsys)
    assert run.rows["one"] == "ran 4 0 1 0" and run.lines[-1] == "4 passed, 0 failed, 1 skipped"
    assert Run([Part("one", (shell("echo 4 passed, 1 failed, 0 skipped"),), (), "closing line")], capsys).code == 1


# Two parts, one run


def together(script: str, core: str, app: str) -> list[Part]:
    """`core` and `app`: tests of each, "" for no report."""
    write = "".join(f"echo '<testsuite>{cases}</testsuite>' >{name}.xml\n" for name, cases in (("core", core), ("app", app)) if cases)
    return [
        Part("core", (shell(write + script),), (), "reports", "core.xml"),
        Part("app", (), (), "reports", "app.xml", along_with="core"),
        part("parity", WELL, "core"),
    ]


@pytest.mark.parametrize(
    ("script", "core", "app", "expected"),
    [
        (WELL, passed("a"), passed("b"), ("ran", "ran", "ran")),
        (BROKEN, failed("a"), "", ("FAILED", "NOT RUN 0 needs core, which failed", "NOT RUN")),
        (BROKEN, "", "", ("FAILED 0 0 0 0 it is broken", "NOT RUN", "NOT RUN")),  # it does not compile
        (BROKEN, passed("a"), failed("b"), ("ran", "FAILED", "ran")),
        (BROKEN, passed("a"), "", ("ran", "FAILED 0 0 0 0 it is broken", "ran")),
        (BROKEN, passed("a"), passed("b"), ("ran", "FAILED 1 0 0 0 it is broken", "ran")),  # no report says what
        (BROKEN, failed("a"), failed("b"), ("FAILED", "FAILED", "NOT RUN")),
        (UNAVAILABLE, "", "", ("NOT RUN 0 no such package", "NOT RUN 0 no such package", "NOT RUN")),
        (UNAVAILABLE, passed("a"), "", ("ran", "NOT RUN 0 no such package", "ran")),
        (WELL, passed("a"), "", ("ran", "FAILED 0 0 0 0 it ended well, but no test ran", "ran")),
    ],
)
def test_two_parts_of_one_run(capsys: pytest.CaptureFixture[str], script: str, core: str, app: str, expected: tuple[str, ...]) -> None:
    run = Run(together(script, core, app), capsys)
    assert run.code == (0 if expected == ("ran", "ran", "ran") else 1)
    for name, begins in zip(("core", "app", "parity"), expected, strict=True):
        assert run.rows[name].startswith(begins), name


def test_maven_says_first_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run([part("one", "echo '[ERROR] A.kt: unresolved'; echo '[ERROR] mvn -rf :core'; exit 1")], capsys)
    assert run.rows["one"].endswith("[ERROR] A.kt: unresolved")


# Skips


def test_a_test_that_is_skipped_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    suite = [with_report("one", passed("a") + skipped("b"), "s"), with_report("two", passed("a") + skipped("b", "no root"), "s")]
    run = Run(suite, capsys)
    assert run.code == 1
    assert run.rows["skipped-tests"] == "NOT RUN 0 skipped in every environment: tests.test_x::b"
    assert "  one: tests.test_x::b: torch is here; ran nowhere" in run.lines
    assert "  two: tests.test_x::b: no root; ran nowhere" in run.lines
    assert run.lines[-1] == "2 passed, 0 failed, 2 skipped"


def test_it_may_be_allowed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCSB_MAY_SKIP", "skipped-tests")
    assert Run([with_report("one", passed("a") + skipped("b"))], capsys).code == 0


def test_a_test_that_runs_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = passed("a") + skipped("b[1]") + skipped("b[2]"), passed("b[1]") + passed("b[2]")
    run = Run([with_report("one", one, "s"), with_report("two", two, "s")], capsys)
    assert run.code == 0
    assert "  one: tests.test_x::b (2 cases): torch is here; ran in two" in run.lines
    assert run.rows["skipped-tests"].startswith("ran")


def test_another_suite_s_test_of_the_name_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert Run([with_report("one", passed("a") + skipped("b")), with_report("two", passed("b"))], capsys).code == 1


def test_nothing_is_said_while_an_environment_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The skipped test may run there: it is listed, and no fault."""
    suite = [with_report("one", passed("a") + skipped("b"), "s"), Part("two", (shell(UNAVAILABLE),), (), "reports", "two.xml", suite="s")]
    monkeypatch.setenv("LCSB_MAY_SKIP", "two")
    run = Run(suite, capsys)
    assert run.code == 0
    assert "  one: tests.test_x::b: torch is here; ran nowhere" in run.lines
    assert Run(suite, capsys, ["one"]).code == 0


def test_parts_that_run_by_name_alone(capsys: pytest.CaptureFixture[str]) -> None:
    two = [part("a"), Part("b", (shell(WELL),), (), "commands", only_by_name=True)]
    assert "b" not in Run(two, capsys).rows
    assert Run(two, capsys, ["b"]).rows["b"] == "ran 1 0 0 0"


def test_a_mac_may_be_without_some(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, as told in docs/testing.md; they are tried, and what is broken still fails."""
    monkeypatch.setattr(sys, "platform", "darwin")
    names = {found.name for found in PARTS} | {part_table.SKIPPED_TESTS}
    assert set(parts.MAC_MAY_SKIP) <= names and ",".join(parts.MAC_MAY_SKIP) in (parts.ROOT / "docs/testing.md").read_text("utf-8")
    some = [Part(name, (shell(WELL),), (), "commands") for name in parts.MAC_MAY_SKIP[1:-1]]
    some.append(Part("arm64", (shell(UNAVAILABLE),), (), "commands"))
    some.append(with_report("x", skipped("a") + passed("b")))
    run = Run(some, capsys)
    assert run.code == 0 and run.rows["arm64"].startswith("NOT RUN")
    monkeypatch.setenv("LCSB_MAY_SKIP", "")
    assert Run(some, capsys).code == 1
