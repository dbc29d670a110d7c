"""Text from the base or the adapted model, a token at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.batch import Decoder, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError
from lcsb_mobile.generation.sampling import SamplingConfig, sample
from lcsb_mobile.generation.stop_texts import REPLACEMENT, StopTexts
from lcsb_mobile.runners import make_runner
from lcsb_mobile.targets import RunnerName
from lcsb_mobile.text.tokenizer import Tokenizer

End = Literal["end token", "stop text", "max tokens", "sequence full"]


class Chat(Record, frozen=True):
    """The prompt is a user's message, given to the model in the words of the chat template; `system`: an instruction before it."""

    system: str | None = None

    def prompt_ids(self, tokenizer: Tokenizer, message: str) -> list[int]:
        """Raises TokenizerError without a template, or when the template refuses the messages."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages.append({"role": "user", "content": message})
        return tokenizer.encode(tokenizer.render_chat(messages, add_generation_prompt=True))


def generate(
    bundle_path: Path,
    adapter_path: Path | None,
    prompt: str,
    sampling: SamplingConfig,
    threads: int | None = None,
    runner: RunnerName | None = None,
    chat: Chat | None = None,
) -> Continuation:
    """Opens the bundle and continues `prompt` as `continue_prompt` does; without an adapter with the initial one, which changes nothing.

    Raises BundleError, AdapterError, TokenizerError, OptionError or MissingDependencyError.
    """
    sampling.check()
    bundle = Bundle.open(bundle_path)
    adapter = bundle.initial_adapter() if adapter_path is None else load_adapter(adapter_path, bundle.manifest.adapter)
    return continue_prompt(make_runner(bundle, runner, threads), bundle.tokenizer, adapter, prompt, bundle.manifest.seq_len, sampling, chat)


def continue_prompt(
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
    """The pieces of a text as it is written, and what it has come to so far. Together they are what the tokenizer makes of all tokens at
    once, with U+FFFD for what is no text. A piece ends where no further token changes the text so far, and where it cannot be the beginning
    of a stop text.

    `tokens`: written, without the one that ended the text. `prefill_seconds`: to the first token. `decoded`, `decode_seconds`: of the
    tokens after it, an ending one included; what the reader of the pieces does meanwhile is not counted. `ended`: why, once it has.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, ids: Sequence[int], seq_len: int, config: SamplingConfig) -> None:
        self.prompt_tokens = len(ids)
        self.tokens = self.decoded = 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self.ended: End | None = None
        self._tokenizer, self._prompt = tokenizer, list(ids)
        self._before = _beginnings(tokenizer, ids)
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
            yield from filter(None, [stop.grow(self._settled(written))])
            if stop.met:
                self.ended = "stop text"
            elif self.tokens == self._most:
                self.ended = self._full
        if not stop.met:
            yield from filter(None, [stop.end(self._text(written))])
            self.ended = "stop text" if stop.met else self.ended

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

    def _settled(self, written: list[int]) -> str:
        """What of the tokens' text stays as it is whatever follows: bytes that are no character yet are U+FFFD at its end."""
        settled = self._tokenizer.settled(self._prompt + written) - len(self._prompt)
        return self._text(written[: max(settled, 0)]).rstrip(REPLACEMENT)

    def _text(self, written: list[int]) -> str:
        """What the tokens add to the prompt's text: alone, some decoders would drop a blank before the first word."""
        whole = self._tokenizer.decode(self._prompt + written)
        before = next(filter(whole.startswith, self._before), None)
        return self._tokenizer.decode(written) if before is None else whole.removeprefix(before)


def _beginnings(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, str]:
    """What a text that begins with the tokens may begin with: their text, or with U+FFFD for each byte of the run of byte fallback at
    their end, if the bytes that follow break it."""
    settled, whole = tokenizer.settled(ids), tokenizer.decode(ids)
    run = sum(token not in tokenizer.special_ids for token in ids[settled:])
    return whole, tokenizer.decode(ids[:settled]) + REPLACEMENT * run


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
