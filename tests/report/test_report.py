"""The report page: it stands alone, escapes what it is given, and draws any run."""

from __future__ import annotations

import builtins
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lcsb_mobile.errors import MissingDependencyError, StorageError
from lcsb_mobile.formatting import layer_ranges
from lcsb_mobile.report.figures import smooth
from lcsb_mobile.report.page import headline, render_report, write_report
from lcsb_mobile.report.record import RunReport, StepRecord
from lcsb_mobile.runs.setup import Sample

HOSTILE = "<script src='https://evil.example/x.js'>alert(1)</script>\"'&{{ 7 * 7 }}"
VOID = {"meta", "br", "link", "img"}


def steps(count: int, loss: float = 3.0) -> list[StepRecord]:
    return [
        StepRecord(number, loss / (1 + number / 10), 8e-4, 0.25, (number % 4, 4 + number % 4), 0.5, 200_000_000)
        for number in range(1, count + 1)
    ]


def a_report(count: int = 12, **changes: Any) -> RunReport:
    fields: dict[str, Any] = {
        "title": "Fine-tune of tiny",
        "facts": {"model": "tiny", "peak memory": "123.4 MB"},
        "num_layers": 8,
        "steps": steps(count),
        "evaluations": [(0, 3.2146), (count, 1.1021)] if count else [],
        "memory_timeline": [(0.0, 100_000_000), (1.0, 234_500_000), (2.0, 120_000_000)],
        "memory_budget": 256_000_000,
        "phase_seconds": {"forward": 1.0, "backward": 3.0},
        "samples": [Sample("Say hello.", "Hello hello hello", "Hello!")],
        "notes": ["2 examples were truncated."],
    }
    return RunReport(**(fields | changes))


class Page(HTMLParser):
    """The tags with their attributes and the text, and whether every element is closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def figures(self) -> list[str | None]:
        return [attributes["aria-label"] for tag, attributes in self.tags if tag == "svg"]


ALL_FIGURES = ["Loss by step", "Memory over time", "Layers trained at each step", "Gradient norm and learning rate by step"]


def test_stands_alone() -> None:
    source = render_report(a_report())
    page = Page(source)
    assert "http://" not in source and "https://" not in source and "url(http" not in source
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image"}
    for _, attributes in page.tags:
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "prefers-color-scheme: dark" in source


def test_references_inside_figures_resolve_and_are_unique() -> None:
    page = Page(render_report(a_report()))
    identifiers = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    used = {(attributes["xlink:href"] or "")[1:] for _, attributes in page.tags if "xlink:href" in attributes}
    assert used and used <= set(identifiers)


def test_figures_follow_light_and_dark() -> None:
    source = render_report(a_report())
    svg = source[source.index("<svg") : source.rindex("</svg>")]
    assert "var(--accent)" in svg and "var(--muted)" in svg
    assert not re.search("(fill|stroke): #", svg)  # every colour is one of the page's
    assert "font-family" not in svg and ">loss</text>" in svg


def test_contains_what_it_was_given() -> None:
    page = Page(render_report(a_report()))
    text = " ".join(" ".join(page.text).split())
    assert page.figures() == ALL_FIGURES
    for expected in (
        *("Fine-tune of tiny", "3.215", "1.102", "−65.7 %", "evaluation loss", "123.4 MB", "234.5 MB", "256.0 MB"),
        *("peak 234.5 MB", "budget", "backward 3.00 75.0 %", "Say hello.", "Hello hello hello", "Hello!", "2 examples were truncated."),
        *("2.7273", "12 1.3636 8.000e-04 5.000e-01 0.250 200.0 MB 0, 4"),
    ):
        assert expected in text, expected


def test_hostile_text_is_escaped() -> None:
    report = a_report(
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        phase_seconds={HOSTILE: 1.0},
        samples=[Sample(HOSTILE, HOSTILE, HOSTILE)],
        notes=[HOSTILE],
    )
    page = Page(render_report(report))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "".join(page.text).count(HOSTILE) == 9  # the title stands twice


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 400])
def test_any_number_of_steps(count: int) -> None:
    page = Page(render_report(a_report(count, samples=(), notes=(), evaluations=())))
    text = " ".join(page.text)
    assert page.figures() == (ALL_FIGURES if count else ["Memory over time"])
    assert ("No step was run." in text) == (count == 0)
    assert "What the model writes" not in text and "Notes" not in text
    assert ("(first 48 of 400)" in text) == (count == 400)
    assert ("one of every 4" in text) == (count == 400)


def test_the_least_report() -> None:
    page = Page(render_report(RunReport("empty", {}, 2)))
    assert page.figures() == []
    assert "No step was run." in " ".join(page.text)


def test_losses_that_are_not_numbers() -> None:
    records = [StepRecord(number, loss, 1e-3, 0.1, (0,), math.nan) for number, loss in enumerate([1.0, math.nan, math.inf] * 3)]
    page = Page(render_report(a_report(steps=records, evaluations=[(0, 1.0), (9, math.nan)], memory_timeline=())))
    assert "nan" in " ".join(page.text)
    assert "Memory over time" not in page.figures()


def test_memory_by_step_where_there_is_no_timeline() -> None:
    page = Page(render_report(a_report(memory_timeline=(), memory_budget=None)))
    assert "peak 200.0 MB" in page.text and "budget" not in page.text


def test_headline() -> None:
    found = headline(a_report(evaluations=[(0, 2.0), (5, 1.5), (10, 2.5)]))
    assert found is not None and (found.before, found.after, found.change, found.fell) == ("2.000", "2.500", "+25.0\u202f%", False)
    found = headline(a_report(10, evaluations=[(0, 2.0)]))
    assert found is not None and found.kind.startswith("training loss") and (found.before, found.after) == ("2.727", "1.500")
    assert headline(a_report(1, evaluations=())) is None


def test_layer_ranges() -> None:
    assert layer_ranges([7, 0, 1, 2]) == "0–2, 7"
    assert layer_ranges(()) == "none"


def test_smooth() -> None:
    assert smooth([1.0, 2.0, 6.0]) == [1.5, 3.0, 4.0]
    assert smooth([1.0, math.nan, 3.0]) == [1.0, 2.0, 3.0]
    assert smooth([]) == []


def test_same_report_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, a_report())
    first = path.read_bytes()
    write_report(path, a_report())
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", a_report(0))
    (tmp_path / "directory").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(tmp_path / "directory", a_report(0))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "file"]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match="a report needs matplotlib; install it with: .* pip install matplotlib"):
        render_report(a_report())
