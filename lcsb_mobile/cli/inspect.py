"""`lcsb inspect`: what is in a bundle, and what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcsb_mobile.bundle import Bundle
from lcsb_mobile.cli.console import Json, out, print_json, verb
from lcsb_mobile.cli.show_inspection import render
from lcsb_mobile.inspection import inspect_bundle


def register(app: typer.Typer) -> None:
    app.command("inspect", epilog="Example: lcsb inspect tiny.bundle")(inspect)


@verb
def inspect(bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)], json: Json = False) -> None:
    """Show what is in a bundle, by subset: layers, FLOPs, predicted share of a step's time, predicted memory; and its files."""
    inspection = inspect_bundle(Bundle.open(bundle))
    if json:
        print_json(inspection)
    else:
        out.print(render(inspection))
