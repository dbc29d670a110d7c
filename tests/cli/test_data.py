"""`lcsb data`: its figures, its preview, its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bundles import SEQ_LEN, RandomBundle, lcsb, lcsb_error, lcsb_json, write_lines
from helpers.data import write
from rich.console import Console

from lcsb_mobile.cli.data import _marked, _visible
from lcsb_mobile.data.token_report import Run

CONVERSATION = {"messages": [{"role": "user", "content": "boats"}, {"role": "assistant", "content": "two"}]}
LINES = [{"text": "the train"}, {"prompt": "a", "completion": "b"}, CONVERSATION, {"text": "the train"}, {"text": "z" * 50}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "data.jsonl", LINES)


def test_json(random_bundle: RandomBundle, file: Path) -> None:
    report = lcsb_json("data", file, "--bundle", random_bundle.bundle, "--preview", 2, "--accumulation", 2)
    data = report["data"]
    assert (data["lines"], data["examples"], data["truncated"], data["duplicates"]) == (5, 5, 1, 1)
    assert (data["texts"], data["completions"], data["conversations"]) == (3, 1, 1)
    assert (report["file"], report["seq_len"], report["accumulation"]) == (str(file), SEQ_LEN, 2)
    assert report["steps"] == -(-report["sequences"] // 2)
    assert report["seq_len_to_cut_none"] == data["longest"] == 51
    assert report["preview"][1] == [{"text": "a", "counted": False}, {"text": "b</s>", "counted": True}]
    longer = lcsb_json("data", file, "--bundle", random_bundle.bundle, "--seq-len", 51)
    assert (longer["seq_len"], longer["data"]["truncated"], longer["preview"]) == (51, 0, [])


def test_text(random_bundle: RandomBundle, file: Path) -> None:
    out = lcsb("data", file, "--bundle", random_bundle.bundle, "--preview", 9)
    for expected in (
        f"{file}: 5 lines (3 text, 1 prompt and completion, 1 conversations)",
        "20.0% of the lines at 32 tokens; 19 tokens lost",
        "51 tokens would cut at most 1 % of the lines, 51 none",
        "1 lines equal an earlier one",
        "example 2\na⟦b</s>⟧\n",
        "assistant\n⟦two</s>\n⟧\n",
        "example 5\n",
    ):
        assert expected in out
    assert "example 6" not in out and "turns" not in out


def test_what_was_passed_over(random_bundle: RandomBundle, tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a", "id": 1, "\x1b[2J": 2}, b"", {"text": "b", "id": 2}, b"")
    out = lcsb("data", path, "--bundle", random_bundle.bundle)
    assert "blank lines  2 passed over\n" in out
    assert r"passed over  keys that no form has: 'id' in 2 lines, '\x1b[2J' in 1 lines" in out
    data = lcsb_json("data", path, "--bundle", random_bundle.bundle)["data"]
    assert (data["lines"], data["blank_lines"], data["further_keys"]) == (2, 2, {"id": 2, "\x1b[2J": 1})


def test_doubled_ends_are_counted(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """By the verb and by a run, each of which goes on."""
    path = write_lines(tmp_path / "data.jsonl", [{"text": "a</s>"}, {"text": "b"}, {"prompt": "c", "completion": "d</s>"}])
    said = "2 lines hold a token of beginning or end and got another; leave them out of the texts"
    assert f"ends         {said}" in lcsb("data", path, "--bundle", random_bundle.bundle)
    run = ("simulate", random_bundle.bundle, "--data", path, "--steps", 1, "--adapter", tmp_path / "a", "--report", tmp_path / "r.html")
    assert said in lcsb(*run) and said in (tmp_path / "r.html").read_text("utf-8")
    assert lcsb_json(*run, "--force")["data"]["doubled_ends"] == 2


def test_malformed_data(random_bundle: RandomBundle, tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a"}, b'{"text": "\\ud800"}', b"{")
    for arguments in ((), ("--json",)):
        error = lcsb_error(2, "data", path, "--bundle", random_bundle.bundle, *arguments)
        assert error == f"error: {path}:2: not JSON: half a surrogate pair"
    assert "nope" in lcsb_error(2, "data", tmp_path / "nope", "--bundle", random_bundle.bundle)
    assert "not a bundle" in lcsb_error(2, "data", path, "--bundle", tmp_path)
    assert "preview: expected 0 or more, found -1" in lcsb_error(2, "data", path, "--bundle", random_bundle.bundle, "--preview", -1)


def test_marks() -> None:
    """Colours on a terminal; brackets where there are none."""
    counted, uncounted = Run("b\x1b[2J\n", True), Run("a", False)
    assert _marked((uncounted, counted), styled=False).plain == "a⟦b␛[2J\n⟧"
    text = _marked((uncounted, counted), styled=True)
    assert text.plain == "a" + "b␛[2J\n"
    console = Console(force_terminal=True, color_system="standard", width=80, _environ={})
    with console.capture() as capture:
        console.print(text)
    assert capture.get().startswith("\x1b[2ma\x1b[0m\x1b[1;32mb␛[2J")


def test_control_characters_are_shown() -> None:
    assert _visible("a\tb\nc\x00\x07\x1b\x7f\x9bé") == "a\tb\nc␀␇␛\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}é"
