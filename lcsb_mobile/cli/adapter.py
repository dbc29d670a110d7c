"""`lcsb adapter`: adapters to and from PEFT's layout, and merged into a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from lcsb_mobile.adapters.merge_options import MergeDtype, MergeOptions
from lcsb_mobile.adapters.peft import ImportedAdapter, export_peft, import_peft
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.cli.console import Force, Json, StageBars, print_json, progress_bars, say, verb
from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.installing import how_to_install

DEFAULTS = MergeOptions(source=Path(), model="", output=Path())

Source = Annotated[
    Path, typer.Argument(help="An adapter file of `lcsb simulate`, or a run's checkpoint or directory of them.", show_default=False)
]
OfBundle = Annotated[Path, Option("--bundle", help="The TrainingBundle that the adapter belongs to.", show_default=False)]


def register(app: typer.Typer) -> None:
    adapter = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    adapter.command("export", epilog="Example: lcsb adapter export tiny-adapter.safetensors --bundle tiny.bundle --output peft")(export)
    adapter.command("import", epilog="Example: lcsb adapter import peft --bundle tiny.bundle --output from-peft.safetensors")(import_)
    example = "Example: lcsb adapter merge tiny-adapter.safetensors --bundle tiny.bundle --model tiny --output merged"
    adapter.command("merge", epilog=example)(merge)
    group = "Adapters to and from PEFT's layout, and merged into a checkpoint."
    app.add_typer(adapter, name="adapter", help=group, epilog="Example: lcsb adapter export --help")


@verb
def export(
    source: Source,
    bundle: OfBundle,
    output: Annotated[Path, Option(help="The directory for peft.PeftModel.from_pretrained.", show_default=False)],
    base_model: Annotated[
        str | None, Option(help="What PEFT is to call the base model.", show_default="the name of what the bundle was exported from")
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write an adapter as PEFT's `adapter_config.json` and `adapter_model.safetensors`."""
    result = export_peft(source, Bundle.open(bundle), output, base_model, force)
    if json:
        print_json(result)
        return
    say(f"{result.directory}: {result.matrices} matrices, rank {result.rank}, alpha {result.alpha:g}, for {result.base_model}")
    say(f'next: peft.PeftModel.from_pretrained(model, "{result.directory}")')


@verb
def import_(
    directory: Annotated[Path, typer.Argument(help="A directory that PEFT's save_pretrained wrote.", show_default=False)],
    bundle: OfBundle,
    output: Annotated[Path, Option(help="The adapter file.", show_default=False)],
    force: Force = False,
    json: Json = False,
) -> None:
    """Read a LoRA adapter of PEFT's as one of a bundle's, after checking that it is the same function."""
    result = import_peft(directory, Bundle.open(bundle), output, force)
    if json:
        print_json(result)
        return
    say(f"{result.adapter}: {result.matrices} matrices of {', '.join(result.dtypes)}, rank {result.rank}, scaling {result.scaling:g}")
    for line in initial_lines(result):
        say(line)
    say(f"next: lcsb generate {bundle} --adapter {result.adapter} --prompt TEXT")


def initial_lines(result: ImportedAdapter) -> list[str]:
    """What the directory does not adapt, projections of the same layers on one line."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for module, layers in result.initial.items():
        groups.setdefault(layers, []).append(module.rpartition(".")[2])
    return [f"  as before training  {', '.join(modules)} of layers {ranges(layers)}" for layers, modules in groups.items()]


def ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers as in 0-2, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


@verb
def merge(
    source: Source,
    bundle: OfBundle,
    model: Annotated[
        str, Option(help="What the bundle was exported from: a Hugging Face directory, a .gguf file, or `tiny`.", show_default=False)
    ],
    output: Annotated[Path, Option(help="The merged model's directory.", show_default=False)],
    dequantized: Annotated[
        bool, Option("--dequantized", help="Take the bundle's own weights, decompressed: those that the adapter was trained on.")
    ] = DEFAULTS.dequantized,
    dtype: Annotated[MergeDtype, Option(help="Of the merged weights.")] = DEFAULTS.dtype,
    force: Force = DEFAULTS.force,
    json: Json = False,
) -> None:
    """Write model and adapter as one Hugging Face checkpoint: W + alpha/rank * B A."""
    try:
        from lcsb_mobile.export.merge import merge as merge_adapter  # imports torch, which the other adapter verbs do not need
    except ImportError as error:
        raise MissingDependencyError(f"merging needs torch ({error}); {how_to_install('export')}") from error
    with progress_bars() as progress:
        result = merge_adapter(Bundle.open(bundle), MergeOptions(source, model, output, dequantized, dtype, force), StageBars(progress))
    if json:
        print_json(result)
        return
    say(f"{result.directory}: {result.source}")
    files = result.files[0] if len(result.files) == 1 else f"{len(result.files)} files"
    say(f"  merged    {result.merged_matrices} matrices; {megabytes(result.size)} of {result.dtype} in {files}")
    if result.base_difference is not None:
        say(f"  base      its matrices are {result.base_difference:.1%} from those that the adapter was trained on, which are rounded")
