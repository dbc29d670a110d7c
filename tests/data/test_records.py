"""One line to one example: the forms, which labels count, and every way in which a line can be malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import CHAT, bpe_backend, byte_backend, learned, lists, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.data.records import Example, _overlaps, has_doubled_ends, read_line
from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.text.tokenizer import Tokenizer


@pytest.fixture(params=[byte_backend, bpe_backend])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make_tokenizer(request.param())


def read(tokenizer: Tokenizer, line: Any) -> Example:
    return read_line(line if isinstance(line, bytes) else json.dumps(line).encode(), tokenizer).example


def test_text_counts_everything_after_the_first_token(tokenizer: Tokenizer) -> None:
    ids, labels = lists(read(tokenizer, {"text": "Two lines"}))
    assert ids == [*tokenizer.encode("Two lines"), tokenizer.eos_id]
    assert labels == [*ids[1:], IGNORED_LABEL]


def test_completion_counts_from_the_prompts_last_position(tokenizer: Tokenizer) -> None:
    ids, labels = lists(read(tokenizer, {"prompt": "user: ", "completion": "bien."}))
    prompt = tokenizer.encode("user: ")
    completion = [*tokenizer.encode("bien."), tokenizer.eos_id]
    assert ids == prompt + completion
    assert labels == [IGNORED_LABEL] * (len(prompt) - 1) + completion + [IGNORED_LABEL]


def test_bos_is_not_counted() -> None:
    tokenizer = make_tokenizer(byte_backend(), bos_token="<|im_start|>", add_bos_token=True)
    ids, labels = lists(read(tokenizer, {"text": "ab"}))
    assert ids == [257, *tokenizer.encode("ab"), 256]
    assert labels == [*tokenizer.encode("ab"), 256, IGNORED_LABEL]


def test_a_text_without_tokens_is_an_empty_example() -> None:
    backend = Backend(models.WordLevel({"a": 0}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert lists(read(Tokenizer(backend, {}, 10), {"text": " "})) == ([], [])


def test_forms_are_told_apart(tokenizer: Tokenizer) -> None:
    lines = ({"text": "a"}, {"prompt": "a", "completion": "b"}, {"messages": CHAT})
    assert [read_line(json.dumps(line).encode(), tokenizer).form for line in lines] == ["text", "completion", "messages"]


def test_messages_count_the_assistants_turns(tokenizer: Tokenizer) -> None:
    example = read(tokenizer, {"messages": CHAT})
    ids, labels = lists(example)
    assert ids == tokenizer.encode(tokenizer.render_chat(CHAT))
    assert learned(tokenizer, example) == " Oui, très bien.\n<|im_end|>\nTwo\n\nlines 🙂<|im_end|>\n"
    assert all(label in (IGNORED_LABEL, token) for label, token in zip(labels, ids[1:], strict=False))


def test_what_follows_the_assistants_last_turn_is_dropped(tokenizer: Tokenizer) -> None:
    longer = [*CHAT, {"role": "user", "content": "And?"}, {"role": "system", "content": "Stop."}]
    assert lists(read(tokenizer, {"messages": longer})) == lists(read(tokenizer, {"messages": CHAT}))


def test_a_token_that_straddles_the_turns_start_is_counted() -> None:
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate([*"abu:Ġ", ":a"])}, merges=[(":", "a")]))
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    tokenizer = make_tokenizer(backend, template)
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    turns = [{"role": "user", "content": "b"}, {"role": "assistant", "content": "ab"}]
    ids, labels = lists(read(tokenizer, {"messages": turns}))
    assert [backend.id_to_token(token) for token in ids] == ["u", ":", "b", "a", ":a", "b"]
    assert [label != IGNORED_LABEL for label in labels] == [False, False, False, True, True, False]


RANGES = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(RANGES, max_size=6), st.lists(RANGES, max_size=4))
def test_overlaps_is_a_comparison_of_every_character(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> None:
    inside = {character for start, end in spans for character in range(start, end)}
    expected = [bool(inside & set(range(start, end))) for start, end in offsets]
    assert _overlaps(offsets, spans, 12).tolist() == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'\xef\xbb\xbf{"text": "ab"}\r\n', "ab"),  # as editors on Windows write
        (b'{"text": "a\\u0000b"}', "a\x00b"),
        (b'{"text": "\\ud83d\\ude42"}', "🙂"),
        (b' {"text" : "a" , "text": "b"} ', "b"),
        (b'{"text": "<|im_end|>"}', "<|im_end|>"),
    ],
)
def test_unusual_but_good_lines(line: bytes, text: str) -> None:
    tokenizer = make_tokenizer(byte_backend())
    assert lists(read(tokenizer, line))[0] == tokenizer.encode(text) + tokenizer.eos()


FAULTS = [
    (b"", "a blank line; expected"),
    (b"{", "not JSON: "),
    (b'{"text": "a"} x', "not JSON: .*trailing characters"),
    (b'{"text": "\\ud800"}', "not JSON: half a surrogate pair"),
    (b'{"text": "\\udc00\\ud800"}', "not JSON: half a surrogate pair"),
    (b'{"text": "\\ud83d\\ude42', "not JSON: .*truncated"),
    (b'{"text": "a\x00b"}', "not JSON: .*invalid character"),
    (b'{"text": "a"}\x00', "not JSON: .*trailing characters"),
    (b"[" * 100_000, "not JSON: "),
    (b'{"text": ' + b"[" * 100_000, "not JSON: "),
    (b'{"text": ' * 100_000, "not JSON: "),
    (b'{"text": "\xff"}', "not UTF-8: invalid start byte at byte 10"),
    (b'{"text": "\xed\xa0\x80"}', "not UTF-8: invalid continuation byte"),
    (b'\xff\xfe{\x00"\x00', "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8$"),
    (b'["text"]', "expected an object, found an array"),
    ({}, "expected the keys of .*, found none"),
    ({"txt": "a"}, "expected the keys of .*, found 'txt'"),
    ({"text": "a", "prompt": "b", "completion": "c"}, "more than one form: .*, found 'completion', 'prompt', 'text'$"),
    ({"text": "a", "messages": CHAT}, "more than one form: .*, found 'messages', 'text'$"),
    ({"\x1b[2J\n": 1}, r"found .\\x1b\[2J\\n.$"),
    ({"k" * 9999: 1}, "found 'k{100,200}…$"),
    ({"prompt": "a"}, "expected the keys of .*, found 'prompt'$"),
    ({"prompt": "a", "complation": "b"}, "expected the keys of .*, found 'complation', 'prompt'$"),
    ({"text": 5}, "text: expected a string, found a number"),
    ({"text": None}, "text: expected a string, found null"),
    ({"text": ""}, "text: expected text, found an empty string"),
    ({"prompt": "a", "completion": ""}, "completion: expected text"),
    ({"messages": []}, "messages: expected at least one turn, found an empty array"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages: expected text"),
    ({"messages": [{"role": "", "content": "a"}]}, "role: expected text"),
    ({"messages": [{"role": "user"}]}, r"messages\[0\]: expected the keys of .*, found 'role'$"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, r"messages\[0\].content: expected a string, found an array"),
    ({"conversations": [{"from": "\x1b", "value": "a"}]}, r"conversations\[0\].from: expected system, human or gpt, found .\\x1b.$"),
    ({"messages": [{"role": "assistant", "content": "a"}] * 1001}, "messages: expected at most 1000, found 1001; give"),
    ({"messages": [{"role": "user", "content": "a"}]}, "at least one with the role 'assistant', found none"),
]


@pytest.mark.parametrize(("line", "message"), FAULTS, ids=range(len(FAULTS)))
def test_malformed_line(line: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(make_tokenizer(byte_backend()), line)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_tokenizer_faults() -> None:
    with pytest.raises(TokenizerError, match=r"token 258 .* vocabulary of 258"):
        read(make_tokenizer(byte_backend(), vocab_size=258), {"text": "a<|im_end|>"})
    with pytest.raises(TokenizerError, match="the tokenizer has no chat template"):
        read(make_tokenizer(byte_backend(), None), {"messages": CHAT})


def test_arrays_are_int32(tokenizer: Tokenizer) -> None:
    example = read(tokenizer, {"messages": CHAT})
    assert example.input_ids.dtype == example.labels.dtype == np.int32
    assert lists(example.cut(3)) == tuple(each[:3] for each in lists(example))
    assert example.counted_labels == sum(label != IGNORED_LABEL for label in example.labels)


VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[1] / "golden" / "data_pipeline.json").read_text())


@pytest.mark.parametrize("case", VECTORS["doubled_ends"], ids=str)
def test_which_ends_are_doubled(case: dict[str, Any]) -> None:
    assert has_doubled_ends(case["ids"], case["bos"], case["eos"]) == case["doubled"]


ENDS = {"special": ("<s>",), "bos_token": "<s>", "add_bos_token": True}
CHATML_ENDS = "<s>{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"


@pytest.mark.parametrize(
    ("line", "doubled"),
    [
        ({"text": "a"}, False),
        ({"text": "<s>a"}, True),
        ({"text": "a</s>"}, True),
        ({"text": "a</s>b<s>c"}, False),  # documents in one text, each with its own
        ({"prompt": "a</s>", "completion": "b"}, False),
        ({"prompt": "<s>a", "completion": "b"}, True),
        ({"prompt": "a", "completion": "b</s>"}, True),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, False),
        ({"messages": [{"role": "user", "content": "<s>a"}, {"role": "assistant", "content": "b"}]}, True),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b</s>"}]}, True),
    ],
)
def test_a_text_with_ends_of_its_own(line: dict[str, Any], doubled: bool) -> None:
    """Nothing is taken away from it, and it is counted."""
    tokenizer = make_tokenizer(byte_backend(), CHATML_ENDS + "{% if add_generation_prompt %}{% endif %}", **ENDS)
    read = read_line(json.dumps(line).encode(), tokenizer)
    assert read.doubled_ends == doubled
    assert tokenizer.bos_id == read.example.input_ids[0] and tokenizer.eos_id == read.example.input_ids[-1]
