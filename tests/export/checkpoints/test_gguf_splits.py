"""The splits that names of `tokenizer.ggml.pre` mean, against llama.cpp's own expressions in another engine, the package regex."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
import regex
import tokenizers
from tokenizers import pre_tokenizers

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.export.checkpoints.gguf_splits import GPT2, REFUSED, SPLITS, split_of

# src/llama-vocab.cpp of llama.cpp, commit 00ad355: the expressions of each type, and the names of each.
CASELESS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
OLD = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
MODERN = CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UP}*{LOW}+%s|[^\r\n\p{{L}}\p{{N}}]?{UP}+{LOW}*%s|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{TAIL}"
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|""" + TAIL,
)
CASCADE = "".join(rf"\s{{{size}}}(?!\S)|" for size in (512, 256, 128, 64, 32, 16, 8, 4)) + r"\s{1,2}(?!\S)|\s{1}"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code roberta-bpe mpt olmo "
    "jais trillion granite-docling exaone4": (OLD,),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": (r"\p{N}", OLD),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2": (MODERN % r"\p{N}",),
    "qwen35": (CASELESS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + TAIL,),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 "
    "chatglm-bpe": (MODERN % r"\p{N}{1,3}",),
    "tekken": (CASED % ("", "", r"\p{N}"),),
    "gpt-4o llama4 kanana2 talkie minimax-m2": (CASED % (f"{CASELESS}?", f"{CASELESS}?", r"\p{N}{1,3}"),),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": DEEPSEEK,
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    "poro-chat bloom gpt3-finnish": (BLOOM,),
    "viking": (BLOOM, r"\p{N}"),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", OLD, "[0-9][0-9][0-9]"),
    "jais-2": (CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + CASCADE,),
    "bailingmoe bailingmoe2 llada-moe": (
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "seed-coder": (CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + TAIL,),
    "laguna": (r"[^\n]+|[\n]+", MODERN % r"\p{N}"),
    "minicpm5": (r"\p{N}{1,3}", MODERN % r"\p{N}+"),
}  # fmt: skip
NAMED = {name: expressions for names, expressions in EXPRESSIONS.items() for name in names.split()}
PIECES = (
    "the", "The", "THE", "layerNorm", "don't", "I'VE", "we'Re", "'s", "'", "’s", "é", "e\u0301", "Straße", "naïve",
    "字母", "日本語", "ひらがな", "カタカナ", "한국어", "हिन्दी", "עברית", "ελληνικά",
    "1", "22", "333", "4444", "12345678", "½", "Ⅷ", "٣٤", " ", "  ", "   ", "    ", "\n", "\n\n", "\r\n", "\t", "\xa0",
    ".", ",", "...", "!?", "()", "//", "/", "{", "}", '"', "-", "--", "_", "<b>", "$", "+=", "🙂", "👍🏽", "。", "，", "@x", "#y",
    ":", ";", "~", "`", "^", "|",
)  # fmt: skip


def texts(count: int) -> list[str]:
    rng = random.Random(3)
    made = ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12))) for _ in range(count)]
    return [*made, "", " " * 700 + "x", "a" + " " * 33, "1:\n\n1. two  \n 3"]


def split_by(expressions: Sequence[str], text: str) -> list[str]:
    """Each expression splits what those before it left whole, into matches and what is between."""
    words = [text] if text else []
    for expression in expressions:
        found = []
        for word in words:
            end = 0
            for match in regex.finditer(expression, word):
                found += [word[end : match.start()], match.group()]
                end = match.end()
            found.append(word[end:])
        words = [word for word in found if word]
    return words


def test_every_name_is_held_to_an_expression() -> None:
    assert NAMED.keys() == SPLITS.keys() and not REFUSED & SPLITS.keys()


@pytest.mark.parametrize("name", NAMED)
def test_words_are_llama_cpps(name: str) -> None:
    pre_tokenizer = split_of(name, "llama").pre_tokenizer()
    decoder = tokenizers.decoders.ByteLevel()
    for text in texts(400):
        words = [decoder.decode([word]) for word, _ in pre_tokenizer.pre_tokenize_str(text)]
        assert words == split_by(NAMED[name], text), text


def test_what_the_published_tokenizers_say() -> None:
    """As their tokenizer.json writes it, which is also what phones know."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = {"type": "Digits", "individual_digits": True}
    assert state("smollm") == {"type": "Sequence", "pretokenizers": [digits, byte_level | {"use_regex": True}]}
    assert state("gpt-2") == byte_level | {"use_regex": True}
    assert [part["type"] for part in state("falcon")["pretokenizers"]] == ["Split", "Split", "Split", "ByteLevel"]
    assert state("falcon")["pretokenizers"][1]["pattern"] == {"Regex": GPT2}


def state(name: str) -> Any:

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = SPLITS[name].pre_tokenizer()
    assert isinstance(backend.pre_tokenizer, pre_tokenizers.PreTokenizer)
    content: Any = json.loads(backend.to_str())["pre_tokenizer"]
    return content


@pytest.mark.parametrize("name", [*sorted(REFUSED - {"default"}), "brand-new", 7, "qwen2\n"])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.pre: found "):
        split_of(name, "llama")


def test_a_file_that_names_none() -> None:
    assert split_of(None, "qwen3") == split_of("default", "qwen2") == SPLITS["qwen2"]
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.pre: expected the name of a split, found none"):
        split_of(None, "llama")
