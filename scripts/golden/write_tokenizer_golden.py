"""Writes what a port of the tokenizer is held to, tests/golden/tokenizers/: `write_tokenizer_golden.py [DIRECTORY]`.

`golden.jsonl.gz`: a line for each of STRINGS texts, and then one for each of DECODED lists of ids; what each tokenizer of STYLES makes of
it, in the library tokenizers. `STYLE.json.gz`: each tokenizer, in the manner of a family, with a small vocabulary trained on made-up text.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import lcsb_mobile.text.tokenizer

DIRECTORY = Path(__file__).resolve().parents[2] / "tests" / "golden" / "tokenizers"
SEED = 20
STRINGS, DECODED = 10_000, 400
OFFSETS_EVERY = 8  # texts: of one in so many the tokens' places are written, too
TOKENS = 3000  # of a vocabulary
CHARACTERS = 400  # that Gemma's vocabulary has; the others are written as bytes

MODERN = (
    # Of Qwen2 and Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>"]
SPECIAL = [*CHATML, *LLAMA, *GEMMA, "<start_of_turn>", "<end_of_turn>", "<think>", "</think>", "<0x41>", "▁"]

ENGLISH = (
    "the of and to in is that it for was on as with his they at be this from have or by one had not but what all were when we there can "
    "an your which their said if do will each about how up out them then she many some so these would other into has more her two like "
    "him see time could no make than first been its who now people my made over did down only way find use may water long little very "
    "after words called just where most know layer gradient phone battery weight adapter memory training loss learning model token "
    "don't it's we're I've you'll he'd I'm can't "
)
WORDS = ENGLISH.split()
CODE = (
    "def f(x):", "    return x", "if (a == b) {", "}", "// note", "for i in range(10):", "x += 1;", "\t\tval y = 2", '"key": [1, 2]',
    "</div>",
    "#!/bin/sh",
)  # fmt: skip
# First code point, how many: of scripts old and new, with the marks among them.
SCRIPTS = (
    (0xC0, 0x180), (0x1E00, 0x100), (0x370, 0x80), (0x400, 0x100), (0x531, 0x50), (0x5D0, 0x1B), (0x621, 0x2A), (0x904, 0x36),
    (0x985, 0x28), (0xB85, 0x30), (0xE01, 0x30), (0x10D0, 0x2B), (0x1200, 0x100), (0x3041, 0x56), (0x30A1, 0x5A), (0x4E00, 0x400),
    (0x9000, 0x800),
    (0xAC00, 0x800), (0x20000, 0x100), (0x10570, 0x40), (0x1E290, 0x20), (0x11F00, 0x20), (0x1E4D0, 0x20), (0x2EBF0, 0x200), (0x30000,
    0x100),
    (0x10D40, 0x40), (0x16100, 0x20), (0x11DE0, 0xA), (0x16FF0, 0x8), (0x1C80, 0x9), (0xA7C0, 0x20),
)  # fmt: skip
EMOJI = ["😀", "😂", "🙂", "❤️", "👍🏽", "👨\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "🇫🇷🇩🇪", "1️⃣", "✨", "🫠", "🧑🏿\u200d🚀", "☃", "⌚️"]
OLD_MARKS = (*range(0x300, 0x34F), *range(0x591, 0x5BE), 0x5BF, *range(0x64B, 0x656), 0x93C, 0x94D, 0x9BE, 0xB57, 0x302A, 0x3099)
NEW_MARKS = (0x8D4, 0x8CA, 0x1DF6, 0x1ABF, 0x1E4EC, 0x16FF0)  # that not every table of Unicode has
MARKS = [chr(point) for point in (*OLD_MARKS, *NEW_MARKS)]
COMPOSED = [
    "A\u030a", "\u212b", "\u2126", "e\u0301", "\u1112\u1161\u11ab", "\u1100\u1161", "\uac00\u11a8", "\uf900", "\u0958", "q\u0323\u0307",
    "\u0344", "\u2adc", "\u09c7\u09be", "\u0b47\u0b3e",
]  # fmt: skip
BLANKS = [
    " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", " \n", "\n ", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680", "\u2003",
    "\u2028", "\u202f",
    "\u3000", "\u200b",
]  # fmt: skip
NUMBERS = [
    "0", "7", "42", "1234", "1234567", "3.14", "1,000", "٣٤٥", "१२", "½", "Ⅷ", "²³", "𝟙𝟚", "①", "㉑", "〇", "\U00011de1\U00011de2",
    "\U00016ff4",
]  # fmt: skip
FORMATS = (0xAD, 0x200D, 0x200E, 0x202E, 0x2060, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x10FFFF, 0xE000)
CONTROLS = [chr(point) for point in (*range(0x20), 0x7F, *range(0x80, 0xA0), *FORMATS)]
APOSTROPHES = ["'", "''", "'s", "'S", "'ſ", "'t", "'RE", "'ve", "'Ll", "'d", "'D", "'m", "’s", "' s", "'x", "'l", "'r", "'reſ", "'İ"]

Generator = random.Random


def words(rng: Generator) -> str:
    chosen = [rng.choice(WORDS) for _ in range(rng.randint(1, 9))]
    chosen[0] = rng.choice((chosen[0], chosen[0].title(), chosen[0].upper()))
    return " ".join(chosen) + rng.choice(("", ".", "!", "?", ",", " ...", ")", '"', ";\n"))


def script(rng: Generator) -> str:
    first, count = rng.choice(SCRIPTS)
    letters = [chr(first + rng.randrange(count)) for _ in range(rng.randint(1, 8))]
    return "".join(letter if rng.random() < 0.85 else f"{letter} " for letter in letters)


def marked(rng: Generator) -> str:
    return "".join(
        rng.choice(("a", "o", "é", "q", " ", rng.choice(COMPOSED))) + "".join(rng.choice(MARKS) for _ in range(rng.randint(0, 3)))
        for _ in range(rng.randint(1, 4))
    )


def anything(rng: Generator) -> str:
    ranges = ((0, 0x80), (0x80, 0x300), (0x300, 0xD800), (0xE000, 0x110000))
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(1, 5)))


def long_word(rng: Generator) -> str:
    return rng.choice(("a", "ab", "layer", "é", "字", "-", "'", "7", "🙂", "\u0301", "<", "=")) * rng.choice((50, 200, 700))


def one_of(texts: list[str], most: int) -> Callable[[Generator], str]:
    return lambda rng: "".join(rng.choice(texts) for _ in range(rng.randint(1, most)))


def cut(rng: Generator) -> str:
    token = rng.choice(SPECIAL)
    return token[: rng.randint(1, len(token))]


PIECES: tuple[tuple[Callable[[Generator], str], float], ...] = (
    (words, 6), (script, 4), (marked, 1), (anything, 1.5), (one_of(EMOJI, 3), 1), (one_of(BLANKS, 4), 3), (one_of(NUMBERS, 3), 2),
    (one_of(CONTROLS, 2), 0.7), (one_of(APOSTROPHES, 2), 2), (one_of(list(CODE), 2), 1), (one_of(SPECIAL, 2), 1.2), (cut, 0.7),
    (long_word, 0.03),
)  # fmt: skip


def text(rng: Generator) -> str:
    makers, weights = zip(*PIECES, strict=True)
    return "".join(maker(rng) for maker in rng.choices(makers, weights, k=rng.randint(1, 4)))


def corpus() -> Iterator[str]:
    """What the vocabularies are trained on."""
    rng = random.Random(SEED + 1)
    for _ in range(20_000):
        makers = (words, words, words, script, one_of(list(CODE), 2), one_of(NUMBERS, 2), one_of(EMOJI, 1))
        yield " ".join(rng.choice(makers)(rng) for _ in range(5))


def byte_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = splitting(MODERN % "{1,3}")
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(corpus(), trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def splitting(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(use_regex=False)])


def byte_level(use_regex: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=not use_regex, use_regex=use_regex)


def special(backend: Tokenizer, tokens: list[str], others: tuple[str, ...] = ()) -> Tokenizer:
    backend.add_special_tokens(tokens)
    backend.add_tokens([AddedToken(token, normalized=False) for token in others])
    return backend


def byte_level_backend(vocabulary: Any, pre_tokenizer: pre_tokenizers.PreTokenizer, **options: Any) -> Tokenizer:
    backend = Tokenizer(models.BPE(*vocabulary, **options))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    return backend


def qwen2(vocabulary: Any) -> Tokenizer:
    backend = byte_level_backend(vocabulary, splitting(MODERN % ""))
    backend.normalizer = normalizers.NFC()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return special(backend, CHATML, ("<think>", "</think>"))


def llama3(vocabulary: Any) -> Tokenizer:
    backend = special(byte_level_backend(vocabulary, splitting(MODERN % "{1,3}"), ignore_merges=True), LLAMA)
    bos = LLAMA[0]
    template = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos}:1 $B:1", [(bos, backend.token_to_id(bos))])
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return backend


def smollm2(vocabulary: Any) -> Tokenizer:
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)])
    backend = special(byte_level_backend(vocabulary, pre_tokenizer), CHATML)
    backend.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    backend.add_tokens([AddedToken("layer gradient", normalized=True)])
    return backend


def gemma(_: Any) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    lines = [line[:80] for line in corpus()]
    counts = Counter(backend.normalizer.normalize_str("".join(lines)))
    alphabet = sorted(counts, key=lambda character: (-counts[character], character))[
        :CHARACTERS
    ]  # the trainer's own choice is not always one
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[*GEMMA, *bytes_],
        initial_alphabet=alphabet,
        limit_alphabet=CHARACTERS,
        max_token_length=12,
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    content = json.loads(backend.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in bytes_]
    backend = Tokenizer.from_str(json.dumps(content))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(parts)
    backend.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos>:1 $B:1", [("<bos>", backend.token_to_id("<bos>"))])
    return special(backend, ["<start_of_turn>", "<end_of_turn>"], ("\n\n", "\n\n\n", "▁▁", "▁▁▁"))


def llama2(vocabulary: Any) -> Tokenizer:
    """Gemma's vocabulary, with the blank that sentencepiece puts before each fragment of a text between special tokens."""
    backend = gemma(vocabulary)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)
    return backend


def unknown(vocabulary: Any) -> Tokenizer:
    """Of no family: a byte-level vocabulary without some bytes, which become the unknown token, each alone."""
    tokens, merges = vocabulary
    left_out = {token for token in tokens if any(character in token for character in "zZ7ŃÅ¿")}
    kept = [token for token in tokens if token not in left_out]
    pairs = [pair for pair in merges if not left_out.intersection((*pair, "".join(pair)))]
    ids = {token: index for index, token in enumerate([*kept, "<unk>"])}
    return byte_level_backend((ids, pairs), byte_level(use_regex=True), unk_token="<unk>", fuse_unk=False)


STYLES: dict[str, Callable[[Any], Tokenizer]] = {
    "qwen2": qwen2, "llama3": llama3, "smollm2": smollm2, "unknown": unknown, "gemma": gemma, "llama2": llama2,
}  # fmt: skip


def line(backends: list[Tokenizer], sample: str, with_offsets: bool) -> dict[str, Any]:
    """`ids` and `offsets` are null where they are those of the style before, `decoded` where it is the text."""
    ids: list[list[int] | None] = []
    offsets: list[list[int] | None] = []
    decoded: list[str | None] = []
    before: tuple[list[int] | None, list[int] | None] = (None, None)
    for backend in backends:
        model = lcsb_mobile.text.tokenizer.Tokenizer(backend, {}, 2**20)
        found, spans = model.encode_with_offsets(sample)
        flat = [place for span in spans for place in span]
        again = backend.decode(found, skip_special_tokens=True)
        ids.append(None if found == before[0] else found)
        offsets.append(None if flat == before[1] else flat)
        decoded.append(None if again == sample else again)
        before = (found, flat)
    return {"text": sample, "ids": ids, "decoded": decoded} | ({"offsets": offsets} if with_offsets else {})


def decoding(backends: list[Tokenizer], rng: Generator) -> dict[str, Any]:
    """Ids of one byte for the most part: what they spell is UTF-8 by chance."""
    ids = [rng.choice((rng.randrange(300), rng.randrange(TOKENS + 20))) for _ in range(rng.randint(1, 9))]
    return {"decode": ids, "texts": [backend.decode(ids, skip_special_tokens=True) for backend in backends]}


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 9, mtime=0))


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = byte_vocabulary()
    backends = []
    for style, build in STYLES.items():
        backend = build(vocabulary)
        write(directory / f"{style}.json.gz", backend.to_str(pretty=False).encode())
        backends.append(backend)
    rng = random.Random(SEED)
    texts = ["", " ", "\n", *(text(rng) for _ in range(STRINGS - 3))]
    lines = [line(backends, sample, number % OFFSETS_EVERY == 0) for number, sample in enumerate(texts)]
    lines += [decoding(backends, rng) for _ in range(DECODED)]
    content = "".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in lines)
    write(directory / "golden.jsonl.gz", content.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
