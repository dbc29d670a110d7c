"""`lcsb simulate`: the fine-tune on this machine as a phone would run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn
from typer import Option

from lcsb_mobile.bundle.schedule import Method
from lcsb_mobile.cli.console import Force, Json, Provider, Stopped, Threads, as_text, note, print_json, progress_bars, say, verb
from lcsb_mobile.cli.generate import SAMPLING, MaxTokens, Runner, Stop, Temperature, TopP
from lcsb_mobile.data.dataset import DataReport, doubled_ends_line, further_keys_line
from lcsb_mobile.errors import NonFiniteLossError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.generation.generate import Chat
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.installing import check_can_draw
from lcsb_mobile.planning.plan import parse_keep, parse_size
from lcsb_mobile.runs.numbers import RunNumbers, evaluated_line, trained_line
from lcsb_mobile.runs.setup import Observer, SimulateOptions
from lcsb_mobile.runs.simulate import SimulateResult, Simulation
from lcsb_mobile.runs.simulate import simulate as simulate_run
from lcsb_mobile.training.interrupts import Interrupted, Interrupts
from lcsb_mobile.training.optimizer import LearningRateSchedule
from lcsb_mobile.training.trainer import StepOutcome

DEFAULTS = SimulateOptions(bundle=Path(), data=Path(), steps=0, adapter=Path())


def register(app: typer.Typer) -> None:
    example = "Example: lcsb simulate tiny.bundle --data messages.jsonl --steps 100 --report run.html"
    app.command("simulate", epilog=example)(simulate)


@verb
def simulate(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)],
    data: Annotated[Path, Option(help="One JSON object a line: text, prompt and completion, or messages.", show_default=False)],
    steps: Annotated[int, Option(help="Optimizer steps.", show_default=False)],
    adapter: Annotated[Path | None, Option(help="Where the adapter goes.", show_default="BUNDLE-adapter.safetensors")] = None,
    initial_adapter: Annotated[
        Path | None, Option(help="Begin with this adapter, as `lcsb adapter import` writes one.", show_default="the bundle's")
    ] = DEFAULTS.initial_adapter,
    lr: Annotated[
        float | None, Option(help="The highest learning rate.", show_default="4e-4, times sqrt(K) for lcsb-exact")
    ] = DEFAULTS.learning_rate,
    method: Annotated[Method | None, Option(help="Another schedule than the bundle's.", show_default="the bundle's")] = DEFAULTS.method,
    lr_schedule: Annotated[LearningRateSchedule, Option(help="What follows the warm-up.")] = DEFAULTS.lr_schedule,
    warmup: Annotated[int, Option(help="Steps over which the learning rate rises.")] = DEFAULTS.warmup,
    accumulation: Annotated[int, Option(help="Sequences a step.")] = DEFAULTS.accumulation,
    eval_data: Annotated[
        Path | None, Option(help="Data to evaluate on.", show_default="examples that are held out")
    ] = DEFAULTS.evaluation_data,
    hold_out: Annotated[float, Option(help="The share of the examples to evaluate on, without --eval-data.")] = DEFAULTS.hold_out,
    eval_every: Annotated[int, Option(help="Evaluate after so many steps; 0: only before and after.")] = DEFAULTS.evaluate_every,
    memory_budget: Annotated[str | None, Option(help="Most anonymous memory, such as 512MB.", show_default="none")] = None,
    keep: Annotated[
        str | None,
        Option(help="Top layers that keep their activations: none, all or a number.", show_default="what --memory-budget allows"),
    ] = None,
    prompt: Annotated[list[str] | None, Option(help="A text to continue before and after; may be given again.", show_default=False)] = None,
    chat: Annotated[bool, Option("--chat", help="The prompts are users' messages; write the answers.")] = False,
    stop: Stop = None,
    max_tokens: MaxTokens = SAMPLING.max_tokens,
    temperature: Temperature = SAMPLING.temperature,
    top_p: TopP = SAMPLING.top_p,
    checkpoint_dir: Annotated[
        Path | None, Option(help="Keep the run's last two states here.", show_default=False)
    ] = DEFAULTS.checkpoint_directory,
    checkpoint_every: Annotated[int, Option(help="Steps between two of them.")] = DEFAULTS.checkpoint_every,
    resume: Annotated[bool, Option("--resume", help="Go on from the newest state in --checkpoint-dir, if any.")] = DEFAULTS.resume,
    threads: Threads = DEFAULTS.threads,
    runner: Runner = DEFAULTS.runner,
    provider: Provider = DEFAULTS.provider,
    report: Annotated[Path | None, Option(help="Write a report, one HTML file that stands alone.", show_default=False)] = DEFAULTS.report,
    seed: Annotated[int, Option(help="Of the data's order and of the sampling.")] = DEFAULTS.seed,
    force: Force = DEFAULTS.force,
    json: Json = False,
) -> None:
    """Run the fine-tune on this machine as a phone would: same graphs, same schedule, memory measured. Writes the adapter."""
    options = SimulateOptions(
        bundle=bundle,
        data=data,
        steps=steps,
        adapter=adapter or default_adapter(bundle),
        initial_adapter=initial_adapter,
        learning_rate=lr,
        method=method,
        lr_schedule=lr_schedule,
        warmup=warmup,
        accumulation=accumulation,
        evaluation_data=eval_data,
        hold_out=hold_out,
        evaluate_every=eval_every,
        memory_budget=parse_size(memory_budget) if memory_budget is not None else DEFAULTS.memory_budget,
        keep=parse_keep(keep) if keep is not None else DEFAULTS.keep,
        checkpoint_directory=checkpoint_dir,
        checkpoint_every=checkpoint_every,
        resume=resume,
        threads=threads,
        runner=runner,
        provider=provider,
        report=report,
        prompts=tuple(map(as_text, prompt or DEFAULTS.prompts)),
        sampling=SamplingConfig(max_tokens, temperature, top_p, seed, tuple(map(as_text, stop or SAMPLING.stop))),
        chat=Chat() if chat else DEFAULTS.chat,
        seed=seed,
        force=force,
    )
    result = run_simulation(options).result
    if json:
        print_json(result)
    else:
        show(result)
        say(f"next: lcsb generate {bundle} --adapter {result.adapter} --prompt TEXT")


def default_adapter(bundle: Path) -> Path:
    """Beside the bundle."""
    named = bundle if bundle.name not in ("", "..") else bundle.resolve()
    return named.with_name(f"{named.name}-adapter.safetensors")


def run_simulation(options: SimulateOptions) -> Simulation:
    """The run with a progress bar, and its report. What a run that was stopped leaves behind is said in the error."""
    if options.report is not None:
        check_can_draw("a report")
    with Interrupts(last=True), progress_bars(TextColumn("{task.fields[figures]}", markup=False)) as progress:
        observer = BarObserver(progress, options.steps)
        try:
            simulation = simulate_run(options, observer)
        except Interrupted as error:
            raise Stopped(f"{error} {what_is_kept(options, observer.saved_step)}".strip(), error.number) from error
        except KeyboardInterrupt as error:
            raise Stopped(what_is_kept(options, observer.saved_step)) from error
        except NonFiniteLossError as error:
            if observer.saved_step is None:
                raise
            raise NonFiniteLossError(f"{error}; {how_to_go_on(options)}") from error
    if options.report is not None:
        from lcsb_mobile.report.run import write_run_report  # after the run: drawing must not count into its memory

        write_run_report(options.report, simulation)
    return simulation


def how_to_go_on(options: SimulateOptions) -> str:
    if options.checkpoint_directory is None:
        return "--initial-adapter begins a run from it"
    return "the same command with --resume and a lower --lr goes on from there"


def what_is_kept(options: SimulateOptions, step: int | None) -> str:
    """`step`: of the adapter that was written, if one was."""
    if not step:
        return "before the first step ended"
    kept = f"after step {step}; the adapter is in {options.adapter}"
    return kept if options.checkpoint_directory is None else f"{kept}; the same command with --resume goes on"


class BarObserver(Observer):
    """One bar: the phase, the steps, and the last step's figures. Evaluations become lines, which stay when there is no terminal."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=steps, figures="")
        self.saved_step: int | None = None

    def phase(self, name: str) -> None:
        self._progress.update(self._task, description=name)

    def data(self, report: DataReport, held_out: int) -> None:
        note(f"data: {data_line(report)}")

    def numbers(self, numbers: RunNumbers) -> None:
        note(f"trained on: {trained_line(numbers)}")
        note(f"evaluated on: {evaluated_line(numbers)}")

    def warned(self, text: str) -> None:
        note(f"warning: {text}")

    def resumed(self, step: int) -> None:
        self._progress.update(self._task, completed=step)
        note(f"going on after step {step}")

    def evaluated(self, step: int, loss: float) -> None:
        note(f"evaluation loss {loss:.3f} after step {step}" if step else f"evaluation loss {loss:.3f} before the first step")

    def stepped(self, outcome: StepOutcome, memory: int | None) -> None:
        seconds = outcome.gradient_seconds + outcome.optimizer_seconds
        figures = f"loss {outcome.loss:.3f}  {seconds:.2f} s/step" + ("" if memory is None else f"  {megabytes(memory)}")
        self._progress.update(self._task, completed=outcome.step, figures=figures)

    def saved(self, step: int, adapter: Path) -> None:
        self.saved_step = step


def data_line(data: DataReport) -> str:
    line = f"{data.examples:,} examples, {data.tokens:,} tokens"
    if data.truncated:
        line += f"; {data.truncated:,} longer than the sequence, {data.tokens_cut:,} tokens cut"
    if data.without_labels:
        line += f"; {data.without_labels:,} dropped, nothing in them to learn"
    if data.doubled_ends:
        line += f"; {doubled_ends_line(data.doubled_ends)}"
    if data.further_keys:
        line += f"; passed over: {further_keys_line(data.further_keys)}"
    return line


def memory_line(result: SimulateResult) -> str:
    resident = f"{megabytes(result.peak_rss_bytes)} resident"
    if result.peak_anonymous_bytes is None:
        return f"{resident}; this system does not say how much of it is anonymous"
    predicted = result.predicted_peak_anonymous_bytes
    beside = f" (predicted {megabytes(predicted)})" if predicted is not None else ""
    return f"{megabytes(result.peak_anonymous_bytes)} anonymous{beside}, {resident}"


def show(result: SimulateResult) -> None:
    first, last = result.eval_loss_before, result.eval_loss_after
    change = f" ({last / first - 1:+.1%})" if first else ""
    say(f"evaluation loss  {first:.3f} → {last:.3f}{change}")
    say(f"step             {result.step_seconds_median:.3f} s (median of {len(result.step_seconds)})")
    say(f"method           {result.method}, learning rate {result.learning_rate:.1e}")
    say(f"peak memory      {memory_line(result)}")
    if result.kept_layers:
        say(f"kept             the activations of the top {result.kept_layers} layers")
    say(f"data             {data_line(result.data)}")
    say(f"trained on       {trained_line(result.numbers)}, {result.packing_fill:.0%} filled")
    say(f"evaluated on     {evaluated_line(result.numbers)}")
    say(f"adapter          {result.adapter}")
    if result.checkpoints is not None:
        say(f"checkpoints      {result.checkpoints}")
    if result.report is not None:
        say(f"report           {result.report}")
    for prompt, before, after in result.samples:
        say(f"\n{prompt!r}\n  before: {before}\n  after:  {after}")
