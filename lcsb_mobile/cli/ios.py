"""`lcsb ios`: a bundle onto an iPhone or iPad."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from typer import Option

from lcsb_mobile.cli.console import Json, err, print_json, say, shown, verb
from lcsb_mobile.devices.ios import APPLICATION
from lcsb_mobile.devices.ios import push as push_bundle
from lcsb_mobile.formatting import megabytes


def register(app: typer.Typer) -> None:
    ios = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    ios.command("push", epilog="Example: lcsb ios push smollm2.bundle")(push)
    ios.callback()(lambda: None)  # so that the one command keeps its name
    app.add_typer(ios, name="ios", help="A bundle onto an iPhone or iPad, from a Mac.", epilog="Example: lcsb ios push --help")


@verb
def push(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle of target onnxruntime, coreml or coreai.", show_default=False)],
    name: Annotated[str | None, Option(help="What it is called on the phone.", show_default="the directory's name")] = None,
    device: Annotated[
        str | None, Option(help="The phone's name or identifier, of `xcrun devicectl list devices`.", show_default="the only one")
    ] = None,
    app: Annotated[str, Option(help="The app's bundle identifier, as Xcode signed it.")] = APPLICATION,
    json: Json = False,
) -> None:
    """Copy a bundle into the demo app's documents on a connected iPhone or iPad, with Xcode's devicectl."""
    with err.status(Text(shown(f"copying {bundle} …"))):
        result = push_bundle(bundle, name, device, app)
    if json:
        print_json(result)
        return
    say(f"{result.folder} on {result.phone}: {megabytes(result.size)}")
    say("next: open the app; it lists the bundle under Model, and verifies it where it lies when it is added")
