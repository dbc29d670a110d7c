"""Pictures of `bench`: a step's time by phase, and peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lcsb_mobile.bench.rows import BenchRow
from lcsb_mobile.formatting import MEGABYTE
from lcsb_mobile.installing import cannot_draw
from lcsb_mobile.io.files import storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = ("step-time.png", "peak-memory.png")
COLOURS = {"step": "#4c78a8", "embed": "#9d9d9d", "forward": "#4c78a8", "head": "#e0a030", "backward": "#54a24b", "optimizer": "#b279a2"}


def row_label(row: BenchRow) -> str:
    return f"{row.method}\n{row.kept_layers} layers kept" if row.kept_layers else row.method


def write_figures(directory: Path, rows: Sequence[BenchRow]) -> tuple[Path, Path]:
    """`step-time.png` and `peak-memory.png`. Raises StorageError, or MissingDependencyError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise cannot_draw("--plot") from error
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, draw in zip(PICTURES, (draw_time, draw_memory)):
            figure = Figure(figsize=(8, 1.6 + 0.45 * len(rows)), layout="constrained")
            draw(figure.subplots(), rows)
            figure.savefig(directory / name, dpi=150)
    return directory / PICTURES[0], directory / PICTURES[1]


def draw_time(axes: Axes, rows: Sequence[BenchRow]) -> None:
    """A bar a row, its phases side by side; the hatched part of a phase is decompression, the line is the bound of the matrix products."""
    seen: set[str] = set()
    for position, row in enumerate(rows):
        left = 0.0
        for phase, seconds in row.phase_seconds.items():
            hatched = min(seconds, row.decompress_seconds.get(phase, 0.0))
            label = None if phase in seen else phase
            axes.barh(position, seconds - hatched, left=left, color=COLOURS[phase], label=label)
            if hatched:
                axes.barh(
                    position, hatched, left=left + seconds - hatched, color=COLOURS[phase], hatch="////", edgecolor="white", linewidth=0
                )
            seen.add(phase)
            left += seconds
        if row.model_flops and row.sgemm_gflops:
            bound = row.model_flops / (row.sgemm_gflops * 1e9)
            axes.plot(
                [bound, bound],
                [position - 0.45, position + 0.45],
                color="black",
                linewidth=2,
                label=None if "bound" in seen else "GEMM bound",
            )
            seen.add("bound")
    axes.barh(0, 0, color="white", hatch="////", edgecolor="black", linewidth=0, label="of it decompression")
    _finish(axes, rows, "seconds of a mean step")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def draw_memory(axes: Axes, rows: Sequence[BenchRow]) -> None:
    """Anonymous and resident memory, as two bars a row; a figure that the system did not give has none."""
    for offset, colour, label, values in (
        (-0.2, "#4c78a8", "anonymous", [row.peak_anonymous_bytes for row in rows]),
        (0.2, "#c0c0c0", "resident", [row.peak_rss_bytes for row in rows]),
    ):
        known = [(position + offset, value / MEGABYTE) for position, value in enumerate(values) if value is not None]
        if not known:
            continue
        bars = axes.barh([position for position, _ in known], [value for _, value in known], 0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize="small")
    _finish(axes, rows, "peak memory, MB")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def _finish(axes: Axes, rows: Sequence[BenchRow], unit: str) -> None:
    axes.set_yticks(range(len(rows)), [row_label(row) for row in rows], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    first = rows[0]
    axes.set_title(f"{first.shape}, {first.seq_len} tokens, rank {first.rank}, {first.threads} threads", fontsize="medium", loc="left")
