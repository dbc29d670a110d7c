"""The command line: the whole way, what it prints, and that every bad input is one line and an exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, one_error, python, write_lines
from helpers.checkpoints import write_checkpoint
from typer.testing import CliRunner

import lcsb_mobile.cli.quickstart as quickstart_module
from lcsb_mobile import tiny
from lcsb_mobile.adapter import load_adapter
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.cli import app
from lcsb_mobile.export_options import ExportOptions
from lcsb_mobile.simulate import SimulateOptions

MAIN = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"
VERBS = ("quickstart", "export", "inspect", "verify", "simulate", "generate")


@pytest.fixture
def checkpoint(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_bundle.checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def bundle(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(random_bundle.bundle, tmp_path / "bundle"))


# The whole way


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma3_text"])
def test_the_whole_way(tmp_path: Path, model_type: str, messages: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model_type, tied=True)
    bundle, adapter, report = tmp_path / "bundle", tmp_path / "out" / "adapter.safetensors", tmp_path / "out" / "run.html"
    exported = lcsb("export", checkpoint, "--output", bundle, *EXPORT)
    assert "next: lcsb verify" in exported and re.search(r"embed_tokens \d+\.\d%, q_proj \d", exported)
    assert "Steps of the cycle" in lcsb("inspect", bundle)
    assert "verified" in lcsb("verify", bundle, "--eager")
    shown = lcsb(
        *("simulate", bundle, "--data", messages, "--eval-data", messages, "--steps", 30, "--lr", 0.01, "--adapter", adapter),
        *("--report", report, "--prompt", "the ", "--max-tokens", 3, "--lr-schedule", "cosine", "--warmup", 2, "--accumulation", 2),
    )
    before, after = (float(loss) for loss in re.findall(r"evaluation loss +([0-9.]+) → ([0-9.]+)", shown)[0])
    assert after < 0.9 * before
    assert str(adapter) in shown and str(report) in shown
    assert "<html" in report.read_text("utf-8")
    load_adapter(adapter, Bundle.open(bundle).manifest.adapter)
    base, adapted = (lcsb("generate", bundle, "--prompt", "the ", "--temperature", 0, *more) for more in ((), ("--adapter", adapter)))
    assert base.startswith("the ") and adapted.startswith("the ") and base != adapted


def test_json(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """The keys that CLI.md promises."""
    exported = lcsb_json("export", random_bundle.checkpoint, "--output", tmp_path / "b", *EXPORT)
    assert exported["schedule"] == [[2], [1], [0]] and exported["size"] > 0 and set(exported["seconds"]) >= {"weights", "trace"}
    assert lcsb_json("inspect", tmp_path / "b")["seq_len"] == 32
    assert lcsb_json("verify", tmp_path / "b")["step_loss"] < 1e-4
    run = lcsb_json("simulate", tmp_path / "b", "--data", messages, "--steps", 4)
    promised = "runtime runtime_version target method schedule steps losses step_seconds eval_loss_before eval_loss_after"
    assert run.keys() >= {*promised.split(), "peak_anonymous_bytes", "peak_rss_bytes", "adapter"}
    assert run["adapter"] == str(tmp_path / "b-adapter.safetensors") and Path(run["adapter"]).is_file()
    assert run["schedule"] == [[2], [1], [0]] and len(run["losses"]) == len(run["step_seconds"]) == run["steps"] == 4
    assert run["method"] == "lcsb-exact" and run["learning_rate"] == pytest.approx(4e-4 * 3**0.5)
    text = lcsb_json("generate", tmp_path / "b", "--prompt", "the ", "--max-tokens", 3)
    assert text["prompt"] == "the " and text["adapter"] is None


def test_options_reach_the_bundle(random_bundle: RandomBundle, tmp_path: Path) -> None:
    lcsb(
        *("export", random_bundle.checkpoint, "--output", tmp_path / "b", "--target", "onnxruntime-training", "--method", "lcsb-identity"),
        *("--subsets", 2, "--partition", "contiguous", "--order", "shuffled", "--rank", 3, "--alpha", 5, "--bits", 8),
        *("--embedding-bits", 4, "--group-size", 4, "--seq-len", 24, "--seed", 7, "--weight-decay", 0.5, "--clip-norm", 2),
        *("--implicit-updates", "none"),
    )
    manifest = Bundle.open(tmp_path / "b").manifest
    assert (manifest.adapter.lora.rank, manifest.adapter.lora.alpha) == (3, 5)
    assert (manifest.quantization.bits, manifest.quantization.embedding_bits, manifest.quantization.group_size) == (8, 4, 4)
    config = manifest.schedule_config
    assert (config.method, config.subsets, config.partition, config.order, config.seed) == (
        *("lcsb-identity", 2, "contiguous", "shuffled"),
        7,
    )
    assert (manifest.seq_len, manifest.seed) == (24, 7)
    assert (manifest.optimizer.weight_decay, manifest.optimizer.clip_norm, manifest.optimizer.implicit_updates) == (0.5, 2, "none")


def test_quickstart(random_bundle: RandomBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another model; the embedded one is `test_quickstart_on_tiny`."""
    monkeypatch.setattr(quickstart_module, "ExportOptions", small_export)
    data = write_lines(tmp_path / "data.jsonl", [{"text": text} for text in ("the one", "the two", "the three")])
    output = tmp_path / "quick"
    arguments = ("quickstart", "--model", random_bundle.checkpoint, "--output", output, "--data", data, "--steps", 5)
    shown = lcsb(*arguments)
    assert sorted(path.name for path in output.iterdir()) == ["adapter.safetensors", "bundle", "report.html"]
    assert "before:" in shown and "evaluation loss" in shown and f"lcsb verify {output / 'bundle'}" in shown
    assert "already exists" in lcsb_error(2, *arguments)
    result = lcsb_json(*arguments, "--force")
    assert result["simulate"]["steps"] == 5 and result["export"]["bundle"] == str(output / "bundle")
    (output / "letter.txt").write_text("dear you")
    assert "letter.txt" in lcsb_error(2, *arguments, "--force")
    assert (output / "letter.txt").read_text() == "dear you" and (output / "bundle").is_dir()


def small_export(**options: Any) -> ExportOptions:
    from lcsb_mobile.config import LoraConfig, QuantizationConfig
    from lcsb_mobile.schedule import ScheduleConfig

    return ExportOptions(
        **options, lora=LoraConfig(4), quantization=QuantizationConfig(group_size=8), schedule=ScheduleConfig(subsets=3), seq_len=32
    )


def test_quickstart_replaces_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    assert "thesis.tex" in lcsb_error(2, "quickstart", "--output", tmp_path / "home", "--force")
    (tmp_path / "file").write_text("x")
    assert "file" in lcsb_error(2, "quickstart", "--output", tmp_path / "file", "--force")
    assert (tmp_path / "home" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "x"
    assert "steps" in lcsb_error(2, "quickstart", "--output", tmp_path / "new", "--steps", 0)
    assert not (tmp_path / "new").exists()


# The command line itself


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: lcsb {verb}" in lcsb(verb, "--help")


def test_defaults_are_the_dataclasses() -> None:
    """Shown in the help, so read from there: no number of its own."""
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", lcsb("export", "--help")).split())
    options = ExportOptions(model="", output=Path())
    for name, value in (("rank", options.lora.rank), ("seq-len", options.seq_len), ("group-size", options.quantization.group_size)):
        assert re.search(rf"--{name} <int> [^-]*\[default: {value}\]", shown), name
    assert SimulateOptions(Path(), Path(), 1, Path()).evaluate_every == 0


def test_version() -> None:
    assert metadata.version("lcsb_mobile") in lcsb("--version")


def test_usage_errors_exit_with_2(tmp_path: Path) -> None:
    for arguments in (
        ["simulate"],
        ["frobnicate"],
        ["export", "tiny", "--output", "x", "--method", "best"],
        ["verify", "x", "--rank", "2"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 and "Traceback" not in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for arguments in (["--debug", "verify", str(tmp_path / "x")], ["verify", str(tmp_path / "x"), "--debug"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 and "Traceback" in result.stderr
    assert "not a bundle" in lcsb_error(2, "verify", tmp_path / "x")  # --debug does not outlast its command


def test_an_unexpected_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr("lcsb_mobile.cli.verify.verify_bundle", fail)
    line = lcsb_error(1, "verify", tmp_path)
    assert line == "error: ZeroDivisionError: first second; run again with --debug for the traceback"


def test_a_long_error_is_one_line(tmp_path: Path) -> None:
    name = "[red]" + "x" * 180  # markup in a path is text
    assert f"{name}: not a bundle" in lcsb_error(2, "verify", tmp_path / name)


# What a process imports, and how it ends


def test_help_is_quick_and_without_torch() -> None:
    started = time.perf_counter()
    done = python("import sys; import lcsb_mobile.cli; print(*sys.modules)")
    assert time.perf_counter() - started < 10  # on a machine that others use
    assert {"lcsb_mobile.cli.simulate"} <= set(done.stdout.split())
    assert not {"torch", "onnxruntime", "matplotlib", "transformers", "lcsb_mobile.export"} & set(done.stdout.split())


def test_device_verbs_do_not_import_the_export_half(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """`onnxruntime.training` imports torch by itself; nothing of ours may."""
    program = """
import sys
from lcsb_mobile.cli import app
arguments = sys.argv[1:]
simulate = ["simulate", "--steps", "1", "--data", arguments[1], "--adapter", arguments[2]]
for verb in (["inspect"], ["verify"], simulate, ["generate", "--prompt", "x"]):
    assert not app([verb[0], arguments[0], *verb[1:]], standalone_mode=False)
print("loaded", *sys.modules)
"""
    done = python(program, random_bundle.bundle, messages, tmp_path / "a.safetensors")
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.rpartition("loaded")[2].split()
    assert not {"lcsb_mobile.export", "lcsb_mobile.blocks", "lcsb_mobile.checkpoint", "lcsb_mobile.runners.eager"} & set(loaded)


BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from lcsb_mobile.cli import app
app(sys.argv[2:])
"""


@pytest.mark.parametrize(("package", "extra"), [("onnxruntime", "onnxruntime-training"), ("torch", "export")])
def test_a_missing_runtime_is_named(random_bundle: RandomBundle, tmp_path: Path, package: str, extra: str) -> None:
    arguments = (
        ("verify", random_bundle.bundle) if package == "onnxruntime" else ("export", random_bundle.checkpoint, "--output", tmp_path / "b")
    )
    done = python(BLOCKED, package, *arguments)
    assert done.returncode == 2
    line = one_error(done.stdout, done.stderr)
    assert package in line and f"pip install 'lcsb_mobile[{extra}]'" in line


def test_interrupt_keeps_the_adapter(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """SIGINT once the first evaluation is over."""
    adapter = tmp_path / "adapter.safetensors"
    command = [sys.executable, "-c", MAIN, "simulate", str(random_bundle.bundle), "--data", str(messages), "--adapter", str(adapter)]
    with subprocess.Popen(
        [*command, "--steps", "20000"],  # half a minute, should the signal get lost
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell lets its background jobs ignore it
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("evaluation loss"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
    assert process.returncode == 130
    assert re.fullmatch(rf"stopped: after step \d+; the adapter is in {re.escape(str(adapter))}\n", stderr)
    load_adapter(adapter, Bundle.open(random_bundle.bundle).manifest.adapter)


def test_interrupt_before_the_first_step(
    random_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lcsb_mobile.simulate.check_first_step", interrupt)
    result = CliRunner().invoke(
        app, ["simulate", str(random_bundle.bundle), "--data", str(messages), "--steps", "1", "--adapter", str(tmp_path / "a")]
    )
    assert result.exit_code == 130 and "stopped: before the first step ended" in result.stderr
    assert not (tmp_path / "a").exists()


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


def left_behind(directory: Path, name: str) -> list[str]:
    """Files of an output that should not be there, temporary ones included."""
    return [path.name for path in directory.iterdir() if name in path.name]


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
        (("--target", "coreml"), "coreml"),
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
        ('{"text": "good"}\n{"text": 5}\n', ":2: Expected `str`"),
        ('{"text": "good"}\n\n', ":2: a blank line"),
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
    from lcsb_mobile.files import sha256

    return {"size": path.stat().st_size, "sha256": sha256(path)}


def edit_manifest(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    edit(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


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
    assert re.search(r"step \d: the loss is", line) and str(adapter) in line
    load_adapter(adapter, Bundle.open(random_bundle.bundle).manifest.adapter)  # which refuses NaN


def test_memory_budget_is_refused_before_the_start(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    arguments = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", tmp_path / "a", "--memory-budget", "2MB")
    line = lcsb_error(2, *arguments)
    assert "predicted" in line and not (tmp_path / "a").exists()


def test_memory_budget_is_exceeded(random_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that was wrong: the run stops after the step and keeps the adapter."""
    monkeypatch.setattr("lcsb_mobile.simulate.check_budget", lambda manifest, base, budget: 1)
    arguments = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 9, "--adapter", tmp_path / "a", "--memory-budget", "2MB")
    line = lcsb_error(1, *arguments)
    assert "step 1: " in line and "2.0 MB" in line and str(tmp_path / "a") in line
    load_adapter(tmp_path / "a", Bundle.open(random_bundle.bundle).manifest.adapter)


# Disks that fill up, and processes that are killed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_disk(random_bundle: RandomBundle, small_disk: Path, messages: Path) -> None:
    assert "No space left" in lcsb_error(1, "export", random_bundle.checkpoint, "--output", small_disk / "b", *EXPORT)
    assert list(small_disk.iterdir()) == []
    (small_disk / "filler").write_bytes(bytes(50_000))
    run = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 1, "--adapter", small_disk / "a")
    assert "No space left" in lcsb_error(1, *run)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_files_that_may_not_grow(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """The same without root: a limit of 64 KB a file."""
    limit = 1 << 16
    done = python(
        *(MAIN, "export", random_bundle.checkpoint, "--output", tmp_path / "b", *EXPORT),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "cannot be written" in one_error(done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_may_not_be_written(random_bundle: RandomBundle, tmp_path: Path, messages: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in lcsb_error(1, "export", random_bundle.checkpoint, "--output", tmp_path / "file" / "b", *EXPORT)


@pytest.mark.parametrize("seconds", [0.1, 1.5])
def test_a_killed_export_leaves_nothing(random_bundle: RandomBundle, tmp_path: Path, seconds: float) -> None:
    """SIGKILL at some moment after the temporary directory was made; then an export to the same place."""
    output = tmp_path / "b"
    arguments = ["export", str(random_bundle.checkpoint), "--output", str(output), *(str(option) for option in EXPORT)]
    with subprocess.Popen([sys.executable, "-c", MAIN, *arguments], stderr=subprocess.DEVNULL) as process:
        while not left_behind(tmp_path, ".b.") and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
    if output.exists():  # it was quicker
        Bundle.open(output)
        shutil.rmtree(output)
    for name in left_behind(tmp_path, ".b."):
        assert "not a bundle" in lcsb_error(2, "verify", tmp_path / name)
    lcsb(*arguments)
    Bundle.open(output)


def test_quickstart_on_tiny(tmp_path: Path) -> None:
    """What `make demo` shows: the loss falls by 15 %."""
    result = lcsb_json("quickstart", "--output", tmp_path / "demo")["simulate"]
    assert result["eval_loss_after"] <= 0.85 * result["eval_loss_before"]
    assert len(result["samples"]) == 2 and tiny.MESSAGES.is_file()
