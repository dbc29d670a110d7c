"""How a byte-level tokenizer in GGUF splits text into words: the names of `tokenizer.ggml.pre`, and what each means.

The names, and what a tokenizer of a name does besides, are those of llama.cpp (`src/llama-vocab.cpp`, commit 00ad355). A pattern is that of
the published `tokenizer.json`, which llama.cpp quotes where its own engine needs it written otherwise. Each pattern splits what the ones
before it left whole; what no pattern matches is a word, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers
from tokenizers import pre_tokenizers

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.io.bounded import one_line

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANKS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
REST = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{BLANKS}"
WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
QWEN2 = rf"{CONTRACTIONS}{WORD}\p{{N}}{REST}"
LLAMA3 = rf"{CONTRACTIONS}{WORD}\p{{N}}{{1,3}}{REST}"
QWEN35 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*{BLANKS}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*")  # a word with and without a capital
CASED_REST = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{BLANKS}"
TEKKEN = rf"{CASED[0]}|{CASED[1]}|\p{{N}}{CASED_REST}"
GPT4O = rf"{CASED[0]}{CONTRACTIONS}?|{CASED[1]}{CONTRACTIONS}?|\p{{N}}{{1,3}}{CASED_REST}"
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",  # Chinese, hiragana, katakana
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*" + BLANKS,
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")
BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")
JAIS2 = rf"{CONTRACTIONS}{WORD}\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+" + "".join(
    rf"|\s{{{size}}}(?!\S)" for size in (512, 256, 128, 64, 32, 16, 8, 4)
) + r"|\s{1,2}(?!\S)|\s{1}"  # fmt: skip
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SEED_CODER = rf"{CONTRACTIONS}{WORD}\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+{BLANKS}"
MINICPM5 = (r"\p{N}{1,3}", rf"{CONTRACTIONS}{WORD}\p{{N}}+{REST}")


@dataclass(frozen=True)
class Split:
    """`patterns`: of words, one after the other. `ignore_merges`: a word that is a token is that token. `add_bos`: unless the file says
    otherwise. `compose`: the text is put into Unicode's form C first, which GGUF does not say and the published tokenizer does."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    compose: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        """Written as the published tokenizers write it: GPT-2's split is part of ByteLevel, and single digits are a part of their own."""
        built_in = self.patterns[-1] == GPT2
        patterns = self.patterns[:-1] if built_in else self.patterns
        parts: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Digits(individual_digits=True)
            if pattern == DIGIT
            else pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
            for pattern in patterns
        ]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=built_in)
        return pre_tokenizers.Sequence([*parts, byte_level]) if parts else byte_level


def _named(split: Split, *names: str) -> dict[str, Split]:
    return dict.fromkeys(names, split)


SPLITS: Mapping[str, Split] = {
    **_named(
        Split((GPT2,)), "gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "modern-bert", "jina-es", "jina-de", "jina-v1-en",
        "jina-v2-es", "jina-v2-de", "jina-v2-code", "roberta-bpe", "mpt", "olmo", "jais", "trillion", "granite-docling",
    ),
    **_named(Split((DIGIT, GPT2)), "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
    **_named(Split((QWEN2,), compose=True), "qwen2"),
    **_named(Split((QWEN2,)), "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "megrez", "solar-open", "grok-2"),
    **_named(Split((QWEN35,), compose=True), "qwen35"),
    **_named(
        Split((LLAMA3,), ignore_merges=True, add_bos=True), "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral",
        "midm-2.0", "lfm2", "jina-v5-nano",
    ),
    **_named(Split((LLAMA3,)), "dbrx", "smaug-bpe", "glm4", "chatglm-bpe"),
    **_named(Split((TEKKEN,), ignore_merges=True, add_bos=True), "tekken"),
    **_named(Split((GPT4O,)), "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
    **_named(Split(DEEPSEEK3), "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
    **_named(Split(DEEPSEEK_CODER), "deepseek-coder"),
    **_named(Split((BLOOM,)), "poro-chat", "bloom", "gpt3-finnish"),
    **_named(Split((BLOOM, DIGIT)), "viking"),
    **_named(Split(FALCON), "falcon"),
    **_named(Split((JAIS2,)), "jais-2"),
    **_named(Split((BAILING,)), "bailingmoe", "bailingmoe2", "llada-moe"),
    **_named(Split((SEED_CODER,)), "seed-coder"),
    **_named(Split(("[^\\n]+|[\\n]+", QWEN2)), "laguna"),
    **_named(Split(MINICPM5, ignore_merges=True), "minicpm5"),
}  # fmt: skip
# Of llama.cpp, too, and not read: what they mean is code there, or patterns of which no tokenizer here has a twin to be held to.
REFUSED = frozenset({
    "afmoe", "chameleon", "cohere2moe", "deepseek-llm", "default", "exaone-moe", "gemma4", "granite-embed-multi-311m",
    "granite-embed-multi-97m", "kimi-k2", "sarvam-moe", "spark2_5", "superbpe", "tiny_aya", "ufakzeka", "whitespace", "youtu",
})  # fmt: skip
WITHOUT_NAME = {"qwen2": "qwen2", "qwen3": "qwen2"}  # architecture -> the split of its older files, which name none


def split_of(name: object, architecture: object) -> Split:
    """`name`: what `tokenizer.ggml.pre` says; None where a file does not have it. Raises TokenizerError for a name that is not known, and
    for none where an architecture has tokenizers of several kinds."""
    found = WITHOUT_NAME.get(str(architecture)) if name in (None, "", "default") else name
    if isinstance(found, str) and found in SPLITS:
        return SPLITS[found]
    if found is None:
        raise TokenizerError("tokenizer.ggml.pre: expected the name of a split, found none: the file does not say how its text is split")
    known = "a split of llama.cpp's that is not read" if name in REFUSED else "no split that is known"
    raise TokenizerError(f"tokenizer.ggml.pre: found {one_line(repr(name), 60)}, {known}")
