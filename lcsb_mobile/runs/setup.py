"""From what a run is asked for to what it needs: the bundle, the data, the schedule, the runner. Nothing is trained here."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import Batch, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.bundle.schedule import Method, ScheduleConfig, Subset, make_schedule
from lcsb_mobile.data.dataset import DataReport, Dataset, hold_out, read_dataset
from lcsb_mobile.data.packing import pack
from lcsb_mobile.errors import AdapterError, MemoryBudgetExceeded, OptionError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.generation.generate import Chat
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.io.files import sha256
from lcsb_mobile.measuring.memory import MemorySampler, estimated_anonymous, process_memory
from lcsb_mobile.planning.plan import Plan, plan_run
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.runners import import_runtime, make_runner
from lcsb_mobile.runs.checkpoint import RunIdentity, checkpoint_files, newest_good
from lcsb_mobile.runs.numbers import RunNumbers, run_numbers
from lcsb_mobile.targets import TARGETS, Provider, RunnerName
from lcsb_mobile.text.tokenizer import local_time
from lcsb_mobile.training.optimizer import LearningRateSchedule
from lcsb_mobile.training.trainer import StepOutcome, TrainConfig

BASE_LEARNING_RATE = 4e-4
EVALUATION_SEQUENCES = 16  # at most that many sequences are evaluated
WATCH_INTERVAL = 0.25  # seconds between two looks at the memory within a step: asking takes some milliseconds


@dataclass(frozen=True)
class SimulateOptions:
    """`method` None: the bundle's schedule. `learning_rate` None: `default_learning_rate`. `memory_budget`: bytes of anonymous memory.
    Where the system does not say what is anonymous, a run is planned by it, or refused, and none is stopped.
    `keep`: that many of the top layers keep their activations; None: as many as the budget allows, none without a budget.
    `initial_adapter` None: the bundle's. `provider`: as for `make_runner`; what a GPU's takes is not predicted, so no budget plans by it.
    `hold_out`: the share of the examples that is evaluated instead of trained on, without `evaluation_data`. `evaluate_every` 0: only
    before and after. `prompts` are continued before and after; with `chat` they are a user's messages that are answered.
    `checkpoint_directory` gets the run's state every `checkpoint_every` steps; `resume` goes on from the newest one there, or begins where
    there is none. It may go on at a lower `learning_rate`, if one is given."""

    bundle: Path
    data: Path
    steps: int
    adapter: Path
    initial_adapter: Path | None = None
    learning_rate: float | None = None
    method: Method | None = None
    lr_schedule: LearningRateSchedule = "constant"
    warmup: int = 0
    accumulation: int = 1
    evaluation_data: Path | None = None
    hold_out: float = 0.1
    evaluate_every: int = 0
    memory_budget: int | None = None
    keep: int | None = None
    threads: int | None = None
    runner: RunnerName | None = None
    provider: Provider = "cpu"
    checkpoint_directory: Path | None = None
    checkpoint_every: int = 10
    resume: bool = False
    report: Path | None = None
    prompts: tuple[str, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    chat: Chat | None = None
    seed: int = 0
    force: bool = False


class Observer:
    """Is told what happens; the command line draws it. Every method may be overridden."""

    def phase(self, name: str) -> None: ...

    def data(self, report: DataReport, held_out: int) -> None: ...  # of the whole file; examples held out

    def numbers(self, numbers: RunNumbers) -> None: ...

    def warned(self, text: str) -> None: ...

    def resumed(self, step: int) -> None: ...

    def evaluated(self, step: int, loss: float) -> None: ...

    def stepped(self, outcome: StepOutcome, memory: int | None) -> None: ...  # anonymous bytes, where the system says

    def saved(self, step: int, adapter: Path) -> None: ...  # the adapter's file is written, at the end or where the run was ended


def without_write_errors(observer: Observer) -> Observer:
    """One that tells `observer` the same. What it cannot write is lost, and not the run: the reader is gone, or the log's disk is full."""
    quiet = Observer()
    for name in [name for name in vars(Observer) if not name.startswith("_")]:
        setattr(quiet, name, _without_write_errors(getattr(observer, name)))
    return quiet


def _without_write_errors(tell: Callable[..., None]) -> Callable[..., None]:
    def told(*details: Any) -> None:
        with suppress(OSError):
            tell(*details)

    return told


@dataclass(frozen=True)
class Sample:
    """What the model wrote after `prompt`, before and after the run."""

    prompt: str
    before: str
    after: str


@dataclass
class Run:
    """A run in progress. `memory`: anonymous bytes after each step, where the system says."""

    options: SimulateOptions
    bundle: Bundle
    identity: RunIdentity
    method: str
    examples: Dataset
    evaluation: list[Batch]
    numbers: RunNumbers
    resumed_from: int | None = None
    outcomes: list[StepOutcome] = field(default_factory=list)
    memory: list[int | None] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def schedule(self) -> tuple[Subset, ...]:
        return self.identity.schedule

    @property
    def train(self) -> TrainConfig:
        return self.identity.train

    @property
    def data(self) -> DataReport:
        return self.examples.report


def default_learning_rate(schedule: Sequence[Subset], num_layers: int) -> float:
    """4e-4, times the square root of how many steps a layer waits for its gradient on average, where the gradient is exact.

    With gradients in one step of K, AdamW's update is 1/sqrt(K) as large. The identity path's gradient is biased too strongly to
    be followed at the higher rate: at it SmolLM2-135M ends worse than it began (docs/decisions.md).
    """
    if any(subset.propagate != tuple(range(subset.train[0], num_layers)) for subset in schedule):
        return BASE_LEARNING_RATE
    trained = sum(len(subset.train) for subset in schedule)
    layers = len({layer for subset in schedule for layer in subset.train})
    return BASE_LEARNING_RATE * math.sqrt(len(schedule) * layers / trained)


def prepare(options: SimulateOptions, observer: Observer) -> Run:
    """Raises OptionError, BundleError, AdapterError, DataError, TokenizerError or RunCheckpointError."""
    bundle = Bundle.open(options.bundle)
    manifest = bundle.manifest
    schedule, method = manifest.schedule, manifest.schedule_config.method
    if options.method is not None and options.method != method:
        method = options.method
        schedule = make_schedule(ScheduleConfig(method=method, subsets=manifest.schedule_config.subsets), manifest.model.num_hidden_layers)
    rate = options.learning_rate
    if rate is None:
        rate = default_learning_rate(schedule, manifest.model.num_hidden_layers)
    train = TrainConfig(options.steps, rate, options.lr_schedule, options.warmup, options.accumulation)
    _check(options, train)
    bundle.tokenizer.now = date = _beginning(options, manifest.adapter)
    examples = read_dataset(options.data, bundle.tokenizer, manifest.seq_len)
    if options.evaluation_data is not None:
        held_out = read_dataset(options.evaluation_data, bundle.tokenizer, manifest.seq_len)
    else:
        examples, held_out = hold_out(examples, options.hold_out, options.seed)
    observer.data(examples.report, len(held_out))
    evaluation = list(itertools.islice(pack(held_out, manifest.seq_len, bundle.tokenizer.pad_id), EVALUATION_SEQUENCES))
    numbers = run_numbers(examples, held_out, evaluation, manifest.seq_len, options.seed)
    observer.numbers(numbers)
    identity = RunIdentity(
        bundle=bundle.identity,
        data=examples.sha256,
        evaluation_data=held_out.sha256 if options.evaluation_data is not None else None,
        tokens=examples.tokens_sha256,
        evaluation_tokens=held_out.tokens_sha256 if options.evaluation_data is not None else None,
        date=date,
        hold_out=options.hold_out,
        initial_adapter=_file_digest(options.initial_adapter),
        schedule=schedule,
        train=train,
        seed=options.seed,
    )
    return Run(options, bundle, identity, method, examples, evaluation, numbers)


def _beginning(options: SimulateOptions, layout: AdapterLayout) -> datetime:
    """The local time at which the run began: what the chat template writes of it stays the same when the run goes on, on another day or in
    another time zone. Raises RunCheckpointError where no checkpoint is good."""
    directory = options.checkpoint_directory
    files = checkpoint_files(directory) if options.resume and directory is not None and directory.is_dir() else []
    return newest_good(files, layout)[1].place.identity.date if files else local_time()


def _file_digest(path: Path | None) -> str | None:
    if path is not None and not path.is_file():
        raise AdapterError(f"{path}: no such file; give an adapter that `lcsb simulate` or `lcsb adapter import` wrote")
    return None if path is None else sha256(path)


def _check(options: SimulateOptions, train: TrainConfig) -> None:
    train.check()
    options.sampling.check()
    check_ranges(
        {
            "checkpoint-every": options.checkpoint_every,
            "eval-every": options.evaluate_every,
            "hold-out": options.hold_out,
            "memory-budget": options.memory_budget,
            "threads": options.threads,
            "seed": options.seed,
        }
    )
    if options.resume and options.checkpoint_directory is None:
        raise OptionError("resume: needs --checkpoint-dir, the directory that holds the run's checkpoints")


def load_runner(run: Run, sampler: MemorySampler, keep: int | None, observer: Observer) -> tuple[Plan | None, StepRunner]:
    """Refuses a run that cannot fit before its sessions are made: the base is the process with the runtime imported, or an estimate of it.
    `keep` as in SimulateOptions. Raises MemoryBudgetError and as `make_runner` does."""
    options, manifest = run.options, run.bundle.manifest
    name = options.runner or manifest.target
    import_runtime(name)
    if name in TARGETS and TARGETS[name].stands_in:
        observer.warned(f"target {name} is run by {TARGETS[name].stands_in}: the losses are the programs', the times are no phone's")
    predicted = name == manifest.target and options.provider == "cpu"  # a GPU's driver takes what it takes
    measured, resident = process_memory()
    base = estimated_anonymous(resident) if measured is None else measured
    if measured is None and options.memory_budget is not None:
        observer.warned(unwatched(base if predicted else None))
    plan = None
    if predicted:
        steps = (*run.schedule, *(step.subset for step in read_trace(run.bundle.golden_path).run[:1]))  # that one is checked first
        beside = measured is None, bool(options.prompts)
        plan = plan_run(manifest, steps, base, options.memory_budget, keep, options.accumulation, *beside)
    kept = keep or 0 if plan is None else plan.keep
    return plan, make_runner(run.bundle, options.runner, options.threads, kept, BudgetWatch(run, sampler), options.provider)


def unwatched(base: int | None) -> str:
    """What becomes of a budget where anonymous memory cannot be seen. `base` None: this runner's memory cannot be predicted either."""
    text = "this system does not say how much of a process's memory is anonymous, so --memory-budget cannot be watched in the run"
    if base is None:
        return f"{text}, and of this runner nothing is predicted: it has no effect"
    return f"{text}; what is kept follows from a prediction, in which this process has {megabytes(base)} by an estimate"


class BudgetWatch:
    """Called between two layers: stops a step in its middle when the budget is exceeded."""

    def __init__(self, run: Run, sampler: MemorySampler) -> None:
        self._run, self._sampler = run, sampler
        self._due = 0.0

    def __call__(self) -> None:
        budget = self._run.options.memory_budget
        if budget is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + WATCH_INTERVAL
            self._sampler.sample()
            stop_above_budget(self._sampler, budget, len(self._run.outcomes) + 1)


def stop_above_budget(sampler: MemorySampler, budget: int | None, step: int) -> None:
    """Raises MemoryBudgetExceeded."""
    if sampler.exceeded and budget is not None:
        reached = megabytes(sampler.peak_anonymous)
        raise MemoryBudgetExceeded(
            f"step {step}: the run reached {reached} of anonymous memory, more than the {megabytes(budget)} allowed, and was stopped; "
            "allow more with --memory-budget, or export with a shorter --seq-len"
        )
