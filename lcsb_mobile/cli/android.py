"""`lcsb android`: a bundle onto an Android phone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from lcsb_mobile.cli.console import Json, StageBars, print_json, progress_bars, say, verb
from lcsb_mobile.devices.android import APPLICATION
from lcsb_mobile.devices.android import push as push_bundle
from lcsb_mobile.formatting import MEGABYTE, megabytes


def register(app: typer.Typer) -> None:
    android = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    android.command("push", epilog="Example: lcsb android push smollm2.bundle")(push)
    android.callback()(lambda: None)  # so that the one command keeps its name
    app.add_typer(android, name="android", help="A bundle onto an Android phone.", epilog="Example: lcsb android push --help")


@verb
def push(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle of target onnxruntime.", show_default=False)],
    name: Annotated[str | None, Option(help="What it is called on the phone.", show_default="the directory's name")] = None,
    serial: Annotated[str | None, Option(help="The phone's serial number, of `adb devices`.", show_default="the only one")] = None,
    package: Annotated[str, Option(help="The app's application id.")] = APPLICATION,
    json: Json = False,
) -> None:
    """Copy a bundle into the demo app's folder on a connected phone, with adb."""
    with progress_bars() as progress:
        bars = StageBars(progress)
        result = push_bundle(bundle, name, serial, package, lambda done, total: bars("MB", done // MEGABYTE, total // MEGABYTE))
    if json:
        print_json(result)
        return
    say(f"{result.folder} on {result.phone}: {megabytes(result.size)}")
    say("next: open the app; it lists the bundle under Model, and copies and verifies it when it is chosen")
