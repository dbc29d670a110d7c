"""`simulate`: the fine-tune on this machine as a phone would run it, from a bundle and a data file to an adapter and a report."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from pathlib import Path

from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.batch import StepRunner
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.config import Record
from lcsb_mobile.data.dataset import DataReport
from lcsb_mobile.errors import OptionError, OutputExistsError
from lcsb_mobile.io.files import check_output
from lcsb_mobile.io.storage import check_writable
from lcsb_mobile.measuring.memory import MemorySampler
from lcsb_mobile.planning.plan import Plan
from lcsb_mobile.runners import layer_update
from lcsb_mobile.runs.checkpoint import RunCheckpoint, checkpoint_files
from lcsb_mobile.runs.directory import RunDirectory
from lcsb_mobile.runs.numbers import RunNumbers
from lcsb_mobile.runs.session import STEPS, Session, enter
from lcsb_mobile.runs.setup import Observer, Run, SimulateOptions, load_runner, prepare, without_write_errors
from lcsb_mobile.training.golden import check_first_step, check_update
from lcsb_mobile.training.interrupts import Interrupts
from lcsb_mobile.training.state import mapped_state

LOADING, CHECKING, OPTIMIZER = "loading", "golden trace", "optimizer"


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
    cannot fit; nothing was run), GoldenTraceError, StorageError, NonFiniteLossError or MemoryBudgetExceeded; Interrupted, a
    KeyboardInterrupt, on SIGINT, SIGTERM and SIGHUP. From the first step on, whatever ends the run leaves the last adapter that was seen to
    give a finite loss; before it there is none to leave.
    """
    observer = without_write_errors(observer or Observer())
    _check_outputs(options)
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        run = prepare(options, observer)
        directory = None
        if options.checkpoint_directory is not None:
            directory = stack.enter_context(RunDirectory(options.checkpoint_directory))
        checkpoint = _begin(run, directory, observer)
        sampler = stack.enter_context(MemorySampler(limit=options.memory_budget))
        sampler.mark(LOADING)
        observer.phase(LOADING)
        keep = options.keep if options.keep is not None or checkpoint is None else checkpoint.place.kept_layers
        state, start = (mapped_state(_existing(options.adapter.parent), run.bundle.initial_adapter()) for _ in range(2))
        if options.initial_adapter is not None:
            start.adapter[:] = load_adapter(options.initial_adapter, run.bundle.manifest.adapter)
        plan, runner = load_runner(run, sampler, keep, observer)
        enter(CHECKING, sampler, observer)
        check_first_step(runner, read_trace(run.bundle.golden_path), state.adapter)
        check_update(runner.name, layer_update(runner), run.bundle.manifest.adapter.sizes, run.bundle.manifest.optimizer)
        state.copy_from(start)
        session = Session(run, runner, state, start, 0 if plan is None else plan.keep, directory, sampler, observer, interrupts)
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
    checkpoint = directory.newest(
        run.bundle.manifest.adapter, run.identity, observer.warned, lower_rate=run.options.learning_rate is not None
    )
    if checkpoint is not None and (made := checkpoint.place.step) > run.options.steps:
        raise OptionError(
            f"steps: expected at least {made}, which the run in {directory.path} has made, found {run.options.steps}; "
            "begin another in another directory for fewer"
        )
    return checkpoint


def _existing(directory: Path) -> Path:
    """The directory, or what there is of its path: it is only made when the adapter is written."""
    return directory if directory.is_dir() else _existing(directory.parent)


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
