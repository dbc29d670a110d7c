"""A run as a report shows it, and figures as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `train`: the layers whose gradients it computed. `memory_bytes`: anonymous bytes after it."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    train: tuple[int, ...]
    gradient_norm: float
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Sample:
    """What the model wrote after `prompt`, before and after the run."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class RunReport:
    """A run, as text and figures.

    `facts`: label -> text, shown in this order. `evaluations`: (step, loss), the one before the run at its first step
    number minus one. `memory_timeline`: (seconds, anonymous bytes). `phase_seconds`: phase -> seconds over the whole run.
    """

    title: str
    facts: Mapping[str, str]
    num_layers: int
    steps: Sequence[StepRecord] = ()
    evaluations: Sequence[tuple[int, float]] = ()
    memory_timeline: Sequence[tuple[float, int]] = ()
    memory_budget: int | None = None
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()


def layer_ranges(layers: Iterable[int]) -> str:
    """Layer numbers as ranges: "0–3, 7"."""
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in layer_runs(layers)) or "none"


def megabytes(count: int | None) -> str:
    """Bytes as millions of them: "212.4 MB"."""
    return "–" if count is None else f"{count / MEGABYTE:,.1f} MB"


def layer_runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Stretches of consecutive numbers as (first, last)."""
    runs: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return runs


def memory_points(report: RunReport) -> tuple[str, list[tuple[float, int]]]:
    """The horizontal axis and its points: the sampler's timeline, or else what the steps recorded."""
    if report.memory_timeline:
        return "seconds", list(report.memory_timeline)
    return "step", [(record.step, record.memory_bytes) for record in report.steps if record.memory_bytes is not None]
