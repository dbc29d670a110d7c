"""What lines of published data sets say: ShareGPT's and Alpaca's forms, what is passed over, what is ambiguous."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.data import CHAT, byte_backend, lists, make_tokenizer, write
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.data.dataset import MOST_KEYS, OTHER_KEYS, read_dataset
from lcsb_mobile.data.line_record import ChatLine, Message, TextLine, decode_line, is_blank
from lcsb_mobile.data.records import read_line
from lcsb_mobile.errors import DataError

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[1] / "golden" / "data_pipeline.json").read_text("utf-8"))
SHAREGPT_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


@pytest.mark.parametrize("case", VECTORS["records"], ids=lambda case: case["line"][:60])
def test_vectors(case: dict[str, Any]) -> None:
    if "reason" in case:
        with pytest.raises(DataError) as caught:
            decode_line(case["line"].encode())
        assert str(caught.value) == case["reason"]
        return
    line, further = decode_line(case["line"].encode())
    assert list(further) == case["further_keys"]
    if "turns" in case:
        assert isinstance(line, ChatLine) and [[turn.role, turn.content] for turn in line.messages] == case["turns"]
    else:
        assert {name: getattr(line, name) for name in ("text", "prompt", "completion") if hasattr(line, name)} == {
            name: case[name] for name in ("text", "prompt", "completion") if name in case
        }


def test_sharegpt_is_the_same_conversation() -> None:
    """human is the user and gpt the assistant, as in LLaMA-Factory's tags and axolotl's roles."""
    tokenizer = make_tokenizer(byte_backend())
    turns = [{"from": SHAREGPT_NAMES[turn["role"]], "value": turn["content"]} for turn in CHAT]
    expected = lists(read_line(json.dumps({"messages": CHAT}).encode(), tokenizer).example)
    for record in ({"conversations": turns}, {"conversations": turns[1:], "system": CHAT[0]["content"]}, {"conversations": CHAT}):
        found = read_line(json.dumps(record).encode(), tokenizer)
        assert lists(found.example) == expected and found.form == "messages"


def test_alpaca_is_a_conversation() -> None:
    """The human's prompt is instruction and input, a line each; the history is learned too: LLaMA-Factory's data/README.md."""
    record = {"instruction": "Translate.", "input": "Hallo", "output": "Hello", "system": "Be brief.", "history": [["Hi", "Yes?"]]}
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Translate.\nHallo"), ("assistant", "Hello")]
    assert decode_line(json.dumps(record).encode()).line == ChatLine(tuple(Message(*turn) for turn in turns))


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers()), max_size=5))
def test_any_further_key_is_passed_over_and_named(further: dict[str, Any]) -> None:
    further = {key: value for key, value in further.items() if key not in ("text", "messages", "conversations")}
    whole = {"prompt", "completion"} <= further.keys() or {"instruction", "output"} <= further.keys()
    if not whole:
        line, keys = decode_line(json.dumps(further | {"text": "a"}).encode())
        assert line == TextLine("a") and len(keys) == len({key[:41] for key in further})


@pytest.mark.parametrize("raw", [b"", b"\n", b"\r\n", b" \t\r\n", b"\xef\xbb\xbf\n", "\u2003\u00a0\n".encode()])
def test_blank(raw: bytes) -> None:
    assert is_blank(raw)
    assert not is_blank(raw.rstrip(b"\n") + b"{\n") and not is_blank(raw.rstrip(b"\n") + b"\x00\n")


def test_blank_lines_and_further_keys_are_counted(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(byte_backend())
    turns = {"messages": [turn | {"name": "x"} for turn in CHAT]}
    path = write(tmp_path, b"", {"text": "ab", "id": 1}, b" \r", {"text": "ab", "id": 1}, turns | {"id": 2, "tools": []}, b"\xef\xbb\xbf")
    report = read_dataset(path, tokenizer, 1000).report
    assert (report.lines, report.blank_lines, report.duplicates) == (3, 3, 1)
    assert report.further_keys == {"id": 3, "tools": 1, "messages[].name": 1}
    with pytest.raises(DataError, match="data.jsonl:3: not JSON"):
        read_dataset(write(tmp_path, {"text": "ab"}, b"", b"x"), tokenizer, 10)
    with pytest.raises(DataError, match="the file is empty"):
        read_dataset(write(tmp_path, b"", b" "), tokenizer, 10)


def test_names_of_further_keys_are_bounded(tmp_path: Path) -> None:
    lines = [{"text": "ab"} | {f"{'k' * 99} {line}": 1} | {f"{line} {number}": 1 for number in range(40)} for line in range(3)]
    counts = read_dataset(write(tmp_path, *lines), make_tokenizer(byte_backend()), 10).report.further_keys
    assert len(counts) == MOST_KEYS + 1 and max(map(len, counts)) == 41
    assert (counts["k" * 40 + "…"], counts[OTHER_KEYS], sum(counts.values())) == (3, 3 * 41 - 3 - (MOST_KEYS - 1), 3 * 41)
