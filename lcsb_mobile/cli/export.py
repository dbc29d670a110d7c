"""`lcsb export`: from a checkpoint to a TrainingBundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from lcsb_mobile.bundle.export_options import ExportOptions, TextLosses
from lcsb_mobile.bundle.schedule import Method, Order, Partition, ScheduleConfig
from lcsb_mobile.cli.console import Force, Json, StageBars, note, print_json, progress_bars, say, verb
from lcsb_mobile.config import AdamWConfig, ImplicitUpdates, LoraConfig, Programs, QuantizationConfig, Quantizer, Record
from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.targets import Target

DEFAULTS = ExportOptions(model="", output=Path())
LORA, QUANTIZATION, SCHEDULE, OPTIMIZER = DEFAULTS.lora, DEFAULTS.quantization, DEFAULTS.schedule, DEFAULTS.optimizer


class ExportSummary(Record, frozen=True):
    """What `lcsb export --json` prints. `size`: bytes of all files. `calibration`: the text that gptq rounded against. `seconds`: by stage.
    `losses`: what rounding cost on a text. `reconstruction_error`: of each matrix. `peak_…_bytes`: of the exporting process."""

    bundle: str
    source: str
    target: str
    method: str
    schedule: tuple[tuple[int, ...], ...]
    seq_len: int
    size: int
    quantizer: str
    calibration: str | None
    losses: TextLosses | None
    seconds: dict[str, float]
    reconstruction_error: dict[str, float]
    peak_anonymous_bytes: int | None
    peak_rss_bytes: int


def register(app: typer.Typer) -> None:
    app.command("export", epilog="Example: lcsb export tiny --output tiny.bundle")(export)


@verb
def export(
    model: Annotated[str, typer.Argument(help="A Hugging Face checkpoint directory, a .gguf file, or `tiny`.", show_default=False)],
    output: Annotated[Path, Option(help="The bundle's directory.", show_default=False)],
    target: Annotated[Target, Option(help="The runtime that the bundle is for.")] = DEFAULTS.target,
    method: Annotated[Method, Option(help="Which layers a step trains; `freeze`: the top 1/K of them.")] = SCHEDULE.method,
    subsets: Annotated[int, Option(help="K: into how many subsets the layers are parted.")] = SCHEDULE.subsets,
    partition: Annotated[Partition | None, Option(help="How the layers are parted.", show_default="the method's own")] = SCHEDULE.partition,
    order: Annotated[Order, Option(help="In which order the subsets take turns.")] = SCHEDULE.order,
    rank: Annotated[int, Option(help="LoRA's rank.")] = LORA.rank,
    alpha: Annotated[float, Option(help="LoRA's alpha; its product is scaled by alpha/rank.")] = LORA.alpha,
    bits: Annotated[int, Option(help="Bits of a weight in the blocks: 4 or 8.")] = QUANTIZATION.bits,
    embedding_bits: Annotated[int, Option(help="Bits of a weight in embedding and head: 8 or 4.")] = QUANTIZATION.embedding_bits,
    group_size: Annotated[int, Option(help="Weights that share a scale.")] = QUANTIZATION.group_size,
    quantizer: Annotated[
        Quantizer | None,
        Option(
            help="How the blocks are rounded: `gptq` against a text, which loses less; `search` each weight by itself, which is fast.",
            show_default="gptq at 4 bits if the model knows the text, else search",
        ),
    ] = DEFAULTS.quantizer,
    calibration: Annotated[
        Path | None,
        Option(help="The text of gptq and of the losses: a text file, or .jsonl as for training.", show_default="the toolkit's own"),
    ] = DEFAULTS.calibration,
    seq_len: Annotated[int, Option(help="Tokens of a training sequence.")] = DEFAULTS.seq_len,
    accuracy_level: Annotated[
        int,
        Option(
            help="4: the forward's products round activations to int8 (target onnxruntime); weights then take memory as constants. "
            "2: products are computed in float16 (targets coreai and coreml)."
        ),
    ] = DEFAULTS.accuracy_level,
    programs: Annotated[
        Programs, Option(help="gpu: the blocks' programs keep to kernels of ONNX Runtime's WebGPU provider (target onnxruntime, 4 bits).")
    ] = DEFAULTS.programs,
    weight_decay: Annotated[float, Option(help="AdamW's decoupled weight decay.")] = OPTIMIZER.weight_decay,
    clip_norm: Annotated[float, Option(help="A step's gradient is scaled down to this norm; 0: not at all.")] = OPTIMIZER.clip_norm,
    implicit_updates: Annotated[
        ImplicitUpdates, Option(help="Whether momentum moves the layers that a step does not train.")
    ] = OPTIMIZER.implicit_updates,
    seed: Annotated[int, Option(help="Of the initial adapter and of a shuffled order.")] = DEFAULTS.seed,
    force: Force = DEFAULTS.force,
    json: Json = False,
) -> None:
    """Write a TrainingBundle: the int4 weights, the training graphs, the adapter, the schedule, and a golden trace to check runtimes by."""
    options = ExportOptions(
        model=model,
        output=output,
        target=target,
        lora=LoraConfig(rank, alpha),
        quantization=QuantizationConfig(bits, embedding_bits, group_size),  # type: ignore[arg-type]  # export checks the bits
        quantizer=quantizer,
        calibration=calibration,
        schedule=ScheduleConfig(method, subsets, partition, order, seed),
        optimizer=AdamWConfig(weight_decay=weight_decay, clip_norm=clip_norm, implicit_updates=implicit_updates),
        seq_len=seq_len,
        accuracy_level=accuracy_level,  # type: ignore[arg-type] # checked by export_bundle
        programs=programs,
        seed=seed,
        force=force,
    )
    summary = run_export(options)
    if json:
        print_json(summary)
    else:
        show(summary)


def run_export(options: ExportOptions) -> ExportSummary:
    """`export_bundle` with progress bars, and what came of it."""
    note(f"exporting {options.model} to {options.output} …")
    try:
        from lcsb_mobile.export.bundle import export_bundle  # imports torch, which no other verb needs
    except ImportError as error:
        raise MissingDependencyError(f"exporting needs torch and onnx ({error}); {how_to_install('export')}") from error
    with progress_bars() as progress:
        report = export_bundle(options, StageBars(progress))
    for warning in report.warnings:
        note(f"warning: {warning}")
    manifest = report.manifest
    return ExportSummary(
        bundle=str(report.bundle),
        source=manifest.source,
        target=manifest.target,
        method=manifest.schedule_config.method,
        schedule=tuple(subset.train for subset in manifest.schedule),
        seq_len=manifest.seq_len,
        size=sum(entry.size for entry in manifest.files.values()),
        quantizer=manifest.quantization.quantizer,
        calibration=manifest.quantization.calibration,
        losses=report.losses,
        seconds=report.seconds,
        reconstruction_error=manifest.reconstruction_error,
        peak_anonymous_bytes=report.peak_anonymous_bytes,
        peak_rss_bytes=report.peak_rss_bytes,
    )


def show(summary: ExportSummary) -> None:
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary.seconds.items())
    errors = ", ".join(
        f"{name.removesuffix('.weight').rpartition('.')[2]} {error:.1%}" for name, error in summary.reconstruction_error.items()
    )
    say(f"{summary.bundle}: {summary.source}")
    say(f"  size      {megabytes(summary.size)}, for {summary.target}")
    say(f"  method    {summary.method}, {len(summary.schedule)} steps a cycle, sequences of {summary.seq_len} tokens")
    say(f"  seconds   {sum(summary.seconds.values()):.1f}: {stages}")
    say(f"  error     of the quantised matrices: {errors}")
    if summary.calibration:
        say(f"  gptq      keeps their outputs rather than the weights, on {summary.calibration}")
    if losses := summary.losses:
        rounded = f"{losses.stored:.3f} as stored ({losses.stored - losses.exact:+.3f} by {summary.quantizer})"
        where = "not rounded against" if losses.held_out else "rounded against, too"
        say(f"  loss      {losses.exact:.3f} in float, {rounded}, on {losses.tokens} tokens that it was {where}")
    say(f"next: lcsb verify {summary.bundle}")
    say(f"      lcsb simulate {summary.bundle} --data FILE.jsonl --steps 100")
