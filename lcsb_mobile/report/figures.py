"""The figures of a report, as inline SVG in the page's own colours.

matplotlib is imported when the first figure is drawn, after the run: before, it would count into the peak of memory.
"""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lcsb_mobile.formatting import MEGABYTE, layer_runs
from lcsb_mobile.installing import cannot_draw
from lcsb_mobile.report.record import RunReport, StepRecord, memory_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID_STEPS = 48  # columns of the layer picture that a phone's screen can still tell apart

# Figures are drawn in stand-in colours, which become the page's CSS variables, so that they follow light and dark.
INK, MUTED, LINE, ACCENT, SECOND, FAINT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", SECOND: "second", FAINT: "faint"}


def draw_figures(report: RunReport) -> dict[str, Markup]:
    """The figures that there is something to draw for."""
    figures = {}
    if report.steps or report.evaluations:
        figures["loss"] = _svg("Loss by step", 3.1, lambda figure: _draw_loss(figure, report))
    if memory_points(report)[1]:
        figures["memory"] = _svg("Memory over time", 3.1, lambda figure: _draw_memory(figure, report))
    if report.steps:
        height = 1.1 + min(2.6, 0.11 * report.num_layers)
        figures["layers"] = _svg("Layers trained at each step", height, lambda figure: _draw_layers(figure, report))
        figures["optimizer"] = _svg("Gradient norm and learning rate by step", 3.1, lambda figure: _draw_optimizer(figure, report.steps))
    return figures


def _svg(label: str, height: float, draw: Callable[[Figure], None]) -> Markup:
    """A figure as an inline SVG element; `height` in inches. Its width, 400 points, is that of a phone's screen."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise cannot_draw("a report") from error
    with matplotlib.rc_context(_style(label)):
        figure = Figure(figsize=(400 / 72, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(buffer.getvalue(), label))


def _style(salt: str) -> Any:  # matplotlib types the keys since 3.11 only
    return {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": salt,  # names inside one figure must not meet those of another
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "legend.frameon": False,
        "legend.fontsize": 10,
        "legend.labelcolor": INK,
        "lines.solid_capstyle": "round",
    }


def _inline(svg: str, label: str) -> str:
    """matplotlib's SVG document as an element of the page: its header, fonts, group names and fixed size taken out."""
    svg = re.sub(r"(?s)<metadata>.*?</metadata>|<style type.*?</style>", "", svg[svg.index("<svg") :])
    svg = re.sub(r"<svg [^>]*viewBox=(\"[^\"]*\")[^>]*>", rf'<svg role="img" aria-label="{label}" viewBox=\1>', svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"(?s)<path d=\"[^\"]*\" style=\"fill: none\"/>", "", svg)  # the transparent backgrounds
    for colour, name in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _draw_loss(figure: Figure, report: RunReport) -> None:
    axes = figure.add_subplot()
    steps = [record.step for record in report.steps]
    losses = [record.loss for record in report.steps]
    if steps:
        axes.plot(steps, losses, color=FAINT, linewidth=1, marker=_marker(steps), markersize=4, label="training")
    if len(steps) >= 5:
        axes.plot(steps, smooth(losses), color=ACCENT, linewidth=2, label="training, smoothed")
    if report.evaluations:
        at, values = zip(*report.evaluations, strict=True)
        axes.plot(at, values, color=SECOND, linewidth=1.2, linestyle="--", marker="D", markersize=5, label="evaluation")
    axes.set(xlabel="step", ylabel="loss")
    _whole_numbers(axes)
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)


def smooth(values: Sequence[float]) -> list[float]:
    """A centred mean over a tenth of the values, at least 3; near the ends over what there is. Non-finite values are left out."""
    half = max(1, len(values) // 20)
    result = []
    for index in range(len(values)):
        window = [value for value in values[max(0, index - half) : index + half + 1] if math.isfinite(value)]
        result.append(statistics.fmean(window) if window else math.nan)
    return result


def _draw_memory(figure: Figure, report: RunReport) -> None:
    axes = figure.add_subplot()
    unit, points = memory_points(report)
    at = [point[0] for point in points]
    used = [point[1] / MEGABYTE for point in points]
    axes.fill_between(at, used, color=ACCENT, alpha=0.15, linewidth=0)
    axes.plot(at, used, color=ACCENT, linewidth=1.2, marker="" if len(at) > 1 else "o")
    peak = max(used)
    when = at[used.index(peak)]
    axes.plot([when], [peak], color=SECOND, marker="o", markersize=6, linestyle="")
    late = when > (at[0] + at[-1]) / 2
    beside, align = ((-8, 5), "right") if late else ((8, 5), "left")
    axes.annotate(f"peak {peak:,.1f} MB", (when, peak), beside, textcoords="offset points", ha=align)
    if report.memory_budget is not None:
        budget = report.memory_budget / MEGABYTE
        axes.axhline(budget, color=SECOND, linewidth=1.2, linestyle="--")
        edge, align = (0, "left") if late else (1, "right")  # away from the peak's label
        axes.text(edge, budget + 0.02 * max(peak, budget), "budget", ha=align, transform=axes.get_yaxis_transform())
        peak = max(peak, budget)
    axes.set(xlabel=unit, ylabel="MB, anonymous", ylim=(0, peak * 1.2))
    axes.margins(x=0.02)


def _draw_layers(figure: Figure, report: RunReport) -> None:
    """Left: the first GRID_STEPS steps, a column each, a filled cell where a layer trained. Right: each layer's share of all steps."""
    from matplotlib.ticker import MaxNLocator

    grid, share = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1))
    shown = report.steps[:GRID_STEPS]
    for column, record in enumerate(shown):
        for first, last in layer_runs(record.train):
            grid.bar(column, last - first + 1, 0.8, first - 0.5, color=ACCENT)
    grid.bar(range(len(shown)), report.num_layers, 0.8, -0.5, color=LINE, alpha=0.4, zorder=0)
    every = max(1, math.ceil(len(shown) / 6))
    grid.set_xticks(range(0, len(shown), every), [str(record.step) for record in shown[::every]])
    of_all = f" (first {len(shown)} of {len(report.steps):,})" if len(shown) < len(report.steps) else ""
    grid.set(xlabel="step" + of_all, ylabel="layer", xlim=(-0.6, max(len(shown), 8) - 0.4), ylim=(-0.7, report.num_layers - 0.3))
    counts = [sum(layer in record.train for record in report.steps) for layer in range(report.num_layers)]
    share.barh(range(report.num_layers), [100 * count / len(report.steps) for count in counts], 0.8, color=ACCENT)
    share.barh(range(report.num_layers), 100, 0.8, color=LINE, alpha=0.4, zorder=0)
    share.set(xlabel="% of all steps", xlim=(0, 100))
    share.set_xticks([0, 50, 100])
    for axes in (grid, share):
        axes.grid(False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
    grid.yaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_optimizer(figure: Figure, steps: Sequence[StepRecord]) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    at = [record.step for record in steps]
    above.plot(at, [record.gradient_norm for record in steps], color=ACCENT, linewidth=1.2, marker=_marker(at), markersize=4)
    below.plot(at, [record.learning_rate for record in steps], color=SECOND, linewidth=1.2, marker=_marker(at), markersize=4)
    above.set_title("gradient norm", loc="left", fontsize=10, color=INK)
    below.set_title("learning rate", loc="left", fontsize=10, color=INK)
    below.set(xlabel="step")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _whole_numbers(below)


def _marker(steps: Sequence[int]) -> str:
    """Dots while they can be told apart; a single step has no line."""
    return "o" if len(steps) < 20 else ""


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = axes.dataLim.intervalx
    if high - low < 1:
        axes.set_xlim(low - 1, high + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
