"""`lcsb data`: what a data file comes to, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from typer import Option

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.cli.console import Json, StageBars, out, print_json, progress_bars, say, show_result, verb
from lcsb_mobile.data.dataset import doubled_ends_line, further_keys_line
from lcsb_mobile.data.token_report import Run, TokenReport, report_tokens
from lcsb_mobile.training.trainer import TrainConfig

ACCUMULATION = TrainConfig(steps=1, learning_rate=1.0).accumulation
COUNTED, UNCOUNTED = "bold green", "dim"
OPENING, CLOSING = "⟦", "⟧"  # rare in texts


def register(app: typer.Typer) -> None:
    app.command("data", epilog="Example: lcsb data messages.jsonl --bundle tiny.bundle --preview 2")(data)


@verb
def data(
    file: Annotated[Path, typer.Argument(help="One JSON object a line: a text, prompt and completion, or messages.", show_default=False)],
    bundle: Annotated[Path, Option(help="A TrainingBundle, for its tokenizer and sequence length.", show_default=False)],
    seq_len: Annotated[int | None, Option(help="Tokens of a sequence.", show_default="the bundle's")] = None,
    accumulation: Annotated[int, Option(help="Sequences a step.")] = ACCUMULATION,
    preview: Annotated[int, Option(help="Show so many examples, with the tokens that count for the loss marked.")] = 0,
    json: Json = False,
) -> None:
    """Check a data file and show what it comes to: tokens, what is cut, how it packs, steps an epoch."""
    opened = Bundle.open(bundle)
    length = opened.manifest.seq_len if seq_len is None else seq_len
    with progress_bars() as progress:
        bars = StageBars(progress)
        report = report_tokens(file, opened.tokenizer, length, accumulation, preview, lambda done, total: bars("bytes", done, total))
    if json:
        print_json(report)
    else:
        show(report)


def show(report: TokenReport) -> None:
    data = report.data
    forms = {"text": data.texts, "prompt and completion": data.completions, "conversations": data.conversations}
    say(f"file         {report.file}: {data.lines:,} lines ({', '.join(f'{count:,} {form}' for form, count in forms.items() if count)})")
    say(f"examples     {data.examples:,}" + _unless_zero(data.without_labels, "lines dropped, nothing in them to learn"))
    say(f"tokens       {data.tokens:,}, of which {data.counted_labels:,} count for the loss")
    lengths = f"50 % {data.length_p50:,}, 90 % {data.length_p90:,}, 99 % {data.length_p99:,}, longest {data.longest:,}"
    say(f"lengths      {lengths} tokens, before they are cut")
    say(
        f"cut          {data.truncated / data.lines:.1%} of the lines at {report.seq_len:,} tokens"
        + _unless_zero(data.tokens_cut, "tokens lost")
    )
    say(f"             {report.seq_len_to_cut_1_percent:,} tokens would cut at most 1 % of the lines, {report.seq_len_to_cut_none:,} none")
    say(f"an epoch     {report.sequences:,} sequences, {report.fill:.1%} filled; {report.steps:,} steps of {report.accumulation:,} each")
    say("             of all examples: a run holds some of them out, unless it is given --eval-data")
    if data.duplicates:
        say(f"duplicates   {data.duplicates:,} lines equal an earlier one")
    if data.uncounted_turns:
        turns = f"{data.uncounted_turns:,} of the assistant's turns do not count: the chat template rewrites them when others follow"
        say(f"turns        {turns}; give each as the last of a line of its own to learn from it")
    if data.doubled_ends:
        say(f"ends         {doubled_ends_line(data.doubled_ends)}")
    if data.blank_lines:
        say(f"blank lines  {data.blank_lines:,} passed over")
    if data.further_keys:
        say(f"passed over  {further_keys_line(data.further_keys)}")
    for number, runs in enumerate(report.preview, 1):
        say(f"\nexample {number}")
        show_result(_marked(runs, styled=out.is_terminal), soft_wrap=True)


def _unless_zero(count: int, what: str) -> str:
    return f"; {count:,} {what}" if count else ""


def _marked(runs: tuple[Run, ...], styled: bool) -> Text:
    """What counts in colour, or in brackets where there is none."""
    opening, closing = ("", "") if styled else (OPENING, CLOSING)
    text = Text()
    for run in runs:
        shown = _visible(run.text)
        text.append(f"{opening}{shown}{closing}" if run.counted else shown, COUNTED if run.counted else UNCOUNTED)
    return text


def _visible(text: str) -> str:
    """Control characters as pictures of themselves, so that a stranger's file cannot steer the terminal."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    return text.translate(pictures | dict.fromkeys(range(0x7F, 0xA0), 0xFFFD))
