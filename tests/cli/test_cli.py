"""The command line: the whole way, what it prints, imports and leaves, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, one_error, python, small_export, write_lines
from helpers.checkpoints import write_checkpoint
from helpers.signals import as_usual
from typer.testing import CliRunner

import lcsb_mobile.cli.quickstart as quickstart_module
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.cli import VERBS, app, command_of
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.runs.setup import SimulateOptions

MAIN = "import sys; from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"


# The whole way


def test_the_whole_way(tmp_path: Path, messages: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "gemma3_text", tied=True)
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
        *("export", random_bundle.checkpoint, "--output", tmp_path / "b", "--target", "onnxruntime", "--method", "lcsb-identity"),
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


def test_the_list_of_verbs_says_what_they_say() -> None:
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", lcsb("--help")).split())
    for verb, summary in VERBS.items():
        assert command_of(verb).help.split("\n\n")[0] == summary
        assert f"{verb} {summary}" in shown


def test_defaults_are_the_dataclasses() -> None:
    """Shown in the help, so read from there: no number of its own."""
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", lcsb("export", "--help")).split())
    options = ExportOptions(model="", output=Path())
    for name, value in (("rank", options.lora.rank), ("seq-len", options.seq_len), ("group-size", options.quantization.group_size)):
        assert re.search(rf"--{name} (?:<int>|INTEGER) [^-]*\[default: {value}\]", shown), name
    assert SimulateOptions(Path(), Path(), 1, Path()).evaluate_every == 0


def test_version() -> None:
    assert lcsb("--version") == f"lcsb_mobile {metadata.version('lcsb_mobile')}\n"


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


def test_help_is_shown_without_what_is_heavy() -> None:
    """The list of verbs without NumPy; a verb's help without what runs it."""
    program = "import sys; from lcsb_mobile.cli import app, command_of\n"
    program += (
        "try: app(['--help'])\nexcept SystemExit: print(*sys.modules)\nfor verb in sys.argv[1:]: command_of(verb)\nprint(*sys.modules)"
    )
    done = python(program, *VERBS)
    listed, verbs = (set(line.split()) for line in done.stdout.splitlines()[-2:])
    heavy = {"torch", "onnxruntime", "matplotlib", "transformers", "lcsb_mobile.export"}
    late = {"importlib.metadata", "urllib.request", "asyncio", "jinja2"}  # a tenth of a second together, for what few commands say
    assert "lcsb_mobile.cli.simulate" in verbs and not (heavy | late) & verbs
    assert "typer" in listed and not {"numpy", "tokenizers", "lcsb_mobile.cli.simulate"} & listed


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
    assert not [name for name in loaded if name.startswith("lcsb_mobile.export")]


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


@pytest.mark.parametrize(("package", "extra"), [("onnxruntime", "onnxruntime"), ("torch", "export")])
def test_a_missing_runtime_is_named(random_bundle: RandomBundle, tmp_path: Path, package: str, extra: str) -> None:
    arguments = (
        ("verify", random_bundle.bundle) if package == "onnxruntime" else ("export", random_bundle.checkpoint, "--output", tmp_path / "b")
    )
    done = python(BLOCKED, package, *arguments)
    assert done.returncode == 2
    line = one_error(done.stdout, done.stderr)
    assert package in line and how_to_install(extra) in line


def test_a_target_whose_runtime_is_not_here(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """As in every environment but the one that `training_api` tests run in: said before minutes of work."""
    for verb in (("export", random_bundle.checkpoint), ("quickstart", "--model", random_bundle.checkpoint)):
        line = lcsb_error(2, *verb, "--target", "onnxruntime-training", "--output", tmp_path / "b")
        assert "target onnxruntime-training needs onnxruntime-training 1.19.2" in line
        assert line.endswith(how_to_install("onnxruntime-training")) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("target", "module"), [("coreai", "coreai"), ("coreml", "coremltools")])
def test_a_target_whose_tools_are_not_here(target: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Said before minutes of work."""
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    line = lcsb_error(2, "export", "tiny", "--target", target, "--output", tmp_path / "b")
    assert f"target {target} needs {'coreai-core 1.0.0b3' if target == 'coreai' else 'coremltools 9.0'}" in line
    assert line.endswith(how_to_install(target)) and not list(tmp_path.iterdir())


def begin_run(bundle: Path, messages: Path, adapter: Path, steps: int) -> subprocess.Popen[str]:
    """`lcsb simulate` in a process of its own, once the first evaluation is over."""
    command = [sys.executable, "-c", MAIN, "simulate", str(bundle), "--data", str(messages), "--adapter", str(adapter)]
    process = subprocess.Popen(
        [*command, "--steps", str(steps)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_usual,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("evaluation loss"):
            break
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_the_adapter(random_bundle: RandomBundle, messages: Path, tmp_path: Path, number: signal.Signals) -> None:
    """And more of them, while it is written, change nothing."""
    adapter = tmp_path / "adapter.safetensors"
    with begin_run(random_bundle.bundle, messages, adapter, 20000) as process:  # half a minute, should the signal get lost
        time.sleep(0.5)
        process.send_signal(number)
        for _ in range(20):
            time.sleep(0.002)
            process.send_signal(number)
        assert process.stderr is not None
        stderr = process.stderr.read()
    assert process.returncode == 128 + number
    by = "" if number == signal.SIGINT else f"by {number.name} "
    # The lowest rich that is allowed ends the bar's line even where no bar was drawn.
    assert re.fullmatch(rf"\n?stopped: {by}after step \d+; the adapter is in {re.escape(str(adapter))}\n", stderr)
    load_adapter(adapter, Bundle.open(random_bundle.bundle).manifest.adapter)


def test_nobody_has_to_read_the_progress(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    with begin_run(random_bundle.bundle, messages, tmp_path / "adapter", 50) as process:
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == 0 and (tmp_path / "adapter").exists()


def test_a_loss_that_is_not_finite_says_how_to_go_on(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    """A rate at which the first update is beyond all sense."""
    run = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 4, "--lr", 1e6, "--adapter", tmp_path / "a", "--threads", 1)
    line = lcsb_error(1, *run)
    assert (
        "error: step 1: its update would make a parameter of " in line and "; try a lower learning rate; the adapter after step 0, " in line
    )
    assert line.endswith(f"is in {tmp_path / 'a'}; --initial-adapter begins a run from it")
    kept = ("--checkpoint-dir", tmp_path / "run")
    assert lcsb_error(1, *run, *kept, "--force").endswith("; the same command with --resume and a lower --lr goes on from there")
    result = lcsb_json(*run[:6], "--lr", 1e-3, *run[8:], *kept, "--resume")
    assert result["resumed_from"] == 0 and result["steps"] == 4


def test_interrupt_before_the_first_step(
    random_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lcsb_mobile.runs.simulate.check_first_step", interrupt)
    result = CliRunner().invoke(
        app, ["simulate", str(random_bundle.bundle), "--data", str(messages), "--steps", "1", "--adapter", str(tmp_path / "a")]
    )
    assert result.exit_code == 130 and "stopped: before the first step ended" in result.stderr
    assert not (tmp_path / "a").exists()
