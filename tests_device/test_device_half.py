"""The device half on target `onnxruntime`, as a device has it: from bundles, through processes of their own, without torch."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import EXPORT_HALF, python

from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import INT8_TOLERANCE, RUN_TOLERANCE, STEP_TOLERANCE, read_trace

STEPS = 4
MESSAGES = (
    "the train was late again",
    "two boats on the canal",
    "it had started to rain",
    "the washing is on the line",
    "i owe you a letter",
    "nothing much happened",
)
LCSB = "from lcsb_mobile.cli import main; sys.argv[0] = 'lcsb'; main()"

# One step and its batch's evaluation, and what was imported for them.
STEP = """
import json
from pathlib import Path
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.runners import make_runner
bundle = Bundle.open(Path(sys.argv[1]))
trace, adapter, runner = read_trace(bundle.golden_path), bundle.initial_adapter(), make_runner(bundle, threads=1)
batch = trace.batches[trace.run[0].batch].batch()
loss, evaluated = runner.step(trace.run[0].subset, batch, adapter).loss, runner.evaluate(batch, adapter)
print(json.dumps({"loss": loss, "evaluated": evaluated, "modules": sorted(sys.modules)}))
"""


def lcsb_json(directory: Path, *arguments: object) -> Any:
    text = python(directory, LCSB, *arguments, "--json")
    assert text.count("\n") == 1  # one object, and nothing else on standard output
    return json.loads(text)


def simulate(bundle: Path, directory: Path, steps: int) -> tuple[dict[str, Any], Path]:
    data, adapter = directory / "messages.jsonl", directory / "adapter.safetensors"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in MESSAGES), encoding="utf-8")
    options = ("--data", data, "--eval-data", data, "--steps", steps, "--lr", 0.01, "--adapter", adapter, "--threads", 1, "--force")
    return lcsb_json(directory, "simulate", bundle, *options), adapter


# The bundles


def test_bundles_are_of_every_kind(bundles: list[Path]) -> None:
    """So that no test below passes for want of something to test."""
    manifests = [Bundle.open(path).manifest for path in bundles]
    assert {manifest.target for manifest in manifests} == {"onnxruntime"}
    models = [manifest.model for manifest in manifests]
    kinds = {(model.model_type, model.tie_word_embeddings) for model in models}
    one_kind = {(name, tied) for name in ("llama", "qwen2", "qwen3", "gemma3_text") for tied in (True, False)} | {("phi3", True)}
    one_kind |= {(name, True) for name in ("gemma2", "granite", "smollm3")}
    assert kinds == one_kind | {("lfm2", True), ("qwen3_5_text", True)}
    assert all((len(manifest.kinds) == 1) == (manifest.model.model_type in dict(one_kind)) for manifest in manifests)
    assert {state.by_position for manifest in manifests for kind in manifest.kinds for state in kind.state} == {True, False}
    assert all(model.num_key_value_heads < model.num_attention_heads for model in models)
    assert {manifest.quantization.bits for manifest in manifests} == {4, 8}
    assert {manifest.quantization.embedding_bits for manifest in manifests} == {4, 8}
    assert {manifest.accuracy_level for manifest in manifests} == {0, 4}
    assert any(kind.window is not None for model in models for kind in model.attention_kinds.values())


def test_every_weight_that_a_program_wants_is_there(bundle: Path) -> None:
    """An input that names a tensor of `weights.bin` has its type and its shape, or that of a layer's slice."""
    manifest = Bundle.open(bundle).manifest
    table = {tensor.name: tensor for tensor in manifest.weights}
    named = [tensor for graph in manifest.graphs.values() for tensor in graph.inputs if tensor.weight is not None]
    assert named
    for tensor in named:
        found = table[tensor.weight or ""]
        shape = found.shape[1:] if found.per_layer else found.shape
        assert (tensor.dtype, tensor.shape) == (found.dtype, shape), tensor.name


# The golden trace (law 4)


def test_the_golden_trace_holds(bundle: Path, tmp_path: Path) -> None:
    found = lcsb_json(tmp_path, "verify", bundle, "--threads", 1)
    assert found["runtime"] == "onnxruntime"
    trace = read_trace(Bundle.open(bundle).golden_path)
    assert found["steps"] == len(trace.steps) + len(trace.run) and trace.steps
    assert 0 <= found["step_loss"] <= trace.step_tolerance
    assert 0 <= found["step_gradient_norm"] <= trace.step_tolerance
    assert 0 <= found["run_loss"] <= trace.run_tolerance


def test_tolerances(bundle: Path) -> None:
    """A bundle says itself how far a runtime may be off; only where activations are rounded to int8 is that much."""
    opened = Bundle.open(bundle)
    trace = read_trace(opened.golden_path)
    rounded = opened.manifest.accuracy_level == 4
    assert trace.step_tolerance == (INT8_TOLERANCE if rounded else STEP_TOLERANCE)
    assert trace.run_tolerance == (INT8_TOLERANCE if rounded else RUN_TOLERANCE)


def test_a_trace_runs_for_20_steps_and_two_cycles(bundles: list[Path]) -> None:
    """With momentum moving the layers that a step does not train."""
    opened = [Bundle.open(path) for path in bundles]
    long = [b for b in opened if len(read_trace(b.golden_path).run) >= max(20, 2 * len(b.manifest.schedule))]
    assert any(b.manifest.optimizer.implicit_updates == "momentum" and len(b.manifest.schedule) > 1 for b in long)


# The other verbs


def test_inspect(bundle: Path, tmp_path: Path) -> None:
    found = lcsb_json(tmp_path, "inspect", bundle)
    assert found["target"] == "onnxruntime"
    assert found["model"]["layers"] == Bundle.open(bundle).manifest.model.num_hidden_layers
    assert str(found["model"]["layers"]) in python(tmp_path, LCSB, "inspect", bundle)


def test_simulate_and_generate(bundle: Path, tmp_path: Path) -> None:
    run, path = simulate(bundle, tmp_path, STEPS)
    assert run["runtime"] == "onnxruntime" and len(run["losses"]) == STEPS
    assert all(math.isfinite(loss) for loss in run["losses"])
    assert run["eval_loss_after"] < run["eval_loss_before"]
    opened = Bundle.open(bundle)
    assert not np.array_equal(load_adapter(path, opened.manifest.adapter), opened.initial_adapter())
    options = ("--prompt", "the ", "--max-tokens", 4, "--temperature", 0, "--threads", 1)
    base, adapted = (lcsb_json(tmp_path, "generate", bundle, *options, *more)["text"] for more in ((), ("--adapter", path)))
    assert isinstance(base, str) and isinstance(adapted, str)
    assert lcsb_json(tmp_path, "generate", bundle, *options, "--adapter", path)["text"] == adapted


def test_a_run_can_be_repeated_bit_for_bit(bundles: list[Path], tmp_path: Path) -> None:
    """Same runtime, same threads."""
    bundle = next(path for path in bundles if path.name == "tiny")
    runs = [simulate(bundle, tmp_path, STEPS) for _ in range(2)]
    assert runs[0][0]["losses"] == runs[1][0]["losses"]


# No torch


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
@pytest.mark.parametrize("name", EXPORT_HALF)
def test_the_export_half_cannot_be_imported(name: str) -> None:
    """What this environment is for."""
    assert importlib.util.find_spec(name) is None


def test_a_step_without_torch(bundle: Path, tmp_path: Path) -> None:
    found = json.loads(python(tmp_path, STEP, bundle))
    trace = read_trace(Bundle.open(bundle).golden_path)
    assert found["loss"] == pytest.approx(trace.run[0].loss, rel=trace.step_tolerance)
    assert found["evaluated"] == pytest.approx(trace.run[0].loss, rel=trace.step_tolerance)
    assert "onnxruntime" in found["modules"]
    assert not set(EXPORT_HALF) & set(found["modules"])
