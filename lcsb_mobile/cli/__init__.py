"""The command line `lcsb`: one verb a module, each a thin command over a typed function that tests call.

A verb's module is imported when the verb is used: it brings NumPy, and half the package. The list of verbs is shown without.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from lcsb_mobile import __version__
from lcsb_mobile.cli.console import DEBUG_HELP, debug_enabled, discard_output, prepare_streams, print_error, printing
from lcsb_mobile.errors import PrintingError
from lcsb_mobile.io.mapped_faults import report_mapped_faults

# Verb -> what the list of verbs says of it, which is how the verb's own help begins; a test holds them together.
VERBS = {
    "quickstart": "The whole way on the embedded tiny model, offline: export it, fine-tune it on sample messages, write a report.",
    "export": (
        "Write a TrainingBundle: the int4 weights, the training graphs, the adapter, the schedule, and a golden trace to check runtimes by."
    ),
    "inspect": (
        "Show what is in a bundle, by subset and kept layers: FLOPs, predicted share of a step's time, predicted memory; and its files."
    ),
    "verify": "Check every file's SHA-256, then hold the bundle's runtime to the golden trace that was recorded at export.",
    "data": "Check a data file and show what it comes to: tokens, what is cut, how it packs, steps an epoch.",
    "simulate": "Run the fine-tune on this machine as a phone would: same graphs, same schedule, memory measured. Writes the adapter.",
    "compare": "Say whether an adapter made the loss of held-out examples lower: a paired test, and losses by example.",
    "generate": "Continue a prompt, a token at a time.",
    "adapter": "Adapters to and from PEFT's layout, and merged into a checkpoint.",
    "android": "A bundle onto an Android phone.",
    "ios": "A bundle onto an iPhone or iPad, from a Mac.",
    "web": "Serve the web page and bundles for it on this machine, and to a phone in the same network if asked to.",
    "bench": (
        "Measure steps of several methods in turn, each in a fresh process: time by phase, decompression, memory, and the GEMM's speed."
    ),
}


def command_of(verb: str) -> Any:
    """The verb with its options, as a command of click's or of typer's own copy of it."""
    alone = typer.Typer(rich_markup_mode="rich")
    importlib.import_module(f"lcsb_mobile.cli.{verb}").register(alone)
    return get_group(alone).commands[verb]


class Verbs(TyperGroup):
    """Its commands are the names and lines of VERBS, until one of them is asked for outside the list."""

    _listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return command_of(cmd_name) if cmd_name in VERBS and not self._listing else super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(name="lcsb", cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
for name, summary in VERBS.items():
    app.command(name, help=summary)(lambda: None)


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
    prepare_streams()
    report_mapped_faults()
    try:
        with printing():  # what is not a verb's: help, the version
            try:
                app()
            finally:
                sys.stdout.flush()
    except PrintingError as error:
        print_error("error", str(error))
        discard_output()
        raise SystemExit(error.exit_code) from error
    except (BrokenPipeError, SystemExit) as error:
        if not any(isinstance(each, BrokenPipeError) for each in (error, error.__context__)):
            raise
        discard_output()
        raise SystemExit from error
