"""`lcsb inspect`: what is in a bundle, and what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.cli.console import Json, Threads, print_json, show_result, verb
from lcsb_mobile.cli.show_inspection import render
from lcsb_mobile.errors import OptionError
from lcsb_mobile.planning.calibration import calibrate_bundle
from lcsb_mobile.planning.inspection import inspect_bundle


def register(app: typer.Typer) -> None:
    app.command("inspect", epilog="Example: lcsb inspect tiny.bundle")(inspect)


@verb
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)],
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Time the programs for a second or two and predict seconds.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show what is in a bundle, by subset and kept layers: FLOPs, predicted share of a step's time, predicted memory; and its files."""
    if threads is not None and not calibrate:
        raise OptionError("threads: only what is calibrated runs; expected --calibrate beside it, found none")
    opened = Bundle.open(bundle)
    inspection = inspect_bundle(opened, calibrate_bundle(opened, threads) if calibrate else None)
    if json:
        print_json(inspection)
    else:
        show_result(render(inspection))
