"""The command line `lcsb`: one verb a module, each a thin command over a typed function that tests call."""

from __future__ import annotations

from typing import Annotated

import typer

from lcsb_mobile import __version__
from lcsb_mobile.cli import adapter, android, bench, data, export, generate, inspect, quickstart, simulate, verify
from lcsb_mobile.cli.console import DEBUG_HELP, debug_enabled, write_in_any_encoding

app = typer.Typer(name="lcsb", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
for verb in (quickstart, export, inspect, verify, data, simulate, generate, adapter, android, bench):
    verb.register(app)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lcsb_mobile {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: lcsb quickstart")
def options(
    debug: Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Fine-tune language models as phones do: layer-cyclic training over int4 weights, exported, verified and simulated here."""
    debug_enabled.set(debug)


def main() -> None:
    write_in_any_encoding()
    app()
