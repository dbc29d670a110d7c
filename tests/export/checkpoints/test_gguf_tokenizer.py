"""Tokenizers rebuilt from GGUF: sentencepiece's against it by fragments, byte-level ones against the one that was written."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
import tokenizers
import torch
import transformers
from helpers.gguf_files import write_file

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.export.checkpoints.gguf import save_tokenizer
from lcsb_mobile.export.checkpoints.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from lcsb_mobile.export.checkpoints.hugging_face import copy_tokenizer
from lcsb_mobile.text.tokenizer import Tokenizer

TOKENS = 700
SPECIAL = ["<s>", "</s>", "<|user|>"]
DEFINED = ["    ", "\n\n", "<tool>"]
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "for",
    "was",
    "on",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "have",
    "or",
    "by",
    "one",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
]
ODD = ["é", "字", "🙂", "\t", "1234", "x=y;", "don't", "...", "ǅ", "ﬁ"]


@pytest.fixture(scope="module", params=[True, False])
def spm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Byte-pair encoding with bytes, single digits, all blanks kept; with the prefix as Llama 2 has it, or as Gemma: without, and runs of
    blanks as tokens of their own."""
    prefixed = request.param
    rng = random.Random(1)
    lines = [" ".join(rng.choice(WORDS) for _ in range(12)) + rng.choice([".", "!", "  1 2", "\t", " é"]) for _ in range(3000)]
    path = tmp_path_factory.mktemp("spm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(path / "model"), vocab_size=TOKENS, model_type="bpe", byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0,
        control_symbols=SPECIAL[2:], user_defined_symbols=["<tool>"] if prefixed else ["▁▁▁▁", "\n\n", "<tool>"], num_threads=1,
        add_dummy_prefix=prefixed, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_file=str(path / "model.model")), prefixed


def spm_keys(spm: Any, **changes: Any) -> dict[str, Any]:
    """As the converter writes them: what the model's author defined has blanks in the place of ▁."""
    texts, scores, kinds = [], [], []
    for index in range(spm.get_piece_size()):
        text, kind = spm.id_to_piece(index), NORMAL
        if spm.is_unknown(index):
            kind = UNKNOWN
        elif spm.is_control(index):
            kind = CONTROL
        elif spm.is_byte(index):
            kind = BYTE
        elif text in ("▁▁▁▁", "\n\n", "<tool>"):
            text, kind = text.replace("▁", " "), USER_DEFINED
        texts.append(text)
        scores.append(float(spm.get_score(index)))
        kinds.append(kind)
    keys = {
        "model": "llama", "pre": "default", "tokens": texts, "scores": scores, "token_type": kinds, "bos_token_id": spm.bos_id(),
        "eos_token_id": spm.eos_id(), "unknown_token_id": spm.unk_id(),
    } | changes  # fmt: skip
    return {f"tokenizer.ggml.{name}": value for name, value in keys.items() if value is not None}


def opened(directory: Path, keys: Mapping[str, Any], architecture: str = "llama") -> Tokenizer:
    path = write_file(directory / "model.gguf", architecture, keys, {"x": torch.ones(4)})
    save_tokenizer(path, directory / "saved")
    copy_tokenizer(directory / "saved", directory / "out")
    return Tokenizer.open(directory / "out", TOKENS + 300)


def by_fragments(spm: Any, text: str, special: list[str]) -> list[int]:
    """Between `special`, each fragment by sentencepiece, which puts a blank before it or not."""
    ids = []
    for fragment in re.split("(" + "|".join(map(re.escape, special)) + ")", text):
        ids += [spm.piece_to_id(fragment)] if fragment in special else spm.encode(fragment)
    return ids


def texts(count: int) -> list[str]:
    rng = random.Random(2)
    pieces = [*WORDS, *ODD, *SPECIAL, *DEFINED, " ", " ", "  ", "   ", "\n"]
    made = ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 14))) for _ in range(count)]
    return [*made, "</s>\n<|user|>", "<s> the", " the", "the the", "</s>the", "a" * 60, "\n" * 5]


def test_sentencepiece_by_fragments(tmp_path: Path, spm: Any) -> None:
    model, prefixed = spm
    tokenizer = opened(tmp_path, spm_keys(model, add_space_prefix=None if prefixed else False))
    for text in texts(600):
        # With the prefix the tokens that the author defined part fragments, too, as in the published tokenizer.json and llama.cpp.
        special = [*SPECIAL, "<unk>", *(["<tool>"] if prefixed else [])]
        assert tokenizer.encode(text) == by_fragments(model, text, special), text
        plain = re.sub("|".join(map(re.escape, [*SPECIAL, "<tool>"])), "", text)
        assert tokenizer.decode(tokenizer.encode(plain)) == plain
    assert tokenizer.encode_prompt("the")[0] == model.bos_id() and tokenizer.end_ids == {model.eos_id()}
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert peer.encode("the </s>\n<|user|>") == tokenizer.encode_prompt("the </s>\n<|user|>")


@pytest.fixture(scope="module")
def trained() -> tokenizers.Tokenizer:
    """SmolLM2's kind of tokenizer, with a small vocabulary."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    parts = [tokenizers.pre_tokenizers.Digits(individual_digits=True), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(parts)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=TOKENS, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator([" ".join(WORDS) + "\n\n1. 22"] * 3, trainer)
    backend.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    return backend


def bpe_keys(backend: tokenizers.Tokenizer, **changes: Any) -> dict[str, Any]:
    model = json.loads(backend.to_str())["model"]
    count = backend.get_vocab_size()
    names = [backend.id_to_token(index) for index in range(count)]
    kinds = [CONTROL if name in SPECIAL else USER_DEFINED if name == "<tool>" else NORMAL for name in names]
    keys = {
        "model": "gpt2", "pre": "smollm", "tokens": [*names, "[PAD9]"], "token_type": [*kinds, UNUSED], "bos_token_id": 0,
        "eos_token_id": 1, "merges": [" ".join(pair) for pair in model["merges"]],
    } | changes  # fmt: skip
    return {f"tokenizer.ggml.{name}": value for name, value in keys.items() if value is not None}


def test_byte_level_is_the_tokenizer_that_was_written(tmp_path: Path, trained: tokenizers.Tokenizer) -> None:
    tokenizer = opened(tmp_path, bpe_keys(trained) | {"tokenizer.chat_template": "{{ messages[0].content }}"})
    for text in [*texts(500), ":\n\n1.", "[PAD9]"]:
        assert tokenizer.encode(text) == trained.encode(text).ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == trained.decode(trained.encode(text).ids)
    assert tokenizer.encode_prompt("the") == tokenizer.encode("the")  # the split's default
    assert tokenizer.has_chat_template and tokenizer.special_ids == {0, 1, 2}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").encode("the 12\n\n<tool>") == trained.encode("the 12\n\n<tool>").ids


def test_beginnings_and_ends(tmp_path: Path, trained: tokenizers.Tokenizer) -> None:
    """`llama-bpe` begins with a token unless the file says otherwise; turns may end otherwise than texts."""
    tokenizer = opened(tmp_path, bpe_keys(trained, pre="llama-bpe", eot_token_id=2, eom_token_id=1))
    assert tokenizer.encode_prompt("") == [0] and tokenizer.end_ids == {1, 2}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").encode("") == [0]
    (tmp_path / "without").mkdir()
    tokenizer = opened(tmp_path / "without", bpe_keys(trained, pre="llama-bpe", add_bos_token=False))
    assert tokenizer.encode_prompt("") == []
    (tmp_path / "with").mkdir()
    tokenizer = opened(tmp_path / "with", bpe_keys(trained, add_bos_token=True, add_eos_token=True))
    assert tokenizer.encode_document("") == [0, 1]
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "with" / "out").encode("") == [0, 1]


def test_llama_3_takes_a_word_that_is_a_token(tmp_path: Path, trained: tokenizers.Tokenizer) -> None:
    """`ignore_merges`: a token that no merge makes."""
    keys = bpe_keys(trained, pre="llama-bpe")
    keys["tokenizer.ggml.tokens"] = [*keys["tokenizer.ggml.tokens"], "Ġxyzzyx"]
    keys["tokenizer.ggml.token_type"] = [*keys["tokenizer.ggml.token_type"], NORMAL]
    assert len(opened(tmp_path, keys).encode(" xyzzyx")) == 1
    (tmp_path / "gpt2").mkdir()
    assert len(opened(tmp_path / "gpt2", keys | {"tokenizer.ggml.pre": "gpt-2"}).encode(" xyzzyx")) > 1


def test_neighbours_do_not_matter(tmp_path: Path, trained: tokenizers.Tokenizer) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "nothing"}')
    (tmp_path / "chat_template.jinja").write_text("other")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 5}')
    tokenizer = opened(tmp_path, bpe_keys(trained))
    assert tokenizer.end_ids == {1} and not tokenizer.has_chat_template


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pre": "brand-new"}, r"tokenizer\.ggml\.pre: found 'brand-new', no split that is known"),
        ({"pre": "kimi-k2"}, r"tokenizer\.ggml\.pre: found 'kimi-k2', a split of llama\.cpp's that is not read"),
        ({"pre": None}, r"tokenizer\.ggml\.pre: expected the name of a split, found none"),
        ({"model": "t5"}, r"tokenizer\.ggml\.model: found 't5', supported gpt2, llama"),
        ({"model": None}, r"tokenizer\.ggml\.model: found None"),
        ({"tokens": None}, r"tokenizer\.ggml\.tokens: expected a list of strings, found None"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, r"tokenizer\.ggml\.tokens: expected different tokens, found 'a' stands"),
        ({"token_type": [1, 2]}, r"tokenizer\.ggml\.token_type: expected \d+ numbers, one a token"),
        ({"merges": ["ab"]}, r"tokenizer\.ggml\.merges: expected two tokens and a blank between, found 'ab'"),
        ({"merges": ["qqq zzz"]}, r"tokenizer\.ggml\.merges: .*qqq"),
        ({"eos_token_id": 100_000}, r"tokenizer\.ggml\.eos_token_id: expected the number of one of \d+ tokens, found 100000"),
        ({"add_bos_token": "yes"}, r"tokenizer\.ggml\.add_bos_token: expected true or false, found 'yes'"),
        ({"suppress_tokens": [3]}, r"keys that are not read and would change its tokens: tokenizer\.ggml\.suppress_tokens"),
        ({"something_new": 3}, r"tokenizer\.ggml\.something_new: found 3"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, trained: tokenizers.Tokenizer, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenizerError, match=reason) as caught:
        opened(tmp_path, bpe_keys(trained, **changes))
    assert "\n" not in str(caught.value) and "use a Hugging Face directory with a tokenizer.json" in str(caught.value)


def test_tokens_without_a_text(tmp_path: Path, trained: tokenizers.Tokenizer) -> None:
    """Each stands for itself, as in llama.cpp."""
    keys = bpe_keys(trained)
    keys["tokenizer.ggml.tokens"] = [*keys["tokenizer.ggml.tokens"], "", ""]
    keys["tokenizer.ggml.token_type"] = [*keys["tokenizer.ggml.token_type"], NORMAL, NORMAL]
    assert opened(tmp_path, keys).encode("the 12") == trained.encode("the 12").ids


def test_scores_are_needed(tmp_path: Path, spm: Any) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.scores: expected \d+ numbers, one a token, found None"):
        opened(tmp_path, spm_keys(spm[0], scores=None))


def test_a_panic_of_the_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rust's panics are no Exception."""

    class PanicException(BaseException):
        pass

    def panic(path: str) -> None:
        raise PanicException("no entry found for key\nsecond line")

    library = SimpleNamespace(Tokenizer=SimpleNamespace(from_file=panic))
    monkeypatch.setattr("lcsb_mobile.export.checkpoints.side_files.tokenizers", library)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="not a tokenizer; download it again: no entry found for key second line"):
        copy_tokenizer(tmp_path, tmp_path / "out")
