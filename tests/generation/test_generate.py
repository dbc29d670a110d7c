"""Sampling, and where a continuation ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import RandomBundle, StubRunner
from helpers.captured import TILE
from helpers.checkpoints import VOCABULARY, write_tokenizer
from helpers.onnxruntime_bundles import MakeExported
from helpers.scripts import ADAPTER, GREEDY, Script, byte_tokenizer
from helpers.tiny_models import SEQ_LEN
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import OptionError, RunFailure
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.eager import EagerRunner
from lcsb_mobile.generation.generate import continue_prompt, generate
from lcsb_mobile.generation.sampling import SamplingConfig, sample
from lcsb_mobile.runners import make_runner
from lcsb_mobile.text.tokenizer import Tokenizer


def test_pieces_are_whole_characters() -> None:
    tokenizer = byte_tokenizer()
    text = "añ€ 🚲."
    pieces = list(continue_prompt(Script(tokenizer.encode(text)), tokenizer, ADAPTER, "x", 64, GREEDY))
    assert pieces == list(text)


def test_a_blank_before_the_first_word_is_kept() -> None:
    """SentencePiece's decoders drop it from what they are given: here the prompt's tokens and the new ones, not these alone."""
    vocabulary = {piece: number for number, piece in enumerate(["<end>", "▁", "▁I", "▁see"])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<end>"])
    tokenizer = Tokenizer(backend, {"eos_token": "<end>"}, 300)
    assert tokenizer.decode([2, 3]) == "I see"
    assert list(continue_prompt(Script([2, 3]), tokenizer, ADAPTER, " ", 64, GREEDY)) == [" I", " see"]


def test_it_ends() -> None:
    """At the end token, after max_tokens, or when the sequence is full."""
    tokenizer = byte_tokenizer()

    def length(seq_len: int, max_tokens: int, tokens: int) -> int:
        config = SamplingConfig(temperature=0, max_tokens=max_tokens)
        return len("".join(continue_prompt(Script(tokenizer.encode("a" * tokens), seq_len), tokenizer, ADAPTER, "xyz", seq_len, config)))

    assert length(64, 50, 5) == 5
    assert length(64, 4, 9) == 4
    assert length(8, 50, 9) == 5


def test_what_the_model_reads() -> None:
    """The text so far as one segment, padding as another; the next token is asked for at the last one."""
    tokenizer = byte_tokenizer()
    runner = Script(tokenizer.encode("bc"), seq_len=6)
    assert "".join(continue_prompt(runner, tokenizer, ADAPTER, "a", 6, GREEDY)) == "bc"
    assert [position for _, position in runner.seen] == [0, 1, 2]
    batch = runner.seen[2][0]
    assert batch.input_ids.tolist() == [*tokenizer.encode("abc"), 0, 0, 0]
    assert batch.segment_ids.tolist() == [0, 0, 0, 1, 1, 1] and batch.position_ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.counted_labels == 0


@pytest.mark.parametrize("prompt", ["", "x" * 8])
def test_a_prompt_that_leaves_no_room(prompt: str) -> None:
    with pytest.raises(OptionError, match="1 to 7 tokens"):
        list(continue_prompt(StubRunner(vocabulary=257), byte_tokenizer(), ADAPTER, prompt, 8, GREEDY))


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(max_tokens=0),
        SamplingConfig(temperature=-1.0),
        SamplingConfig(temperature=float("nan")),
        SamplingConfig(top_p=1.5),
        SamplingConfig(seed=-1),
        SamplingConfig(stop=("x", "")),
    ],
)
def test_bad_sampling(config: SamplingConfig, random_bundle: RandomBundle) -> None:
    """Refused at once, before the bundle is opened."""
    with pytest.raises(OptionError):
        generate(random_bundle.bundle / "absent", None, "x", config)


def test_greedy_takes_the_likeliest() -> None:
    logits = np.array([0.0, 3.0, 2.0], np.float32)
    assert {sample(logits, GREEDY, np.random.default_rng(seed)) for seed in range(20)} == {1}


def test_sampling_follows_the_probabilities() -> None:
    """4,000 draws: a frequency's standard deviation is at most 0.008, so 0.04 is five of them."""
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))

    def frequencies(temperature: float, top_p: float) -> np.ndarray:
        generator = np.random.default_rng(0)
        config = SamplingConfig(temperature=temperature, top_p=top_p)
        return np.bincount([sample(logits, config, generator) for _ in range(4000)], minlength=4) / 4000

    np.testing.assert_allclose(frequencies(1.0, 1.0), [0.5, 0.3, 0.15, 0.05], atol=0.04)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(frequencies(0.5, 1.0), squared / squared.sum(), atol=0.04)
    np.testing.assert_allclose(frequencies(1.0, 0.7), [0.625, 0.375, 0, 0], atol=0.04)  # the smallest set that reaches 0.7
    np.testing.assert_allclose(frequencies(1.0, 0.01), [1, 0, 0, 0])


def slow_sample(logits: Float32Array, temperature: float, top_p: float, draw: float) -> int:
    """The token at `draw`, from 0 to 1, of the likeliest that reach `top_p`, laid end to end."""
    weights = [np.exp((float(x) - float(max(logits))) / temperature) for x in logits]
    order = sorted(range(len(logits)), key=lambda token: (-weights[token], token))
    kept: list[int] = []
    while sum(weights[token] for token in kept) < top_p * sum(weights):
        kept.append(order[len(kept)])
    reached = 0.0
    for token in kept:
        reached += weights[token]
        if draw < reached / sum(weights[token] for token in kept):
            return token
    return kept[-1]


def test_a_token_costs_one_draw() -> None:
    """Which token it is depends on logits, settings and PCG64's next number alone, so a port can do the same."""
    logits = np.random.default_rng(1).normal(0, 2, 50).astype(np.float32)
    for temperature, top_p in ((1.0, 1.0), (0.7, 0.9), (2.0, 0.5)):
        generator, draws = np.random.default_rng(7), np.random.default_rng(7)
        config = SamplingConfig(temperature=temperature, top_p=top_p)
        found = [sample(logits, config, generator) for _ in range(200)]
        assert found == [slow_sample(logits, temperature, top_p, draws.random()) for _ in range(200)]
        assert len(set(found)) >= 5


def test_a_temperature_near_zero_is_greedy() -> None:
    logits = np.array([-80.0, 3.0, 90.0], np.float32)
    assert sample(logits, SamplingConfig(temperature=1e-310), np.random.default_rng(0)) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite(bad: float, temperature: float) -> None:
    with pytest.raises(RunFailure, match="logits are not finite"):
        sample(np.array([1.0, bad], np.float32), SamplingConfig(temperature=temperature), np.random.default_rng(0))


@pytest.mark.training_api
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_runners_write_the_same_text(programs: MakeExported, training_programs: MakeExported, tmp_path: Path, temperature: float) -> None:
    """With a cache, by whole sequences on the training API, and eagerly: logits differ by a rounding, which moves no token here."""
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.open(tmp_path, VOCABULARY)
    case, other = programs("qwen3", tile=TILE), training_programs("qwen3")
    runners: list[StepRunner] = [make_runner(case.bundle, threads=1), make_runner(other.bundle, threads=1), case.model.runner()]
    assert {runner.name for runner in runners} == {"onnxruntime", "onnxruntime-training", "eager"}
    texts = set()
    for seed in range(3):
        config = SamplingConfig(temperature=temperature, seed=seed)
        found = ["".join(continue_prompt(runner, tokenizer, case.adapter, "the ", SEQ_LEN, config)) for runner in runners]
        assert found == [found[0]] * 3
        texts.add(found[0])
    assert len(texts) == (3 if temperature else 1)


def test_a_seed_repeats(random_bundle: RandomBundle) -> None:
    """On the real runtime, and greedily the same as the eager reference."""
    bundle = Bundle.open(random_bundle.bundle)
    config = SamplingConfig(max_tokens=8, seed=3)
    texts = ["".join(generate(random_bundle.bundle, None, "the ", config, threads=1)) for _ in range(2)]
    assert texts[0] == texts[1] != ""
    greedy = "".join(generate(random_bundle.bundle, None, "the ", SamplingConfig(max_tokens=8, temperature=0), threads=1))
    eager = EagerRunner(model_of(bundle.manifest.model), bundle.manifest.adapter, bundle.weights)
    config = SamplingConfig(max_tokens=8, temperature=0)
    assert greedy == "".join(continue_prompt(eager, bundle.tokenizer, bundle.initial_adapter(), "the ", bundle.manifest.seq_len, config))


def test_an_adapter_is_used(random_bundle: RandomBundle, tmp_path: Path) -> None:
    from lcsb_mobile.bundle.adapter import save_adapter

    bundle = Bundle.open(random_bundle.bundle)
    adapter = bundle.initial_adapter() + 0.3
    save_adapter(tmp_path / "a.safetensors", bundle.manifest.adapter, adapter)
    config = SamplingConfig(max_tokens=8, temperature=0)
    base, adapted = ("".join(generate(bundle.path, path, "the ", config)) for path in (None, tmp_path / "a.safetensors"))
    assert base != adapted
