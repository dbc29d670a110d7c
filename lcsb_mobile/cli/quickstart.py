"""`lcsb quickstart`: the whole way, offline: export, simulate on the sample data, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from typer import Option

from lcsb_mobile import tiny
from lcsb_mobile.bundle.export_options import TINY, ExportOptions
from lcsb_mobile.cli.console import Force, Json, Threads, note, print_json, say, show_result, verb
from lcsb_mobile.cli.export import ExportSummary, run_export
from lcsb_mobile.cli.simulate import run_simulation
from lcsb_mobile.cli.simulate import show as show_run
from lcsb_mobile.config import Quantizer, Record
from lcsb_mobile.errors import OutputExistsError
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.runners import import_runtime
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import SimulateResult
from lcsb_mobile.targets import Target, target_row

TINY_STEPS, OTHER_STEPS = 400, 24  # for tiny: under a minute on two cores, and enough to hear the style
TINY_TOKENS, OTHER_TOKENS = 96, 12  # of a text sample: each costs a forward pass of the whole sequence, half a second for 135 M parameters
TEMPERATURE = 0.6  # a model of 2 M parameters rambles at a higher one
QUANTIZER: Quantizer = "search"  # the fast one: the whole way takes a minute and a half
BUNDLE, ADAPTER, REPORT = "bundle", "adapter.safetensors", "report.html"
PROMPTS = ("ok so ", "two things: ")  # how messages of the sample data begin
TABLE_ROWS = 8


@dataclass(frozen=True)
class QuickstartOptions:
    """`data` None: the sample messages. `steps` None: TINY_STEPS for tiny, OTHER_STEPS for another model."""

    output: Path = Path("lcsb-quickstart")
    model: str = TINY
    target: Target = ExportOptions.target
    data: Path | None = None
    steps: int | None = None
    threads: int | None = None
    force: bool = False


class QuickstartResult(Record, frozen=True):
    """What `lcsb quickstart --json` prints."""

    export: ExportSummary
    simulate: SimulateResult


def quickstart(options: QuickstartOptions) -> QuickstartResult:
    """Writes `bundle`, `adapter.safetensors` and `report.html` into the output directory.

    Raises OutputExistsError when that exists, unless `force` is given and it holds nothing else; MissingDependencyError, before anything
    is written, when the target's runtime is not installed; and as export and simulate do.
    """
    check_directory(options.output, options.force)
    steps = options.steps if options.steps is not None else (TINY_STEPS if options.model == TINY else OTHER_STEPS)
    check_ranges({"steps": steps, "threads": options.threads})  # an export takes minutes: what simulate would refuse comes before it
    import_runtime(target_row(options.target).name)
    for name in (ADAPTER, REPORT):
        (options.output / name).unlink(missing_ok=True)
    exported = run_export(
        ExportOptions(model=options.model, output=options.output / BUNDLE, target=options.target, quantizer=QUANTIZER, force=options.force)
    )
    note(f"fine-tuning for {steps} steps …")
    simulated = run_simulation(
        SimulateOptions(
            bundle=options.output / BUNDLE,
            data=options.data or tiny.MESSAGES,
            evaluation_data=tiny.EVAL_MESSAGES if options.data is None else None,
            evaluate_every=-(-steps // 4),
            steps=steps,
            adapter=options.output / ADAPTER,
            report=options.output / REPORT,
            prompts=PROMPTS,
            sampling=SamplingConfig(max_tokens=TINY_TOKENS if options.model == TINY else OTHER_TOKENS, temperature=TEMPERATURE),
            threads=options.threads,
        )
    )
    return QuickstartResult(exported, simulated.result)


def check_directory(directory: Path, force: bool) -> None:
    """Raises OutputExistsError unless `directory` is not there, or may be replaced and holds a quickstart's output alone."""
    if not directory.exists():
        return
    if not force:
        raise OutputExistsError(f"{directory}: already exists; choose another path or pass --force to replace it")
    others = sorted({path.name for path in directory.iterdir()} - {BUNDLE, ADAPTER, REPORT}) if directory.is_dir() else [directory.name]
    if others:
        found = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise OutputExistsError(f"{directory}: holds what no quickstart wrote ({found}), so it is not replaced; choose another path")


DEFAULTS = QuickstartOptions()


def register(app: typer.Typer) -> None:
    app.command("quickstart", epilog="Example: lcsb quickstart --output demo")(command)


@verb
def command(
    output: Annotated[Path, Option(help="A directory for the bundle, the adapter and the report.")] = DEFAULTS.output,
    model: Annotated[str, Option(help="`tiny`, a .gguf file, or a Hugging Face checkpoint directory.")] = DEFAULTS.model,
    target: Annotated[Target, Option(help="The runtime to export for and to train on.")] = DEFAULTS.target,
    data: Annotated[Path | None, Option(help="Training data, JSON lines.", show_default="sample messages")] = DEFAULTS.data,
    steps: Annotated[
        int | None, Option(help="Optimizer steps.", show_default=f"{TINY_STEPS} for tiny, {OTHER_STEPS} for others")
    ] = DEFAULTS.steps,
    threads: Threads = DEFAULTS.threads,
    force: Force = DEFAULTS.force,
    json: Json = False,
) -> None:
    """The whole way on the embedded tiny model, offline: export it, fine-tune it on sample messages, write a report."""
    options = QuickstartOptions(output, model, target, data, steps, threads, force)
    result = quickstart(options)
    if json:
        print_json(result)
    else:
        show(options.output, result)


def show(directory: Path, result: QuickstartResult) -> None:
    run = result.simulate
    evaluations = dict(run.evaluations)
    table = Table("step", "training loss", "evaluation loss", box=None, pad_edge=False)
    every = -(-run.steps // TABLE_ROWS)
    for step in sorted({*range(every, run.steps + 1, every), *evaluations}):
        recent = run.losses[max(0, step - every) : step]  # a mean: single sequences differ more than the loss falls
        mean = f"{sum(recent) / len(recent):.3f}" if recent else ""
        table.add_row(str(step), mean, f"{evaluations[step]:.3f}" if step in evaluations else "")
    show_result(table)
    show_run(run)
    say(f"\nnext: lcsb inspect {directory / BUNDLE}")
    say(f"      lcsb verify {directory / BUNDLE}")
    say(f'      lcsb generate {directory / BUNDLE} --adapter {directory / ADAPTER} --prompt "{PROMPTS[0]}"')
    say(f"      open {directory / REPORT} in a browser")
