"""Every bad input on the command line is one line and an exit code; nothing is half-written, nothing lost."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, left_behind, write_lines
from helpers.checkpoints import write_checkpoint
from helpers.hostile import edit as edit_manifest

from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.planning.plan import Plan

MAIN = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"


# Bad checkpoints


def truncate(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(checkpoint: Path) -> None:
        path = checkpoint / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda checkpoint: (checkpoint / "model.safetensors").unlink(), "model.safetensors"),
        (truncate, "truncated"),
        (edit_config(model_type="mamba"), "mamba"),
        (edit_config(quantization_config={"quant_method": "awq"}), "awq"),
        (lambda checkpoint: (checkpoint / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda checkpoint: (checkpoint / "config.json").write_text("{"), "config.json"),
    ],
)
def test_bad_checkpoint(checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(checkpoint)
    assert expected in lcsb_error(2, "export", checkpoint, "--output", tmp_path / "out", *EXPORT)
    assert left_behind(tmp_path, "out") == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--group-size", 7), "group"),
        (("--group-size", 0), "group-size"),
        (("--bits", 5), "bits: expected 4 or 8, found 5"),
        (("--embedding-bits", 16), "embedding-bits"),
        (("--rank", 0), "rank"),
        (("--alpha", -1), "alpha"),
        (("--subsets", 4), "subsets: expected 1 to 3"),
        (("--seq-len", 1), "seq-len"),
    ],
)
def test_bad_export_option(random_bundle: RandomBundle, tmp_path: Path, options: tuple[object, ...], expected: str) -> None:
    assert expected in lcsb_error(2, "export", random_bundle.checkpoint, "--output", tmp_path / "out", *EXPORT, *options)
    assert left_behind(tmp_path, "out") == []


def test_export_of_nothing(tmp_path: Path) -> None:
    assert "no such file" in lcsb_error(2, "export", tmp_path / "absent", "--output", tmp_path / "out")
    (tmp_path / "model.bin").write_bytes(b"x")
    assert ".gguf" in lcsb_error(2, "export", tmp_path / "model.bin", "--output", tmp_path / "out")


def test_tokens_outside_the_vocabulary_at_export(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "small", "llama", tied=True, vocab_size=60)  # its tokenizer has 131
    assert "vocabulary" in lcsb_error(2, "export", checkpoint, "--output", tmp_path / "out", *EXPORT)


def test_existing_output(random_bundle: RandomBundle, bundle: Path, messages: Path, tmp_path: Path) -> None:
    """Refused before anything is read; with --force replaced."""
    (bundle / "mine").write_text("x")
    assert "--force" in lcsb_error(2, "export", tmp_path / "absent", "--output", bundle)
    assert (bundle / "mine").exists()
    lcsb("export", random_bundle.checkpoint, "--output", bundle, *EXPORT, "--force")
    assert not (bundle / "mine").exists()
    assert "is not a bundle" in lcsb_error(2, "export", random_bundle.checkpoint, "--output", messages.parent, *EXPORT, "--force")
    assert messages.exists()
    for option in ("--adapter", "--report"):
        (tmp_path / "there").write_text("x")
        run = ("simulate", bundle, "--data", messages, "--steps", 1, option, tmp_path / "there")
        assert "--force" in lcsb_error(2, *run)
        assert (tmp_path / "there").read_text() == "x"
    lcsb(*run, "--force")
    assert (tmp_path / "there").read_text("utf-8") != "x"


# Bad data


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ('{"text": "good"}\n{"text": \n', ":2: not JSON"),
        ('{"text": "good"}\n{"txt": "x"}\n', ":2: expected the keys"),
        ('{"text": "good"}\n{"text": 5}\n', ":2: text: expected a string"),
        ('{"text": "good"}\n\n{"text": "x", "messages": []}\n', ":3: more than one form"),
        ('[{"text": "good"}]\n', ":1: a JSON array; expected one JSON object a line: python3 -c "),
        (json.dumps({"prompt": "a long prompt " * 10, "completion": "x"}) + "\n", "nothing to train on"),
        ('{"text": "good"}\n{"text": "b<extra>d"}\n', ":2: "),
        ('{"text": "one example"}\n', "--eval-data"),
    ],
)
def test_bad_data(bundle: Path, tmp_path: Path, content: str, expected: str) -> None:
    add_token(bundle)
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    line = lcsb_error(2, "simulate", bundle, "--data", data, "--steps", 1, "--adapter", tmp_path / "adapter")
    assert f"{data}" in line and expected in line
    assert not (tmp_path / "adapter").exists()


def add_token(bundle: Path) -> None:
    """Gives the bundle's tokenizer a token that its model does not have, and the manifest the file's new digest."""
    path = bundle / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save(str(path))
    edit_manifest(bundle, lambda manifest: manifest["files"].update({"tokenizer.json": entry(path)}))


def entry(path: Path) -> dict[str, object]:
    from lcsb_mobile.io.files import sha256

    return {"size": path.stat().st_size, "sha256": sha256(path)}


def test_missing_data_file(random_bundle: RandomBundle, tmp_path: Path) -> None:
    line = lcsb_error(2, "simulate", random_bundle.bundle, "--data", tmp_path / "absent", "--steps", 1, "--adapter", tmp_path / "a")
    assert f"{tmp_path / 'absent'}: No such file" in line


def test_long_examples_are_counted(random_bundle: RandomBundle, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"text": "the long line " * 9}, {"text": "short"}, {"text": "the other long line " * 9}])
    options = ("simulate", random_bundle.bundle, "--data", data, "--steps", 1, "--adapter", tmp_path / "a", "--force")
    report = lcsb_json(*options)["data"]
    assert (report["truncated"], report["examples"]) == (2, 3)
    assert f"2 longer than the sequence, {report['tokens_cut']} tokens cut" in lcsb(*options)


# Bad bundles


def change_byte(bundle: Path) -> None:
    with (bundle / "weights.bin").open("r+b") as file:
        file.seek(1000)
        old = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([old ^ 1]))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (change_byte, "weights.bin: expected SHA-256"),
        (lambda bundle: os.truncate(bundle / "weights.bin", 100), "weights.bin: expected"),
        (lambda bundle: (bundle / "golden.json").unlink(), "golden.json is missing"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "not a bundle"),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), "malformed manifest"),
        (lambda bundle: edit_manifest(bundle, lambda m: m.update(format_version=99)), "format version 99 is newer"),
        (lambda bundle: edit_manifest(bundle, lambda m: m.update(surprise=1)), "surprise"),
        (lambda bundle: edit_manifest(bundle, lambda m: m["files"].update({"../x": {"size": 0, "sha256": ""}})), "outside the bundle"),
        (
            lambda bundle: edit_manifest(bundle, lambda m: m["files"].update({"/etc/passwd": {"size": 0, "sha256": ""}})),
            "outside the bundle",
        ),
    ],
)
def test_bad_bundle(bundle: Path, tmp_path: Path, messages: Path, spoil: Callable[[Path], object], expected: str) -> None:
    """Every verb that opens one says the same."""
    spoil(bundle)
    for arguments in (
        ("verify", bundle),
        ("inspect", bundle),
        ("simulate", bundle, "--data", messages, "--steps", 1, "--adapter", tmp_path / "a"),
        ("generate", bundle, "--prompt", "x"),
    ):
        assert expected in lcsb_error(2, *arguments)
    assert not (tmp_path / "a").exists()


def test_a_trace_that_is_not_reproduced(bundle: Path, messages: Path, tmp_path: Path) -> None:
    """A runtime that computes something else fails at run time, before the first step."""
    path = bundle / "golden.json"
    trace = json.loads(path.read_text())
    for step in (*trace["steps"], *trace["run"]):
        step["loss"] *= 1.001
    path.write_text(json.dumps(trace))
    edit_manifest(bundle, lambda manifest: manifest["files"].update({"golden.json": entry(path)}))
    assert "golden trace" in lcsb_error(1, "verify", bundle)
    assert "golden trace" in lcsb_error(1, "simulate", bundle, "--data", messages, "--steps", 1, "--adapter", tmp_path / "a")
    assert not (tmp_path / "a").exists()


# Bad runs


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--steps", 0), "steps"),
        (("--lr", 0), "lr"),
        (("--lr", "nan"), "lr"),
        (("--accumulation", 0), "accumulation"),
        (("--warmup", -1), "warmup"),
        (("--threads", 0), "threads"),
        (("--temperature", -1), "temperature"),
        (("--top-p", 0), "top-p"),
        (("--max-tokens", 0), "max-tokens"),
        (("--memory-budget", "lots"), "lots"),
        (("--prompt", "x" * 99), "prompt"),
    ],
)
def test_bad_simulate_option(
    random_bundle: RandomBundle, messages: Path, tmp_path: Path, options: tuple[object, ...], expected: str
) -> None:
    line = lcsb_error(2, "simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", tmp_path / "a", *options)
    assert expected in line and not (tmp_path / "a").exists()


def test_bad_adapter(random_bundle: RandomBundle, tmp_path: Path) -> None:
    assert "not a readable" in lcsb_error(2, "generate", random_bundle.bundle, "--prompt", "x", "--adapter", tmp_path / "absent")
    foreign = random_bundle.checkpoint / "model.safetensors"
    assert "does not fit" in lcsb_error(2, "generate", random_bundle.bundle, "--prompt", "x", "--adapter", foreign)


def test_a_loss_that_is_not_finite(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.safetensors"
    line = lcsb_error(1, "simulate", random_bundle.bundle, "--data", messages, "--steps", 9, "--lr", "1e30", "--adapter", adapter)
    assert (
        re.search(r"step 1: its update would make a parameter of 1e\+30; .* the adapter after step 0, the last", line)
        and str(adapter) in line
    )
    load_adapter(adapter, Bundle.open(random_bundle.bundle).manifest.adapter)  # which refuses NaN


def test_memory_budget_is_refused_before_the_start(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    arguments = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", tmp_path / "a", "--memory-budget", "2MB")
    line = lcsb_error(2, *arguments)
    assert "predicted" in line and not (tmp_path / "a").exists()


def test_memory_budget_is_exceeded(random_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that was wrong: before the first step there is no adapter to keep, and none is spoken of; from then on there is one."""
    monkeypatch.setattr("lcsb_mobile.runs.setup.plan_run", lambda *_: Plan(0, 1, 1))
    arguments = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 9, "--adapter", tmp_path / "a", "--memory-budget", "2MB")
    line = lcsb_error(1, *arguments)
    assert "step 1: " in line and "2.0 MB" in line and "adapter" not in line and not (tmp_path / "a").exists()
    monkeypatch.setattr("lcsb_mobile.runs.simulate.check_first_step", lambda *_: None)
    monkeypatch.setattr("lcsb_mobile.runs.session.Session._evaluate", lambda *_: None)
    line = lcsb_error(1, *arguments)
    assert "step 1: " in line and "2.0 MB" in line
    assert line.endswith(f"the adapter after step 0, the last that was seen to give a finite loss, is in {tmp_path / 'a'}")
    load_adapter(tmp_path / "a", Bundle.open(random_bundle.bundle).manifest.adapter)
