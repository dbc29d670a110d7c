"""Text from the base or the adapted model, a token at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lcsb_mobile.adapter import load_adapter
from lcsb_mobile.batch import Float32Array, StepRunner
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError
from lcsb_mobile.runners import RunnerName, make_runner
from lcsb_mobile.tokenizer import Tokenizer


class SamplingConfig(Record, frozen=True):
    """`temperature` 0 takes the likeliest token. `top_p`: sample from the smallest set of that probability (nucleus
    sampling, arXiv 1904.09751)."""

    max_tokens: int = 64
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def check(self) -> None:
        if self.max_tokens < 1:
            raise OptionError(f"max-tokens: expected at least 1, found {self.max_tokens}")
        if not self.temperature >= 0:
            raise OptionError(f"temperature: expected 0 or more, found {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top-p: expected more than 0 and at most 1, found {self.top_p}")


def generate_text(
    bundle_path: Path,
    adapter_path: Path | None,
    prompt: str,
    sampling: SamplingConfig,
    threads: int | None = None,
    runner: RunnerName | None = None,
) -> Iterator[str]:
    """Opens the bundle and continues `prompt` as `generate` does; without an adapter with the initial one, which changes nothing.

    Raises BundleError, AdapterError, TokenizerError, OptionError or MissingDependencyError.
    """
    sampling.check()
    bundle = Bundle.open(bundle_path)
    adapter = bundle.initial_adapter() if adapter_path is None else load_adapter(adapter_path, bundle.manifest.adapter)
    return generate(make_runner(bundle, runner, threads), bundle.tokenizer, adapter, prompt, bundle.manifest.seq_len, sampling)


def generate(
    runner: StepRunner, tokenizer: Tokenizer, adapter: Float32Array, prompt: str, seq_len: int, config: SamplingConfig
) -> Iterator[str]:
    """Yields the continuation piece by piece; a piece ends where the text so far is whole characters.

    It ends at the end token, after `max_tokens`, or when the sequence is full. Raises OptionError when the prompt leaves no room.
    """
    config.check()
    ids = tokenizer.encode_prompt(prompt)
    if not 0 < len(ids) < seq_len:
        raise OptionError(f"prompt: expected 1 to {seq_len - 1} tokens, found {len(ids)}; give another prompt")
    generator = np.random.default_rng(config.seed)
    start, emitted = len(ids), ""
    decoder = runner.decoder(adapter)
    logits = decoder.start(ids)
    while True:
        token = sample(logits, config, generator)
        if token == tokenizer.eos_id:
            return
        ids.append(token)
        text = tokenizer.decode(ids[start:])
        if text.startswith(emitted) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(emitted) :]
            emitted = text
        if len(ids) == seq_len or len(ids) - start == config.max_tokens:
            return
        logits = decoder.extend(token)


def sample(logits: Float32Array, config: SamplingConfig, generator: np.random.Generator) -> int:
    """A token id from logits float32 [V]."""
    if config.temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / config.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), config.top_p)) + 1]
    return int(generator.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))
