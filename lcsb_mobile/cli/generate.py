"""`lcsb generate`: text from the base or the adapted model."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from lcsb_mobile.cli.console import Json, Threads, print_json, verb
from lcsb_mobile.config import Record
from lcsb_mobile.generate import SamplingConfig, generate_text
from lcsb_mobile.runners import RunnerName

SAMPLING = SamplingConfig()

MaxTokens = Annotated[int, Option(help="Most tokens of a continuation.")]
Temperature = Annotated[float, Option(help="0 takes the likeliest token.")]
TopP = Annotated[float, Option(help="Sample from the smallest set of tokens of this probability.")]
Runner = Annotated[RunnerName | None, Option(help="The runtime.", show_default="the target's own")]


class GeneratedText(Record, frozen=True):
    """What `lcsb generate --json` prints. `text`: the continuation alone. `seconds`: loading included."""

    bundle: str
    adapter: str | None
    prompt: str
    text: str
    seconds: float


def register(app: typer.Typer) -> None:
    app.command("generate", epilog='Example: lcsb generate tiny.bundle --adapter tiny-adapter.safetensors --prompt "ok so "')(generate)


@verb
def generate(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)],
    prompt: Annotated[str, Option(help="The text to continue.", show_default=False)],
    adapter: Annotated[Path | None, Option(help="An adapter that `lcsb simulate` wrote.", show_default="the base model")] = None,
    max_tokens: MaxTokens = SAMPLING.max_tokens,
    temperature: Temperature = SAMPLING.temperature,
    top_p: TopP = SAMPLING.top_p,
    seed: Annotated[int, Option(help="Of the sampling.")] = SAMPLING.seed,
    threads: Threads = None,
    runner: Runner = None,
    json: Json = False,
) -> None:
    """Continue a prompt, a token at a time."""
    started = time.perf_counter()
    pieces = generate_text(bundle, adapter, prompt, SamplingConfig(max_tokens, temperature, top_p, seed), threads, runner)
    if json:
        text = "".join(pieces)
        print_json(GeneratedText(str(bundle), str(adapter) if adapter else None, prompt, text, time.perf_counter() - started))
        return
    for number, piece in enumerate(pieces):
        sys.stdout.write(piece if number else prompt + piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
