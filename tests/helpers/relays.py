"""One run on several runtimes in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.tiny import tiny_checkpoint

TINY_DATA = tiny_checkpoint() / "messages_eval.jsonl"


def relay(
    bundles: Mapping[str, Path], order: Sequence[str], directory: Path, data: Path = TINY_DATA, steps: int = 4
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The losses of a run on the first bundle alone, and of one that goes on from a checkpoint with each of `order` in turn, for `steps`
    each."""

    def run(name: str, bundle: str, count: int, resume: bool) -> tuple[float, ...]:
        options = SimulateOptions(
            bundles[bundle],
            data,
            steps=count,
            adapter=directory / f"{name}.safetensors",
            learning_rate=2e-3,
            lr_schedule="constant",
            checkpoint_directory=directory / name,
            checkpoint_every=1,
            resume=resume,
        )
        return simulate(options).result.losses

    whole = run("whole", order[0], steps * len(order), resume=False)
    parts: tuple[float, ...] = ()
    for number, bundle in enumerate(order):
        parts = run("relay", bundle, steps * (number + 1), resume=number > 0)
    return whole, parts
