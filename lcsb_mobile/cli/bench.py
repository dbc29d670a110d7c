"""`lcsb bench`: speed and memory of a step, side by side in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from typer import Option

from lcsb_mobile.bench.figures import PICTURES, write_figures
from lcsb_mobile.bench.rows import BenchRow
from lcsb_mobile.bench.shapes import SHAPES, RandomBundleOptions
from lcsb_mobile.bench.side_by_side import BenchOptions, check_choices
from lcsb_mobile.bench.side_by_side import bench as run_bench
from lcsb_mobile.cli.console import Json, StageBars, note, print_json, progress_bars, say, show_result, verb
from lcsb_mobile.errors import MissingDependencyError, OptionError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.installing import check_can_draw, how_to_install
from lcsb_mobile.io.storage import check_writable
from lcsb_mobile.measuring.machine import scratch_directory
from lcsb_mobile.planning.plan import parse_keep

DEFAULTS, RANDOM = BenchOptions(bundle=Path()), RandomBundleOptions(shape="")


def register(app: typer.Typer) -> None:
    app.command("bench", epilog="Example: lcsb bench --shape tiny --methods full,lcsb-exact --keep none --keep all")(bench)


@verb
def bench(
    bundle: Annotated[Path | None, typer.Argument(help="A TrainingBundle; or give --shape.", show_default=False)] = None,
    shape: Annotated[str | None, Option(help=f"Measure random weights in this shape: {', '.join(SHAPES)}.", show_default=False)] = None,
    target: Annotated[
        Literal["onnxruntime", "executorch", "onnxruntime-training", "coreai"] | None,
        Option(help="The runtime.", show_default="the bundle's, or onnxruntime"),
    ] = None,
    methods: Annotated[str, Option(help="Which methods, separated by commas.")] = ",".join(DEFAULTS.methods),
    subsets: Annotated[int, Option(help="K: into how many subsets the layers are parted.")] = DEFAULTS.subsets,
    keep: Annotated[
        list[str] | None,
        Option(help="Top layers that keep their activations: none, all or a number; may be given again.", show_default="none"),
    ] = None,
    seq_len: Annotated[int | None, Option(help="Tokens of a sequence, with --shape.", show_default=str(RANDOM.seq_len))] = None,
    rank: Annotated[int | None, Option(help="LoRA's rank, with --shape.", show_default=str(RANDOM.rank))] = None,
    layers: Annotated[int | None, Option(help="Another depth, with --shape.", show_default="the shape's own")] = None,
    bundle_dir: Annotated[
        Path | None, Option(help="Keep the bundles of --shape here, and use those that are.", show_default="a temporary directory")
    ] = None,
    steps: Annotated[int | None, Option(help="Steps of one measurement, whole cycles.", show_default="K")] = DEFAULTS.steps,
    rounds: Annotated[int, Option(help="How often each measurement is made, all in turn.")] = DEFAULTS.rounds,
    threads: Annotated[int | None, Option(help="Threads of every measurement.", show_default="the cores")] = DEFAULTS.threads,
    peers: Annotated[str, Option(help="`torch`: PyTorch with transformers and peft, beside.", show_default="none")] = "",
    python: Annotated[
        str, Option(help="Measure in this interpreter's environment; peers in the present one.", show_default="the present one")
    ] = DEFAULTS.python,
    plot: Annotated[Path | None, Option(help="A directory for pictures: step-time.png, peak-memory.png.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Measure steps of several methods in turn, each in a fresh process: time by phase, decompression, memory, and the GEMM's speed."""
    given: dict[str, Any] = {"target": target, "layers": layers, "seq_len": seq_len, "rank": rank}
    options = BenchOptions(
        bundle=Path(),
        target=target,
        methods=tuple(names(methods)),
        subsets=subsets,
        keep=tuple(parse_keep(text) for text in keep) if keep else DEFAULTS.keep,
        steps=steps,
        rounds=rounds,
        threads=threads,
        peers=tuple(names(peers)),
        python=python,
    )
    check_choices(options)  # before a bundle is made, which may take minutes
    if plot is not None:
        check_can_draw("--plot")
        check_writable(plot / PICTURES[0])
    given = {name: value for name, value in given.items() if value is not None}
    with measured_bundle(bundle, shape, given, bundle_dir) as path, progress_bars() as progress:
        rows = run_bench(replace(options, bundle=path), StageBars(progress))
    pictures = write_figures(plot, rows) if plot is not None else ()
    if json:
        print_json(rows)
    else:
        show(rows)
        for picture in pictures:
            say(f"picture  {picture}")


def names(text: str) -> list[Any]:
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def measured_bundle(bundle: Path | None, shape: str | None, given: dict[str, Any], bundle_dir: Path | None) -> Iterator[Path]:
    """`bundle`, or one of random weights, which is there as long as the context is. Raises OptionError for both or neither."""
    if (bundle is None) == (shape is None):
        raise OptionError(f"expected a bundle or --shape, found {'both' if bundle else 'neither'}; --shape is one of {', '.join(SHAPES)}")
    if bundle is not None:
        unused = [f"--{name.replace('_', '-')}" for name in given if name != "target"] + (["--bundle-dir"] if bundle_dir else [])
        if unused:
            raise OptionError(f"{', '.join(unused)}: only with --shape; a bundle's were chosen when it was exported")
        yield bundle
        return
    options = RandomBundleOptions(shape=str(shape), **given)
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as temporary:
        name = f"{options.name.replace(' ', '-')}-{options.target}-t{options.seq_len}-r{options.rank}"
        yield make_random_bundle((bundle_dir or Path(temporary)) / name, options)


def make_random_bundle(path: Path, options: RandomBundleOptions) -> Path:
    try:
        from lcsb_mobile.export.random_bundle import random_bundle  # imports torch, which measuring a bundle does not need
    except ImportError as error:
        raise MissingDependencyError(
            f"--shape needs torch and onnx, as an export does ({error}); measure a bundle that was exported elsewhere, or "
            + how_to_install("export")
        ) from error
    note(f"{options.name}: random weights in {path} …")
    with progress_bars() as progress:
        return random_bundle(path, options, StageBars(progress))


def show(rows: Sequence[BenchRow]) -> None:
    show_result(speed_and_memory(rows))
    show_result(phases(rows))
    first = rows[0]
    say(
        f"{first.shape}: {first.target}, {first.runtime} {first.runtime_version}, {first.seq_len} tokens, rank {first.rank}, "
        f"{first.threads} threads, {first.rounds} rounds"
    )
    if first.peak_anonymous_bytes is None:
        say("peak MB would be anonymous memory, but this system does not say how much that is")
    if first.sgemm_gflops is not None:
        say(f"GEMM at the model's shapes: {first.sgemm_gflops:.0f} GFLOP/s; of bound: a mean step's time over its FLOPs' at this speed")


def table(title: str, columns: Sequence[str]) -> Table:
    made = Table("method", "kept", title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def speed_and_memory(rows: Sequence[BenchRow]) -> Table:
    made = table("A step", ("median s", "mean s", "full/this", "of bound", "peak MB", "predicted", "resident MB"))
    full = next((row.step_seconds_mean for row in rows if row.method == "full"), None)
    for row in rows:
        memory = (row.peak_anonymous_bytes, row.predicted_peak_anonymous_bytes, row.peak_rss_bytes)
        made.add_row(
            row.method,
            str(row.kept_layers),
            number(row.step_seconds_median),
            number(row.step_seconds_mean),
            number(full and full / row.step_seconds_mean, "{:.2f}x"),
            number(row.time_over_gemm_bound, "{:.2f}x"),
            *(megabytes(count).removesuffix(" MB") for count in memory),
        )
    return made


def phases(rows: Sequence[BenchRow]) -> Table:
    names = list(dict.fromkeys(phase for row in rows for phase in row.phase_seconds))
    made = table("Seconds by phase, and decompression within it", (*names, "decompression"))
    for row in rows:
        cells = [
            number(row.phase_seconds.get(name)) + (f" {seconds:.3f}" if (seconds := row.decompress_seconds.get(name)) else "")
            for name in names
        ]
        made.add_row(row.method, str(row.kept_layers), *cells, number(row.decompress_share, "{:.0%}"))
    return made


def number(value: float | None, form: str = "{:.3f}") -> str:
    return "–" if value is None else form.format(value)
