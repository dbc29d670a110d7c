"""`lcsb compare`: do examples that were not trained on have a lower loss with one adapter than with another?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from lcsb_mobile.cli.console import Json, StageBars, Threads, print_json, progress_bars, say, verb
from lcsb_mobile.cli.generate import Runner
from lcsb_mobile.errors import OptionError
from lcsb_mobile.runs.compare import CompareOptions, Comparison
from lcsb_mobile.runs.compare import compare as compare_adapters
from lcsb_mobile.runs.verdict import verdict_line

DEFAULTS = CompareOptions(bundle=Path(), data=Path(), after=Path())


def register(app: typer.Typer) -> None:
    example = "Example: lcsb compare tiny.bundle --data messages.jsonl --after tiny-adapter.safetensors"
    app.command("compare", epilog=example)(compare)


@verb
def compare(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)],
    after: Annotated[Path, Option(help="An adapter that `lcsb simulate` wrote.", show_default=False)],
    data: Annotated[Path | None, Option(help="The data of a run: what it held out is compared.", show_default=False)] = None,
    eval_data: Annotated[Path | None, Option(help="Instead of --data: text that was not trained on.", show_default=False)] = None,
    before: Annotated[Path | None, Option(help="The adapter to compare with.", show_default="the base model")] = DEFAULTS.before,
    hold_out: Annotated[float | None, Option(help="As the run's, with --data.")] = DEFAULTS.hold_out,
    seed: Annotated[int, Option(help="As the run's, with --data.")] = DEFAULTS.seed,
    examples: Annotated[int, Option(help="At most so many, evenly spread; each is computed with both adapters.")] = DEFAULTS.examples,
    threads: Threads = DEFAULTS.threads,
    runner: Runner = DEFAULTS.runner,
    json: Json = False,
) -> None:
    """Say whether an adapter made the loss of held-out examples lower: a paired test, and losses by example."""
    if (data is None) == (eval_data is None):
        found = "neither" if data is None else "both"
        raise OptionError(f"data: expected --data, of a run, or --eval-data, that was not trained on; found {found}")
    text, share = (data, hold_out) if data is not None else (eval_data, None)
    assert text is not None
    options = CompareOptions(bundle, text, after, before, share, seed, examples, threads, runner)
    with progress_bars() as progress:
        bars = StageBars(progress)
        comparison = compare_adapters(options, lambda done, total: bars("examples", done, total))
    if json:
        print_json(comparison)
    else:
        show(comparison)


def show(comparison: Comparison) -> None:
    verdict = comparison.verdict
    of = "" if verdict.examples == comparison.held_out_examples else f" of {comparison.held_out_examples:,}"
    say(f"compared     {comparison.before or 'the base model'} and {comparison.after}, on {verdict.examples:,}{of} held-out examples")
    say(f"verdict      {verdict_line(verdict)}")
