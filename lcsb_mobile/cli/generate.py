"""`lcsb generate`: text from the base or the adapted model."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from lcsb_mobile.cli.console import Json, Threads, as_text, print_json, verb, write
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError
from lcsb_mobile.generation.generate import Chat, End
from lcsb_mobile.generation.generate import generate as generate_text
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.targets import RunnerName

SAMPLING = SamplingConfig()

MaxTokens = Annotated[int, Option(help="Most tokens of a continuation.")]
Temperature = Annotated[float, Option(help="0 takes the likeliest token.")]
TopP = Annotated[float, Option(help="Sample from the smallest set of tokens of this probability.")]
Stop = Annotated[list[str] | None, Option(help="A text that ends it, and is not given out; may be given again.", show_default=False)]
Runner = Annotated[RunnerName | None, Option(help="The runtime.", show_default="the target's own")]


class GeneratedText(Record, frozen=True):
    """What `lcsb generate --json` prints. `text`: the continuation alone, `tokens` its length. `prefill_seconds`: from the prompt to the
    first token. `decode_tokens_per_second`: of the tokens after it, null where there was none. `seconds`: loading included."""

    bundle: str
    adapter: str | None
    prompt: str
    text: str
    ended: End | None
    prompt_tokens: int
    tokens: int
    prefill_seconds: float
    decode_tokens_per_second: float | None
    seconds: float


def register(app: typer.Typer) -> None:
    app.command("generate", epilog='Example: lcsb generate tiny.bundle --adapter tiny-adapter.safetensors --prompt "ok so "')(generate)


@verb
def generate(
    bundle: Annotated[Path, typer.Argument(help="A TrainingBundle.", show_default=False)],
    prompt: Annotated[str, Option(help="The text to continue.", show_default=False)],
    adapter: Annotated[Path | None, Option(help="An adapter that `lcsb simulate` wrote.", show_default="the base model")] = None,
    chat: Annotated[bool, Option("--chat", help="The prompt is a user's message; write the answer.")] = False,
    system: Annotated[str | None, Option(help="An instruction before the message, with --chat.", show_default="none")] = None,
    stop: Stop = None,
    max_tokens: MaxTokens = SAMPLING.max_tokens,
    temperature: Temperature = SAMPLING.temperature,
    top_p: TopP = SAMPLING.top_p,
    seed: Annotated[int, Option(help="Of the sampling.")] = SAMPLING.seed,
    threads: Threads = None,
    runner: Runner = None,
    json: Json = False,
) -> None:
    """Continue a prompt, a token at a time."""
    if system is not None and not chat:
        raise OptionError("system: expected with --chat, found without it")
    started, prompt = time.perf_counter(), as_text(prompt)
    sampling = SamplingConfig(max_tokens, temperature, top_p, seed, tuple(map(as_text, stop or SAMPLING.stop)))
    pieces = generate_text(bundle, adapter, prompt, sampling, threads, runner, Chat(system and as_text(system)) if chat else None)
    if json:
        text = "".join(pieces)
        print_json(
            GeneratedText(
                bundle=str(bundle),
                adapter=str(adapter) if adapter else None,
                prompt=prompt,
                text=text,
                ended=pieces.ended,
                prompt_tokens=pieces.prompt_tokens,
                tokens=pieces.tokens,
                prefill_seconds=pieces.prefill_seconds,
                decode_tokens_per_second=pieces.decode_tokens_per_second,
                seconds=time.perf_counter() - started,
            )
        )
        return
    for piece in itertools.chain([] if chat else [prompt], pieces):
        write(piece)
    write("\n")
