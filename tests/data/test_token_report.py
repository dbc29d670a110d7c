"""What a data file comes to: the figures against plain counting, and the runs of a preview."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest
from helpers.data import CHAT, bpe_backend, byte_backend, fill, make_tokenizer, write
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from lcsb_mobile.data.dataset import read_dataset
from lcsb_mobile.data.packing import epochs
from lcsb_mobile.data.records import read_line
from lcsb_mobile.data.token_report import report_tokens, runs
from lcsb_mobile.errors import OptionError
from lcsb_mobile.text.tokenizer import Tokenizer

TEXTS = ["a" * (1 + 7 * number % 23) for number in range(57)]


def test_figures(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(byte_backend())
    path = write(tmp_path, *({"text": text} for text in TEXTS))
    lengths = sorted(len(text) + 1 for text in TEXTS)
    report = report_tokens(path, tokenizer, 16, accumulation=4, preview=0)
    assert (report.file, report.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert report.data == read_dataset(path, tokenizer, 16).report
    # That many sequences of the first epoch hold all tokens, and one more or fewer would not.
    epoch = itertools.islice(epochs(read_dataset(path, tokenizer, 16), 16, 0, seed=0), report.sequences)
    assert fill(epoch) == pytest.approx(report.data.tokens / (16 * report.sequences)) == pytest.approx(report.fill)
    assert (report.accumulation, report.steps) == (4, (report.sequences + 3) // 4)
    assert report.seq_len_to_cut_none == lengths[-1]
    fewest = report.seq_len_to_cut_1_percent
    assert sum(length > fewest for length in lengths) <= 0.01 * len(lengths) < sum(length > fewest - 1 for length in lengths)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300))
def test_the_lengths_that_would_do(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = write(tmp_path_factory.mktemp("lengths"), *({"text": "a" * size} for size in sizes))
    tokenizer = make_tokenizer(byte_backend())
    report = report_tokens(path, tokenizer, 8, accumulation=1, preview=0)
    for seq_len, most in ((report.seq_len_to_cut_1_percent, 0.01), (report.seq_len_to_cut_none, 0.0)):
        cut = [sum(size + 1 > length for size in sizes) for length in (seq_len, seq_len - 1)]
        assert cut[0] <= most * len(sizes) < cut[1]


def test_options_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a"})
    for options, message in (
        ((0, 1, 0), "seq-len: expected at least 1, found 0"),
        ((8, 0, 0), "accumulation: expected at least 1, found 0"),
        ((8, 1, -1), "preview: expected 0 or more, found -1"),
    ):
        with pytest.raises(OptionError, match=message):
            report_tokens(path, make_tokenizer(byte_backend()), *options)


@pytest.mark.parametrize("backend", [byte_backend, bpe_backend])
def test_runs(backend) -> None:
    tokenizer = make_tokenizer(backend())
    for line, expected in (
        ({"text": "abc"}, [("a", False), ("bc</s>", True)]),
        ({"prompt": "a b", "completion": "é 🙂"}, [("a b", False), ("é 🙂</s>", True)]),
        ({"messages": CHAT}, None),
    ):
        found = runs(read_line(json.dumps(line).encode(), tokenizer).example, tokenizer)
        assert all(one.counted != other.counted for one, other in itertools.pairwise(found))
        if expected is not None:
            assert [(run.text, run.counted) for run in found] == expected
        else:
            text = "".join(run.text for run in found)
            assert text == tokenizer.render_chat(CHAT)
            assert [run.text for run in found if run.counted] == [" Oui, très bien.\n<|im_end|>\n", "Two\n\nlines 🙂<|im_end|>\n"]


def test_runs_of_a_cut_example() -> None:
    """The token after the cut counts, but is not there to be shown."""
    tokenizer = make_tokenizer(byte_backend())
    example = read_line(b'{"prompt": "ab", "completion": "cd"}', tokenizer).example
    assert [(run.text, run.counted) for run in runs(example.cut(3), tokenizer)] == [("ab", False), ("c", True)]
    assert [(run.text, run.counted) for run in runs(example.cut(2), tokenizer)] == [("ab", False)]


def test_runs_of_a_tokenizer_with_blanks_before_words() -> None:
    """A run is not decoded alone: its first word would lose its blank."""
    backend = Backend(models.BPE(vocab={"▁": 0, "a": 1, "▁a": 2}, merges=[("▁", "a")]))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)])
    tokenizer = Tokenizer(backend, {}, 10)
    found = runs(read_line(b'{"text": "a a a"}', tokenizer).example, tokenizer)
    assert [(run.text, run.counted) for run in found] == [("a", False), (" a a", True)]
