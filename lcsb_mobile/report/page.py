"""One run as one HTML file that stands alone: no script, nothing loaded from elsewhere, light and dark, readable on a phone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from lcsb_mobile.formatting import layer_ranges, megabytes
from lcsb_mobile.io.files import replace_atomically
from lcsb_mobile.report.figures import draw_figures
from lcsb_mobile.report.record import RunReport, memory_points

TEMPLATE_FILE = "page.html.j2"
TABLE_ROWS = 100


@dataclass(frozen=True)
class Headline:
    """`change`: relative to `before`, as text. `kind`: which loss it is."""

    before: str
    after: str
    change: str
    fell: bool
    kind: str


def write_report(path: Path, report: RunReport) -> None:
    """Writes the page, replacing the file whole. Raises StorageError, or MissingDependencyError without matplotlib."""
    page = render_report(report)
    with replace_atomically(path, private=True) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render_report(report: RunReport) -> str:
    """The page as text. Everything that comes from the run is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    every = max(1, math.ceil(len(report.steps) / TABLE_ROWS))
    return environment.get_template(TEMPLATE_FILE).render(
        report=report,
        headline=headline(report),
        tiles=_tiles(report),
        figures=draw_figures(report),
        phases=_phases(report.phase_seconds),
        rows=report.steps[::every],
        every=every,
        layers=layer_ranges,
        megabytes=megabytes,
    )


def headline(report: RunReport) -> Headline | None:
    """From the first evaluation to the last; without two, from the first step's loss to the last's; without two, None."""
    for kind, losses in (
        ("evaluation loss", [loss for _, loss in report.evaluations]),
        ("training loss, first step to last", [record.loss for record in report.steps]),
    ):
        if len(losses) > 1:
            before, after = losses[0], losses[-1]
            change = (after - before) / before if before else math.nan
            text = f"{change:+.1%}".replace("-", "−").replace("%", "\u202f%") if math.isfinite(change) else ""
            return Headline(f"{before:.3f}", f"{after:.3f}", text, after < before, kind)
    return None


def _tiles(report: RunReport) -> list[tuple[str, str]]:
    """The few figures that stand beside the headline, as (label, text)."""
    tiles = [("step" if len(report.steps) == 1 else "steps", f"{len(report.steps):,}")]
    if report.steps:
        tiles.append(("s per step, median", f"{statistics.median(record.seconds for record in report.steps):.3g}"))
    if timeline := memory_points(report)[1]:
        tiles.append(("peak memory", megabytes(max(value for _, value in timeline))))
    if report.memory_budget is not None:
        tiles.append(("memory budget", megabytes(report.memory_budget)))
    return tiles


def _phases(seconds: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """Phase, seconds, percent of all phases together, and percent of the longest (the bar's length)."""
    total = sum(seconds.values()) or 1.0
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(phase, value, 100 * value / total, 100 * value / longest) for phase, value in seconds.items()]
