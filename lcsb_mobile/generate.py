"""Text from the base or the adapted model, a token at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lcsb_mobile.adapter import load_adapter
from lcsb_mobile.batch import Decoder, Float32Array, StepRunner
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError, RunFailure
from lcsb_mobile.runners import RunnerName, make_runner
from lcsb_mobile.tokenizer import Tokenizer

End = Literal["end token", "stop text", "max tokens", "sequence full"]

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of the first bytes of a character


class SamplingConfig(Record, frozen=True):
    """`temperature` 0 takes the likeliest token. `top_p`: sample from the smallest set of that probability (nucleus
    sampling, arXiv 1904.09751). `stop`: texts; the one that is complete first ends the text, and nothing of it is given out."""

    max_tokens: int = 64
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        if self.max_tokens < 1:
            raise OptionError(f"max-tokens: expected at least 1, found {self.max_tokens}")
        if not self.temperature >= 0:
            raise OptionError(f"temperature: expected 0 or more, found {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top-p: expected more than 0 and at most 1, found {self.top_p}")
        if self.seed < 0:
            raise OptionError(f"seed: expected 0 or more, found {self.seed}")
        if not all(self.stop):
            raise OptionError("stop: expected a text, found an empty one")


class Chat(Record, frozen=True):
    """The prompt is a user's message, given to the model in the words of the chat template; `system`: an instruction before it."""

    system: str | None = None

    def prompt_ids(self, tokenizer: Tokenizer, message: str) -> list[int]:
        """Raises TokenizerError without a template, or when the template refuses the messages."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages.append({"role": "user", "content": message})
        return tokenizer.encode(tokenizer.render_chat(messages, add_generation_prompt=True))


def generate_text(
    bundle_path: Path,
    adapter_path: Path | None,
    prompt: str,
    sampling: SamplingConfig,
    threads: int | None = None,
    runner: RunnerName | None = None,
    chat: Chat | None = None,
) -> Continuation:
    """Opens the bundle and continues `prompt` as `generate` does; without an adapter with the initial one, which changes nothing.

    Raises BundleError, AdapterError, TokenizerError, OptionError or MissingDependencyError.
    """
    sampling.check()
    bundle = Bundle.open(bundle_path)
    adapter = bundle.initial_adapter() if adapter_path is None else load_adapter(adapter_path, bundle.manifest.adapter)
    return generate(make_runner(bundle, runner, threads), bundle.tokenizer, adapter, prompt, bundle.manifest.seq_len, sampling, chat)


def generate(
    runner: StepRunner,
    tokenizer: Tokenizer,
    adapter: Float32Array,
    prompt: str,
    seq_len: int,
    config: SamplingConfig,
    chat: Chat | None = None,
) -> Continuation:
    """The text after `prompt`, or with `chat` the answer to it.

    It ends at a token that ends a text or a turn (`Tokenizer.end_ids`), before a stop text, after `max_tokens`, or when the sequence is
    full. Raises OptionError when the prompt leaves no room, TokenizerError.
    """
    config.check()
    ids = tokenizer.encode_prompt(prompt) if chat is None else chat.prompt_ids(tokenizer, prompt)
    if not 0 < len(ids) < seq_len:
        raise OptionError(f"prompt: expected 1 to {seq_len - 1} tokens, found {len(ids)}; give another prompt")
    return Continuation(runner.decoder(adapter), tokenizer, ids, seq_len, config)


class Continuation:
    """The pieces of a text as it is written, and what it has come to so far. A piece ends where the text so far is whole characters and
    cannot be the beginning of a stop text.

    `tokens`: written, without the one that ended the text. `prefill_seconds`: to the first token. `decoded`, `decode_seconds`: of the
    tokens after it, an ending one included; what the reader of the pieces does meanwhile is not counted. `ended`: why, once it has.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, ids: Sequence[int], seq_len: int, config: SamplingConfig) -> None:
        self.prompt_tokens = len(ids)
        self.tokens = self.decoded = 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self.ended: End | None = None
        self._tokenizer, self._prompt, self._before = tokenizer, list(ids), tokenizer.decode(ids)
        self._most = min(config.max_tokens, seq_len - len(ids))
        self._full: End = "max tokens" if self._most == config.max_tokens else "sequence full"
        self._end_ids, stop = _endings(tokenizer, config.stop)
        self._pieces = self._write(self._sampled(decoder, config), StopTexts(stop))

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def decode_tokens_per_second(self) -> float | None:
        """None where there was no second token."""
        return self.decoded / self.decode_seconds if self.decoded else None

    def _write(self, sampled: Iterator[int], stop: StopTexts) -> Iterator[str]:
        written: list[int] = []
        while self.ended is None:
            token = next(sampled)
            if token in self._end_ids:
                self.ended = "end token"
                break
            written.append(token)
            self.tokens = len(written)
            yield from filter(None, [stop.grow(self._text(written))])
            if stop.met:
                self.ended = "stop text"
            elif self.tokens == self._most:
                self.ended = self._full
        yield from filter(None, [stop.rest()])

    def _sampled(self, decoder: Decoder, config: SamplingConfig) -> Iterator[int]:
        """Tokens without end, timed."""
        generator = np.random.default_rng(config.seed)
        started = time.perf_counter()
        token = sample(decoder.start(self._prompt), config, generator)
        self.prefill_seconds = time.perf_counter() - started
        while True:
            yield token
            started = time.perf_counter()
            token = sample(decoder.extend(token), config, generator)
            self.decode_seconds += time.perf_counter() - started
            self.decoded += 1

    def _text(self, written: list[int]) -> str:
        """What the tokens add to the prompt's text: alone, some decoders would drop a blank before the first word."""
        whole = self._tokenizer.decode(self._prompt + written)
        return whole.removeprefix(self._before) if whole.startswith(self._before) else self._tokenizer.decode(written)


class StopTexts:
    """What may be given out of a text that grows at its end. `met`: a stop text is in it; nothing comes after that."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.met = stop, False
        self._given, self._held = "", ""

    def grow(self, text: str) -> str:
        """The next piece, perhaps empty; `text` is all that was written so far."""
        whole = text.rstrip(INCOMPLETE)
        # The one that is complete first, so that it does not matter where one token ends and the next begins.
        ends = [(start + len(stop), start) for stop in self.stop if (start := whole.find(stop)) >= 0]
        self.met = bool(ends)
        end = min(ends)[1] if ends else len(whole) - self._begun(whole)
        self._held = "" if ends else whole[end:]
        if not whole.startswith(self._given):  # what was given out cannot be taken back
            return ""
        piece, self._given = whole[len(self._given) : end], whole[:end]
        return piece

    def rest(self) -> str:
        """What was held back and turned out to be text."""
        return self._held

    def _begun(self, text: str) -> int:
        """Characters at the end of `text` that may be the beginning of a stop text."""
        most = min(len(text), max(map(len, self.stop), default=1) - 1)
        return next((size for size in range(most, 0, -1) if any(stop.startswith(text[-size:]) for stop in self.stop)), 0)


def _endings(tokenizer: Tokenizer, stop: Sequence[str]) -> tuple[frozenset[int], list[str]]:
    """The tokens and the texts that end a text. A special token has no text: given as a stop text it is one of the former.

    Raises OptionError for a stop text that has such a token within it, as it could not be met.
    """
    end_ids, texts = set(tokenizer.end_ids), []
    for text in stop:
        ids = tokenizer.encode(text)
        special = [token for token in ids if token in tokenizer.special_ids]
        if special and len(ids) > 1:
            raise OptionError(f"stop: expected a text or one special token, found {text!r}, which has a special token within it")
        if special:
            end_ids.update(special)
        else:
            texts.append(text)
    return frozenset(end_ids), texts


def sample(logits: Float32Array, config: SamplingConfig, generator: np.random.Generator) -> int:
    """A token id from logits float32 [V]: one draw of `generator`, none at temperature 0. Raises RunFailure for NaN and infinite logits."""
    if not np.isfinite(logits).all():
        raise RunFailure("the model's logits are not finite numbers; try without the adapter, and lcsb verify")
    if config.temperature == 0:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # at a temperature near 0 all but the likeliest become exp(-inf)
        probabilities = np.exp((logits.astype(np.float64) - logits.max()) / config.temperature)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), config.top_p)) + 1]
    return int(generator.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))
