"""`compare`: the losses of two adapters on the same examples, none of which was trained on, and the verdict on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.batch import StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.config import Record
from lcsb_mobile.data.dataset import Dataset, hold_out, read_dataset
from lcsb_mobile.data.packing import alone
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.verdict import Verdict, judge
from lcsb_mobile.targets import RunnerName

# 64 forward passes with two adapters, some twenty steps' time; a difference shows where some 70 % of so many examples agree.
COMPARED_EXAMPLES = 32


@dataclass(frozen=True)
class CompareOptions:
    """`before` None: the base model. `hold_out`, `seed`: as those of a run, of whose `data` the examples are compared that it holds out;
    `hold_out` None: all examples of the file, none of which was trained on. `examples`: at most so many of them, spread evenly; each takes
    a forward pass with each adapter."""

    bundle: Path
    data: Path
    after: Path
    before: Path | None = None
    hold_out: float | None = SimulateOptions.hold_out
    seed: int = SimulateOptions.seed
    examples: int = COMPARED_EXAMPLES
    threads: int | None = None
    runner: RunnerName | None = None


class Comparison(Record, frozen=True):
    """What `lcsb compare --json` prints. `losses_before`, `losses_after`: of each example, the mean over its tokens that count.
    `held_out_examples`: of which those were chosen."""

    bundle: str
    data: str
    before: str | None
    after: str
    runtime: str
    runtime_version: str
    held_out_examples: int
    losses_before: tuple[float, ...]
    losses_after: tuple[float, ...]
    verdict: Verdict


def compare(options: CompareOptions, progress: Callable[[int, int], None] = lambda done, total: None) -> Comparison:
    """Both adapters are read before anything is computed, and evaluated one after the other. `progress(done, total)` counts examples, those
    of both.

    Raises OptionError, BundleError, AdapterError, DataError, TokenizerError, NonFiniteLossError, and as `make_runner` does.
    """
    numbers = {"examples": options.examples, "hold-out": options.hold_out, "seed": options.seed, "threads": options.threads}
    check_ranges(numbers)
    bundle = Bundle.open(options.bundle)
    layout = bundle.manifest.adapter
    before = bundle.initial_adapter() if options.before is None else load_adapter(options.before, layout)
    after = load_adapter(options.after, layout)
    held_out = _held_out(options, bundle)
    chosen = spread(len(held_out), options.examples)
    runner = make_runner(bundle, options.runner, options.threads)
    count = itertools.count(1)

    def losses(adapter: Float32Array) -> tuple[float, ...]:
        return tuple(_loss(runner, bundle, held_out, index, adapter, lambda: progress(next(count), 2 * len(chosen))) for index in chosen)

    losses_before, losses_after = losses(before), losses(after)
    return Comparison(
        bundle=str(options.bundle),
        data=str(options.data),
        before=None if options.before is None else str(options.before),
        after=str(options.after),
        runtime=runner.name,
        runtime_version=runner.version,
        held_out_examples=len(held_out),
        losses_before=losses_before,
        losses_after=losses_after,
        verdict=judge(losses_before, losses_after),
    )


def _held_out(options: CompareOptions, bundle: Bundle) -> Dataset:
    examples = read_dataset(options.data, bundle.tokenizer, bundle.manifest.seq_len)
    return examples if options.hold_out is None else hold_out(examples, options.hold_out, options.seed)[1]


def _loss(runner: StepRunner, bundle: Bundle, examples: Dataset, index: int, adapter: Float32Array, done: Callable[[], None]) -> float:
    loss = runner.evaluate(alone(examples, index, bundle.manifest.seq_len, bundle.tokenizer.pad_id), adapter)
    done()
    return float(loss)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers from 0, evenly spread, ascending."""
    chosen = min(count, most)
    return [number * count // chosen for number in range(chosen)]
