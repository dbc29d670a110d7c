"""The verbs on target `onnxruntime-training`: one program a step, so nothing is kept and a budget is watched between two steps."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_json, small_export
from helpers.checkpoints import write_checkpoint

import lcsb_mobile.cli.quickstart as quickstart_module
import lcsb_mobile.runs.setup as run_setup_module
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import BundleError, MemoryBudgetError, MemoryBudgetExceeded, OptionError
from lcsb_mobile.planning.plan import Plan
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.checkpoint import checkpoint_files, read_checkpoint
from lcsb_mobile.runs.setup import SimulateOptions
from lcsb_mobile.runs.simulate import simulate

pytestmark = pytest.mark.training_api


@pytest.fixture
def options(random_training_bundle: RandomBundle, messages: Path, tmp_path: Path) -> SimulateOptions:
    adapter = tmp_path / "adapter.safetensors"
    return SimulateOptions(random_training_bundle.bundle, messages, steps=4, adapter=adapter, threads=1, learning_rate=0.01)


def test_the_whole_way(tmp_path: Path, messages: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "gemma3_text", tied=True)
    bundle, adapter = tmp_path / "bundle", tmp_path / "adapter.safetensors"
    exported = lcsb_json("export", checkpoint, "--target", "onnxruntime-training", "--output", bundle, *EXPORT)
    assert exported["target"] == "onnxruntime-training"
    assert Bundle.open(bundle).manifest.tools["onnxruntime-training-cpu"] == "1.19.2"
    assert "Steps of the cycle" in lcsb("inspect", bundle)
    assert "verified" in lcsb("verify", bundle, "--eager")
    run = lcsb_json("simulate", bundle, "--data", messages, "--eval-data", messages, "--steps", 20, "--lr", 0.01, "--adapter", adapter)
    assert (run["runtime"], run["runtime_version"]) == ("onnxruntime-training", "1.19.2")
    assert run["eval_loss_after"] < 0.9 * run["eval_loss_before"]
    base, adapted = (lcsb("generate", bundle, "--prompt", "the ", "--temperature", 0, *more) for more in ((), ("--adapter", adapter)))
    assert base.startswith("the ") and adapted.startswith("the ") and base != adapted


def test_quickstart(random_training_bundle: RandomBundle, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart_module, "ExportOptions", small_export)
    arguments = ("--target", "onnxruntime-training", "--output", tmp_path / "demo", "--data", messages, "--steps", 3)
    result = lcsb_json("quickstart", "--model", random_training_bundle.checkpoint, *arguments)
    assert result["export"]["target"] == result["simulate"]["target"] == "onnxruntime-training"
    assert result["simulate"]["steps"] == 3


def test_bench(random_training_bundle: RandomBundle) -> None:
    options = ("--methods", "full", "--subsets", 3, "--rounds", 1, "--threads", 1)
    (row,) = lcsb_json("bench", random_training_bundle.bundle, *options)
    assert (row["target"], row["runtime"], row["runtime_version"]) == ("onnxruntime-training", "onnxruntime-training", "1.19.2")


def test_a_resumed_run(options: SimulateOptions, tmp_path: Path) -> None:
    whole = simulate(options).result
    expected = options.adapter.read_bytes()
    options = dataclasses.replace(options, checkpoint_directory=tmp_path / "run", force=True)
    simulate(dataclasses.replace(options, steps=2))
    assert simulate(dataclasses.replace(options, resume=True)).result.losses == whole.losses
    assert options.adapter.read_bytes() == expected
    newest = read_checkpoint(checkpoint_files(tmp_path / "run")[0], Bundle.open(options.bundle).manifest.adapter)
    assert newest.place.runtime.startswith("onnxruntime-training 1.19.2")


def test_fifty_kills(random_training_bundle: RandomBundle, messages: Path) -> None:
    script = Path(__file__).parents[2] / "scripts/testing/kill_test.py"
    command = [sys.executable, str(script), str(random_training_bundle.bundle), "--data", str(messages), "--kills", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 50 and figures["runs"] >= 2 and figures["faults"] == []
    assert 0 < figures["early"] < figures["kills"]


def test_a_budget(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused where the prediction says so; stopped after the first step, whose update gave no loss yet, where the
    prediction was wrong."""
    with pytest.raises(MemoryBudgetError, match=r"at least [\d.,]+ MB, .* nothing was run"):
        simulate(dataclasses.replace(options, memory_budget=1_000_000))
    assert not options.adapter.exists()
    monkeypatch.setattr(run_setup_module, "plan_run", lambda *_: Plan(0, 1, 1))
    with pytest.raises(MemoryBudgetExceeded, match=r"step 1: .* more than the 1\.0 MB"):
        simulate(dataclasses.replace(options, memory_budget=1_000_000))
    bundle = Bundle.open(options.bundle)
    assert np.array_equal(load_adapter(options.adapter, bundle.manifest.adapter), bundle.initial_adapter())


def test_nothing_is_kept(options: SimulateOptions) -> None:
    with pytest.raises(OptionError, match="keep: .*onnxruntime-training"):
        simulate(dataclasses.replace(options, keep=1))
    assert simulate(dataclasses.replace(options, memory_budget=10**12, steps=1)).result.kept_layers == 0


def test_a_bundle_of_another_target(options: SimulateOptions) -> None:
    with pytest.raises(BundleError, match="expected a bundle of target onnxruntime, found onnxruntime-training"):
        make_runner(Bundle.open(options.bundle), "onnxruntime")
