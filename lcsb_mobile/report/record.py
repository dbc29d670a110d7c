"""A run as a report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lcsb_mobile.runs.setup import Sample


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `train`: the layers whose gradients it computed. `memory_bytes`: anonymous bytes after it, where known."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    train: tuple[int, ...]
    gradient_norm: float
    memory_bytes: int | None = None


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


def memory_points(report: RunReport) -> tuple[str, list[tuple[float, int]]]:
    """The horizontal axis and its points: the sampler's timeline, or else what the steps recorded."""
    if report.memory_timeline:
        return "seconds", list(report.memory_timeline)
    return "step", [(record.step, record.memory_bytes) for record in report.steps if record.memory_bytes is not None]
