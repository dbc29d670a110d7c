"""`simulate`: the fine-tune on this machine as a phone would run it, from a bundle and a data file to an adapter and a report."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lcsb_mobile.adapter import save_adapter
from lcsb_mobile.batch import Batch, Float32Array, StepRunner
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.config import Record
from lcsb_mobile.data import DataReport, Example, epochs, fill, pack, read_examples
from lcsb_mobile.errors import DataError, MemoryBudgetExceeded, NonFiniteLossError
from lcsb_mobile.files import check_output
from lcsb_mobile.generate import SamplingConfig, generate
from lcsb_mobile.golden import check_first_step, read_trace
from lcsb_mobile.memory import MemorySampler, process_memory
from lcsb_mobile.optimizer import AdamW, LearningRateSchedule
from lcsb_mobile.plan import Plan, plan_run
from lcsb_mobile.run_record import Sample, megabytes
from lcsb_mobile.runners import RunnerName, import_runtime, layer_update, make_runner
from lcsb_mobile.schedule import Method, ScheduleConfig, Subset, make_schedule
from lcsb_mobile.state import AdapterState, mapped_state
from lcsb_mobile.trainer import StepOutcome, TrainConfig, Trainer, evaluate

BASE_LEARNING_RATE = 4e-4
HELD_OUT = 10  # without evaluation data every tenth example is held out, or the last of fewer
EVALUATION_SEQUENCES = 16  # at most that many sequences are evaluated

WATCH_INTERVAL = 0.25  # seconds between two looks at the memory within a step: asking takes some milliseconds

LOADING, CHECKING, EVALUATING, STEPS, OPTIMIZER, WRITING = "loading", "golden trace", "evaluation", "gradients", "optimizer", "text samples"


@dataclass(frozen=True)
class SimulateOptions:
    """`method` None: the bundle's schedule. `learning_rate` None: `default_learning_rate`. `memory_budget`: bytes of anonymous memory.
    `keep`: that many of the top layers keep their activations; None: as many as the budget allows, none without a budget.
    `evaluate_every` 0: only before and after. `prompts` are continued before and after."""

    bundle: Path
    data: Path
    steps: int
    adapter: Path
    learning_rate: float | None = None
    method: Method | None = None
    lr_schedule: LearningRateSchedule = "constant"
    warmup: int = 0
    accumulation: int = 1
    evaluation_data: Path | None = None
    evaluate_every: int = 0
    memory_budget: int | None = None
    keep: int | None = None
    threads: int | None = None
    runner: RunnerName | None = None
    report: Path | None = None
    prompts: tuple[str, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    seed: int = 0
    force: bool = False


class SimulateResult(Record, frozen=True):
    """What `lcsb simulate --json` prints. Seconds are wall time; bytes are peaks over the whole process."""

    runtime: str
    runtime_version: str
    target: str
    method: str
    schedule: tuple[tuple[int, ...], ...]
    steps: int
    learning_rate: float
    losses: tuple[float, ...]
    step_seconds: tuple[float, ...]
    evaluations: tuple[tuple[int, float], ...]
    eval_loss_before: float
    eval_loss_after: float
    peak_anonymous_bytes: int | None
    peak_rss_bytes: int
    predicted_peak_anonymous_bytes: int | None
    kept_layers: int
    phase_seconds: dict[str, float]
    data: DataReport
    packing_fill: float
    samples: tuple[tuple[str, str, str], ...]
    adapter: str
    report: str | None


class Observer:
    """Is told what happens; the command line draws it. Every method may be overridden."""

    def phase(self, name: str) -> None: ...

    def data(self, report: DataReport, held_out: int) -> None: ...

    def evaluated(self, step: int, loss: float) -> None: ...

    def stepped(self, outcome: StepOutcome, memory: int) -> None: ...


@dataclass
class Run:
    """A run in progress."""

    options: SimulateOptions
    bundle: Bundle
    schedule: tuple[Subset, ...]
    method: str
    train: TrainConfig
    examples: list[Example]
    evaluation: list[Batch]
    data: DataReport
    outcomes: list[StepOutcome] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Simulation:
    """A finished run. `memory_timeline`: (seconds, anonymous bytes)."""

    result: SimulateResult
    run: Run
    memory_timeline: list[tuple[float, int]]


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


def simulate(options: SimulateOptions, observer: Observer | None = None) -> Simulation:
    """Runs the whole fine-tune and saves the adapter; `run_report.write_run_report` draws it. Every check that needs no
    training is made before the first step.

    Raises DataError, BundleError, OptionError, OutputExistsError, MemoryBudgetError (it cannot fit; nothing was run),
    GoldenTraceError, and, with the last good adapter saved, NonFiniteLossError or MemoryBudgetExceeded.
    """
    observer = observer or Observer()
    for path in (options.adapter, options.report):
        if path is not None:
            check_output(path, options.force)
    run = _prepare(options, observer)
    with MemorySampler(limit=options.memory_budget) as sampler:
        sampler.mark(LOADING)
        observer.phase(LOADING)
        plan, runner = _load(run, sampler)
        state = mapped_state(_existing(options.adapter.parent), run.bundle.initial_adapter())
        _enter(CHECKING, sampler, observer)
        check_first_step(runner, read_trace(run.bundle.golden_path), state.adapter)
        _train(run, runner, state, sampler, observer)
        sampler.mark(None)
    result = _result(run, runner, sampler, plan)
    return Simulation(result, run, sampler.timeline)


def _prepare(options: SimulateOptions, observer: Observer) -> Run:
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
    train.check()
    options.sampling.check()
    examples, data = read_examples(options.data, bundle.tokenizer, manifest.seq_len)
    if options.evaluation_data is not None:
        held_out, _ = read_examples(options.evaluation_data, bundle.tokenizer, manifest.seq_len)
    else:
        examples, held_out = _hold_out(options.data, examples)
    observer.data(data, len(held_out))
    evaluation = pack(held_out, manifest.seq_len, bundle.tokenizer.pad_id)[:EVALUATION_SEQUENCES]
    return Run(options, bundle, schedule, method, train, examples, evaluation, data)


def _hold_out(path: Path, examples: list[Example]) -> tuple[list[Example], list[Example]]:
    if len(examples) < 2:
        raise DataError(f"{path}: has one example; expected at least two, or evaluation data of its own (--eval-data)")
    every = min(HELD_OUT, len(examples))
    return [example for number, example in enumerate(examples, 1) if number % every], examples[every - 1 :: every]


def _load(run: Run, sampler: MemorySampler) -> tuple[Plan | None, StepRunner]:
    """Refuses a run that cannot fit before its sessions are made: the base is the process with the runtime imported."""
    options, manifest = run.options, run.bundle.manifest
    name = options.runner or manifest.target
    import_runtime(name)
    base, _ = process_memory()
    plan = None
    if name == manifest.target and base is not None:
        steps = (*run.schedule, *(step.subset for step in read_trace(run.bundle.golden_path).run[:1]))  # that one is checked first
        plan = plan_run(manifest, steps, base, options.memory_budget, options.keep, options.accumulation)
    keep = options.keep or 0 if plan is None else plan.keep
    return plan, make_runner(run.bundle, options.runner, options.threads, keep, _BudgetWatch(run, sampler))


def _existing(directory: Path) -> Path:
    """The directory, or what there is of its path: it is only made when the adapter is written."""
    return directory if directory.is_dir() else _existing(directory.parent)


class _BudgetWatch:
    """Called between two layers: stops a step in its middle when the budget is exceeded."""

    def __init__(self, run: Run, sampler: MemorySampler) -> None:
        self._run, self._sampler = run, sampler
        self._due = 0.0

    def __call__(self) -> None:
        budget = self._run.options.memory_budget
        if budget is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + WATCH_INTERVAL
            self._sampler.sample()
            _stop_above_budget(self._sampler, budget, len(self._run.outcomes) + 1)


def _train(run: Run, runner: StepRunner, state: AdapterState, sampler: MemorySampler, observer: Observer) -> None:
    options, manifest, adapter = run.options, run.bundle.manifest, state.adapter
    before = _continue_prompts(run, runner, adapter, sampler, observer)
    optimizer = AdamW(adapter, manifest.optimizer, layer_update(runner), (state.first_moment, state.second_moment))
    trainer = Trainer(runner, run.schedule, optimizer, run.train)
    batches = epochs(run.examples, manifest.seq_len, run.bundle.tokenizer.pad_id, options.seed)
    _evaluate(run, runner, adapter, 0, sampler, observer)
    try:
        for number in range(options.steps):
            _enter(STEPS, sampler, observer)
            outcome = trainer.step(number, list(itertools.islice(batches, options.accumulation)))
            memory = sampler.sample()
            run.outcomes.append(outcome)
            run.memory.append(memory)
            observer.stepped(outcome, memory)
            _stop_above_budget(sampler, options.memory_budget, outcome.step)
            if outcome.step == options.steps or (options.evaluate_every and outcome.step % options.evaluate_every == 0):
                _evaluate(run, runner, adapter, outcome.step, sampler, observer)
    except (NonFiniteLossError, MemoryBudgetExceeded, KeyboardInterrupt):
        save_adapter(options.adapter, manifest.adapter, adapter)
        raise
    save_adapter(options.adapter, manifest.adapter, adapter)
    after = _continue_prompts(run, runner, adapter, sampler, observer)
    run.samples.extend(Sample(prompt, *texts) for prompt, texts in zip(options.prompts, zip(before, after)))


def _enter(phase: str, sampler: MemorySampler, observer: Observer) -> None:
    sampler.mark(phase)
    observer.phase(phase)


def _evaluate(run: Run, runner: StepRunner, adapter: Float32Array, step: int, sampler: MemorySampler, observer: Observer) -> None:
    _enter(EVALUATING, sampler, observer)
    loss = evaluate(runner, run.evaluation, adapter)
    run.evaluations.append((step, loss))
    observer.evaluated(step, loss)


def _continue_prompts(run: Run, runner: StepRunner, adapter: Float32Array, sampler: MemorySampler, observer: Observer) -> list[str]:
    if not run.options.prompts:
        return []
    _enter(WRITING, sampler, observer)
    seq_len = run.bundle.manifest.seq_len
    return [
        "".join(generate(runner, run.bundle.tokenizer, adapter, prompt, seq_len, run.options.sampling)) for prompt in run.options.prompts
    ]


def _stop_above_budget(sampler: MemorySampler, budget: int | None, step: int) -> None:
    if sampler.exceeded and budget is not None:
        reached = sampler.peak_anonymous or sampler.peak_rss
        raise MemoryBudgetExceeded(
            f"step {step}: the run reached {megabytes(reached)} of anonymous memory, more than the {megabytes(budget)} allowed; it was "
            "stopped and its adapter kept as it was after the last whole step; allow more with --memory-budget, or export with a "
            "shorter --seq-len"
        )


def _phase_seconds(run: Run, sampler: MemorySampler) -> dict[str, float]:
    """AdamW's share is taken out of the steps that contain it."""
    seconds = {name: usage.seconds for name, usage in sampler.phases.items()}
    optimizer = sum(outcome.optimizer_seconds for outcome in run.outcomes)
    return seconds | {STEPS: seconds[STEPS] - optimizer, OPTIMIZER: optimizer}


def _result(run: Run, runner: StepRunner, sampler: MemorySampler, plan: Plan | None) -> SimulateResult:
    options = run.options
    return SimulateResult(
        runtime=runner.name,
        runtime_version=runner.version,
        target=run.bundle.manifest.target,
        method=run.method,
        schedule=tuple(subset.train for subset in run.schedule),
        steps=options.steps,
        learning_rate=run.train.learning_rate,
        losses=tuple(outcome.loss for outcome in run.outcomes),
        step_seconds=tuple(outcome.gradient_seconds + outcome.optimizer_seconds for outcome in run.outcomes),
        evaluations=tuple(run.evaluations),
        eval_loss_before=run.evaluations[0][1],
        eval_loss_after=run.evaluations[-1][1],
        peak_anonymous_bytes=sampler.peak_anonymous,
        peak_rss_bytes=sampler.peak_rss,
        predicted_peak_anonymous_bytes=None if plan is None else plan.predicted_peak_bytes,
        kept_layers=0 if plan is None else plan.keep,
        phase_seconds=_phase_seconds(run, sampler),
        data=run.data,
        packing_fill=fill(pack(run.examples, run.bundle.manifest.seq_len, run.bundle.tokenizer.pad_id)),
        samples=tuple((sample.prompt, sample.before, sample.after) for sample in run.samples),
        adapter=str(options.adapter),
        report=str(options.report) if options.report else None,
    )
