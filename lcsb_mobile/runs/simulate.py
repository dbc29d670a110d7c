"""`simulate`: the fine-tune on this machine as a phone would run it, from a bundle and a data file to an adapter and a report."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.batch import StepRunner
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.config import Record
from lcsb_mobile.data.dataset import DataReport
from lcsb_mobile.data.packing import epochs
from lcsb_mobile.errors import MemoryBudgetExceeded, NonFiniteLossError, OptionError, OutputExistsError
from lcsb_mobile.generation.generate import continue_prompt
from lcsb_mobile.io.files import check_output
from lcsb_mobile.io.storage import check_writable
from lcsb_mobile.measuring.memory import MemorySampler
from lcsb_mobile.planning.plan import Plan
from lcsb_mobile.runners import layer_update
from lcsb_mobile.runs.checkpoint import RunCheckpoint, RunPlace, checkpoint_files
from lcsb_mobile.runs.directory import RunDirectory
from lcsb_mobile.runs.numbers import RunNumbers
from lcsb_mobile.runs.setup import Observer, Run, Sample, SimulateOptions, load_runner, prepare, stop_above_budget
from lcsb_mobile.training.golden import check_first_step, check_update
from lcsb_mobile.training.optimizer import AdamW
from lcsb_mobile.training.state import AdapterState, mapped_state
from lcsb_mobile.training.trainer import StepOutcome, Trainer, evaluate

LOADING, CHECKING, EVALUATING, STEPS, OPTIMIZER, WRITING = "loading", "golden trace", "evaluation", "gradients", "optimizer", "text samples"
SAVING = "checkpoints"


class SimulateResult(Record, frozen=True):
    """What `lcsb simulate --json` prints, of the whole run; of one that was resumed, memory and phases are of its last process.
    `data` is of the whole file, `numbers` of its parts. Seconds are wall time; bytes are peaks over the whole process. Anonymous ones are
    None where the system does not say, and the predicted one with them: there is nothing to hold it against."""

    runtime: str
    runtime_version: str
    target: str
    method: str
    schedule: tuple[tuple[int, ...], ...]
    steps: int
    resumed_from: int | None
    learning_rate: float
    losses: tuple[float, ...]
    step_seconds: tuple[float, ...]
    step_seconds_median: float
    evaluations: tuple[tuple[int, float], ...]
    eval_loss_before: float
    eval_loss_after: float
    peak_anonymous_bytes: int | None
    peak_rss_bytes: int
    predicted_peak_anonymous_bytes: int | None
    kept_layers: int
    phase_seconds: dict[str, float]
    data: DataReport
    numbers: RunNumbers
    packing_fill: float
    samples: tuple[tuple[str, str, str], ...]
    adapter: str
    checkpoints: str | None
    report: str | None


@dataclass(frozen=True)
class Simulation:
    """A finished run. `memory_timeline`: (seconds, anonymous bytes), empty where the system does not say."""

    result: SimulateResult
    run: Run
    memory_timeline: list[tuple[float, int]]


def simulate(options: SimulateOptions, observer: Observer | None = None) -> Simulation:
    """Runs the whole fine-tune and saves the adapter; `run_report.write_run_report` draws it. Every check that needs no
    training is made before the first step.

    Raises DataError, BundleError, AdapterError, OptionError, OutputExistsError, RunBusyError, RunCheckpointError, MemoryBudgetError (it
    cannot fit; nothing was run), GoldenTraceError, StorageError, NonFiniteLossError or MemoryBudgetExceeded. From the first step on these
    two, and an interrupt, leave the last good adapter; before it there is none to leave.
    """
    observer = observer or Observer()
    _check_outputs(options)
    with contextlib.ExitStack() as stack:
        run = prepare(options, observer)
        directory = None
        if options.checkpoint_directory is not None:
            directory = stack.enter_context(RunDirectory(options.checkpoint_directory))
        checkpoint = _begin(run, directory, observer)
        sampler = stack.enter_context(MemorySampler(limit=options.memory_budget))
        sampler.mark(LOADING)
        observer.phase(LOADING)
        keep = options.keep if options.keep is not None or checkpoint is None else checkpoint.place.kept_layers
        plan, runner = load_runner(run, sampler, keep, observer)
        state = mapped_state(_existing(options.adapter.parent), run.bundle.initial_adapter())
        _enter(CHECKING, sampler, observer)
        check_first_step(runner, read_trace(run.bundle.golden_path), state.adapter)
        check_update(runner.name, layer_update(runner), run.bundle.manifest.adapter.sizes, run.bundle.manifest.optimizer)
        if options.initial_adapter is not None:
            state.adapter[:] = load_adapter(options.initial_adapter, run.bundle.manifest.adapter)
        session = _Session(run, runner, state, 0 if plan is None else plan.keep, directory, sampler, observer)
        session.train(checkpoint)
        sampler.mark(None)
        result = _result(run, runner, sampler, plan)
    return Simulation(result, run, sampler.timeline)


def _check_outputs(options: SimulateOptions) -> None:
    """A run that goes on replaces what it wrote. One that begins replaces nothing, also where it was told to go on and there is nothing to
    go on from: then the adapter is another run's. Raises OutputExistsError."""
    directory = options.checkpoint_directory
    goes_on = options.resume and directory is not None and directory.is_dir() and bool(checkpoint_files(directory))
    for path in (options.adapter, options.report):
        if path is not None and options.resume and not goes_on and path.exists() and not options.force:
            raise OutputExistsError(
                f"{path}: already exists, and {directory} holds no checkpoint of a run that wrote it; name the directory of its "
                "checkpoints, choose another path, or pass --force to replace it"
            )
        if path is not None:
            check_output(path, options.force or goes_on)
            check_writable(path)


def _begin(run: Run, directory: RunDirectory | None, observer: Observer) -> RunCheckpoint | None:
    """What to go on from, if anything. Raises OptionError where it is further than the run is to come."""
    if directory is None:
        return None
    if not run.options.resume:
        directory.start_anew(run.options.force)
        return None
    checkpoint = directory.newest(run.bundle.manifest.adapter, run.identity, observer.warned)
    if checkpoint is not None and (made := checkpoint.place.step) > run.options.steps:
        raise OptionError(
            f"steps: expected at least {made}, which the run in {directory.path} has made, found {run.options.steps}; "
            "begin another in another directory for fewer"
        )
    return checkpoint


def _existing(directory: Path) -> Path:
    """The directory, or what there is of its path: it is only made when the adapter is written."""
    return directory if directory.is_dir() else _existing(directory.parent)


def _enter(phase: str, sampler: MemorySampler, observer: Observer) -> None:
    sampler.mark(phase)
    observer.phase(phase)


class _Session:
    """The part of a run that this process makes."""

    def __init__(
        self,
        run: Run,
        runner: StepRunner,
        state: AdapterState,
        kept_layers: int,
        directory: RunDirectory | None,
        sampler: MemorySampler,
        observer: Observer,
    ) -> None:
        self.run, self.runner, self.state, self.kept_layers = run, runner, state, kept_layers
        self.directory, self.sampler, self.observer = directory, sampler, observer
        moments = state.first_moment, state.second_moment
        self.optimizer = AdamW(
            state.adapter, run.bundle.manifest.adapter.slices, run.bundle.manifest.optimizer, layer_update(runner), moments
        )
        self.trainer = Trainer(runner, run.schedule, self.optimizer, run.train, self._record)
        self.saved: int | None = None  # the step of the newest checkpoint

    def train(self, checkpoint: RunCheckpoint | None) -> None:
        """From `checkpoint`, or the beginning, to the last step and the adapter's file."""
        run, adapter = self.run, self.state.adapter
        before = self._continue_prompts()
        if checkpoint is None:
            self._evaluate(0)
            self._save()
        else:
            self._restore(checkpoint)
        try:
            self._evaluate_if_due()  # the process before was interrupted within it
            self._save()
            self._steps()
        except (NonFiniteLossError, MemoryBudgetExceeded, KeyboardInterrupt) as error:
            save_adapter(run.options.adapter, run.bundle.manifest.adapter, adapter)
            self._save()
            if isinstance(error, KeyboardInterrupt):
                raise
            raise type(error)(f"{error}; the adapter as it was after the last whole step is in {run.options.adapter}") from error
        save_adapter(run.options.adapter, run.bundle.manifest.adapter, adapter)
        after = self._continue_prompts()
        run.samples.extend(Sample(prompt, *texts) for prompt, texts in zip(run.options.prompts, zip(before, after)))

    def _steps(self) -> None:
        run, options, tokenizer = self.run, self.run.options, self.run.bundle.tokenizer
        done = len(run.outcomes)
        start = done * options.accumulation
        batches = epochs(run.examples, run.bundle.manifest.seq_len, tokenizer.pad_id, options.seed, start)
        for number in range(done, options.steps):
            _enter(STEPS, self.sampler, self.observer)
            outcome = self.trainer.step(number, list(itertools.islice(batches, options.accumulation)))
            stop_above_budget(self.sampler, options.memory_budget, outcome.step)
            self._evaluate_if_due()
            if outcome.step == options.steps or outcome.step % options.checkpoint_every == 0:
                self._save()

    def _record(self, outcome: StepOutcome) -> None:
        memory = self.sampler.sample()
        self.run.outcomes.append(outcome)
        self.run.memory.append(memory)
        self.observer.stepped(outcome, memory)

    def _evaluate_if_due(self) -> None:
        step, every = len(self.run.outcomes), self.run.options.evaluate_every
        due = step == self.run.options.steps or (every and step % every == 0)
        if due and not any(evaluated == step for evaluated, _ in self.run.evaluations):
            self._evaluate(step)
            self.saved = None

    def _evaluate(self, step: int) -> None:
        _enter(EVALUATING, self.sampler, self.observer)
        loss = evaluate(self.runner, self.run.evaluation, self.state.adapter)
        self.run.evaluations.append((step, loss))
        self.observer.evaluated(step, loss)

    def _continue_prompts(self) -> list[str]:
        options, bundle = self.run.options, self.run.bundle
        if not options.prompts:
            return []
        _enter(WRITING, self.sampler, self.observer)
        seq_len = bundle.manifest.seq_len
        arguments = self.runner, bundle.tokenizer, self.state.adapter
        return ["".join(continue_prompt(*arguments, prompt, seq_len, options.sampling, options.chat)) for prompt in options.prompts]

    def _save(self) -> None:
        """A checkpoint of the last whole step, unless there is one."""
        run, step = self.run, len(self.run.outcomes)
        if self.directory is None or self.saved == step:
            return
        _enter(SAVING, self.sampler, self.observer)
        runtime = f"{self.runner.name} {self.runner.version}"
        place = RunPlace(run.identity, step, step * run.train.accumulation, runtime, self.kept_layers)
        history = [
            (o.loss, o.learning_rate, o.gradient_norm, o.gradient_seconds, o.optimizer_seconds, memory or 0)
            for o, memory in zip(run.outcomes, run.memory, strict=True)
        ]
        steps = np.array(history, np.float64).reshape(step, -1) if step else np.zeros((0, 6))
        evaluations = np.array(run.evaluations, np.float64)
        self.directory.write(RunCheckpoint(place, self.state, self.optimizer.updates, steps, evaluations))
        self.saved = step

    def _restore(self, checkpoint: RunCheckpoint) -> None:
        run, step = self.run, checkpoint.place.step
        for name in ("adapter", "first_moment", "second_moment"):
            getattr(self.state, name)[:] = getattr(checkpoint.state, name)
        self.optimizer.updates[:] = checkpoint.updates
        for number, (loss, rate, norm, gradient_seconds, optimizer_seconds, memory) in enumerate(checkpoint.steps.tolist()):
            subset = run.schedule[number % len(run.schedule)]
            run.outcomes.append(StepOutcome(number + 1, subset, loss, rate, norm, gradient_seconds, optimizer_seconds))
            run.memory.append(int(memory) or None)
        run.evaluations.extend((int(number), loss) for number, loss in checkpoint.evaluations.tolist())
        run.resumed_from = self.saved = step
        self.observer.resumed(step)


def _phase_seconds(run: Run, sampler: MemorySampler) -> dict[str, float]:
    """AdamW's share is taken out of the steps that contain it."""
    seconds = {name: usage.seconds for name, usage in sampler.phases.items()}
    optimizer = sum(outcome.optimizer_seconds for outcome in run.outcomes[run.resumed_from or 0 :])
    return seconds | {STEPS: seconds.get(STEPS, 0.0) - optimizer, OPTIMIZER: optimizer}


def _packing_fill(run: Run) -> float:
    """The share of the first epoch's tokens that are not padding."""
    return run.numbers.trained_tokens / (run.numbers.epoch_sequences * run.bundle.manifest.seq_len)


def _result(run: Run, runner: StepRunner, sampler: MemorySampler, plan: Plan | None) -> SimulateResult:
    options = run.options
    seconds = tuple(outcome.gradient_seconds + outcome.optimizer_seconds for outcome in run.outcomes)
    return SimulateResult(
        runtime=runner.name,
        runtime_version=runner.version,
        target=run.bundle.manifest.target,
        method=run.method,
        schedule=tuple(subset.train for subset in run.schedule),
        steps=options.steps,
        resumed_from=run.resumed_from,
        learning_rate=run.train.learning_rate,
        losses=tuple(outcome.loss for outcome in run.outcomes),
        step_seconds=seconds,
        step_seconds_median=statistics.median(seconds),
        evaluations=tuple(run.evaluations),
        eval_loss_before=run.evaluations[0][1],
        eval_loss_after=run.evaluations[-1][1],
        peak_anonymous_bytes=sampler.peak_anonymous,
        peak_rss_bytes=sampler.peak_rss,
        predicted_peak_anonymous_bytes=None if plan is None or sampler.peak_anonymous is None else plan.predicted_peak_bytes,
        kept_layers=0 if plan is None else plan.keep,
        phase_seconds=_phase_seconds(run, sampler),
        data=run.data,
        numbers=run.numbers,
        packing_fill=_packing_fill(run),
        samples=tuple((sample.prompt, sample.before, sample.after) for sample in run.samples),
        adapter=str(options.adapter),
        checkpoints=str(options.checkpoint_directory) if options.checkpoint_directory else None,
        report=str(options.report) if options.report else None,
    )
