"""`lcsb verify`: is the bundle whole, and does its runtime compute what the reference computed?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from typer import Option

from lcsb_mobile.cli.console import Json, Provider, StageBars, Threads, print_json, progress_bars, say, show_result, verb
from lcsb_mobile.runs.verify import VerifyResult
from lcsb_mobile.runs.verify import verify as verify_bundle


def register(app: typer.Typer) -> None:
    app.command("verify", epilog="Example: lcsb verify tiny.bundle --eager")(verify)


@verb
def verify(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)],
    eager: Annotated[bool, Option("--eager", help="Also compute one step of every subset with torch, and compare.")] = False,
    threads: Threads = None,
    provider: Provider = "cpu",
    json: Json = False,
) -> None:
    """Check every file's SHA-256, then hold the bundle's runtime to the golden trace that was recorded at export."""
    with progress_bars() as progress:
        bars = StageBars(progress)
        result = verify_bundle(bundle, eager, threads, lambda done, total: bars("golden trace", done, total), provider)
    if json:
        print_json(result)
    else:
        show(result)


def show(result: VerifyResult) -> None:
    if not result.manifest_digest:
        say(
            f"{result.bundle}: its manifest has no digest, as bundles of earlier versions: that its numbers are as exported was not checked"
        )
    if not result.steps:
        say(f"{result.bundle}: {result.files} files are whole; it has no recorded steps, so nothing was computed (random weights)")
        return
    table = Table("relative difference", "found", "allowed", box=None, pad_edge=False)
    for name, found, allowed in (
        ("a step's loss", result.step_loss, result.step_tolerance),
        ("a gradient's norm", result.step_gradient_norm, result.step_tolerance),
        ("the run's losses", result.run_loss, result.run_tolerance),
        ("the run by the training API's own loop", result.official_run_loss, result.run_tolerance),
        ("loss, against torch", result.eager_loss, result.step_tolerance),
        ("gradient elements, against torch", result.eager_gradient, result.step_tolerance),
    ):
        if found is not None:
            table.add_row(name, f"{found:.1e}", f"{allowed:.0e}")
    show_result(table)
    say(f"{result.bundle}: verified: {result.files} files, {result.steps} recorded steps, {result.runtime} {result.runtime_version}")
