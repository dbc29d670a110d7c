"""Programs that somebody else wrote: what is checked before ONNX Runtime is given one, and what comes of its own refusals. How much memory
reading a bundle may take at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import read_within
from helpers.bundles import RandomBundle
from helpers.hostile import replace

from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Arena
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import BundleError, LcsbError, MemoryBudgetError, RunFailure, RuntimeVersionError
from lcsb_mobile.runners import make_runner, sessions
from lcsb_mobile.runners.decoding import whole_sequence
from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner
from lcsb_mobile.runners.sessions import program_path, session_options

BATCH: Batch = whole_sequence([1, 2, 3], 32)
LABELLED = Batch(BATCH.input_ids, np.where(np.arange(32) < 2, 5, -100), BATCH.position_ids, BATCH.segment_ids)
OUTSIDE = Batch(np.full(32, 10**6), LABELLED.labels, BATCH.position_ids, BATCH.segment_ids)


def change_program(bundle: Path, name: str, change: Any) -> None:
    model = onnx.load(bundle / name, load_external_data=False)
    change(model.graph)
    replace(bundle, name, model.SerializeToString())


def add_external(graph: onnx.GraphProto, location: str, name: str = "added") -> None:
    tensor = graph.initializer.add(name=name, data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)


def error_of(bundle: Path, batch: Batch = LABELLED) -> LcsbError:
    """Of a loss, by the runner of the bundle's target."""
    opened = Bundle.open(bundle)
    with pytest.raises(LcsbError) as error:
        make_runner(opened, threads=1).evaluate(batch, opened.initial_adapter())
    assert str(error.value).isprintable()
    return error.value


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_data_elsewhere(bundle: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    refuses_data_elsewhere(bundle, "embed.onnx", location, monkeypatch)


@pytest.mark.training_api
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("name", ["training_model.onnx", "eval_model.onnx"])
def test_data_elsewhere_in_training_programs(training_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, location: str) -> None:
    refuses_data_elsewhere(training_bundle, name, location, monkeypatch)


def refuses_data_elsewhere(bundle: Path, name: str, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a session is made."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    change_program(bundle, name, lambda graph: add_external(graph, location))
    error = error_of(bundle)
    assert type(error) is BundleError and f"{name}: 'added' has its data in {location!r}, expected 'weights.bin'" in str(error)


@pytest.mark.training_api
def test_data_elsewhere_in_programs_that_are_loaded_later(training_bundle: Path) -> None:
    for name in ("logits_model", "optimizer_model"):
        change_program(training_bundle, f"{name}.onnx", lambda graph: add_external(graph, "../secret"))
        with pytest.raises(BundleError, match=rf"{name}\.onnx: 'added' has its data in '../secret'"):
            program_path(Bundle.open(training_bundle), name, None)
    opened = Bundle.open(training_bundle)
    runner = OnnxRuntimeTrainingRunner(opened, threads=1)
    with pytest.raises(BundleError, match=r"logits_model\.onnx: 'added'"):
        runner.next_logits(BATCH, 0, opened.initial_adapter())
    with pytest.raises(BundleError, match=r"optimizer_model\.onnx: 'added'"):
        runner.official_losses([], [], 1e-3)


def test_weights_in_programs_that_are_fed_theirs(bundle: Path) -> None:
    """Only what the manifest lists as a program's initializers may lie in weights.bin."""
    change_program(bundle, "embed.onnx", lambda graph: add_external(graph, "weights.bin"))
    assert "embed.onnx: 'added' has its data outside the program, expected no tensor to have" in str(error_of(bundle))


def test_other_inputs_than_the_manifest_says(bundle: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 31

    change_program(bundle, "embed.onnx", change)
    error = error_of(bundle)
    assert type(error) is BundleError and "embed.onnx: other than the manifest says: inputs: 'input_ids': expected int64 [32]" in str(error)
    assert "outputs: 'h': expected float32 [32, 48], found float32 [31, 48]" in str(error)


@pytest.mark.training_api
def test_inputs_of_the_training_programs(training_bundle: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        first, second = (onnx.ValueInfoProto.FromString(x.SerializeToString()) for x in graph.input[:2])
        graph.input[0].CopyFrom(second)
        graph.input[1].CopyFrom(first)

    change_program(training_bundle, "training_model.onnx", change)
    assert "expected programs that take ('input_ids', 'labels'" in str(error_of(training_bundle))


def evil(graph: onnx.GraphProto) -> None:
    graph.node[0].domain = "evil"


def test_an_operator_of_nobody(bundle: Path) -> None:
    change_program(bundle, "embed.onnx", evil)
    assert type(error_of(bundle)) is RuntimeVersionError


@pytest.mark.training_api
def test_an_operator_of_nobody_in_training_programs(training_bundle: Path) -> None:
    change_program(training_bundle, "eval_model.onnx", evil)
    error = error_of(training_bundle)
    assert type(error) is BundleError and "the programs cannot be loaded: " in str(error)


def test_what_fails_when_it_runs(bundle: Path) -> None:
    error = error_of(bundle, OUTSIDE)
    assert type(error) is RunFailure and "embed.onnx: onnxruntime" in str(error) and "cannot run" in str(error)


@pytest.mark.training_api
def test_what_fails_when_the_training_api_runs_it(training_bundle: Path) -> None:
    error = error_of(training_bundle, OUTSIDE)
    assert type(error) is RunFailure and f"{training_bundle}: onnxruntime-training" in str(error) and "cannot run" in str(error)
    opened = Bundle.open(training_bundle)
    with pytest.raises(RunFailure, match="cannot run its programs"):
        OnnxRuntimeTrainingRunner(opened, threads=1).step(Subset((0,), (0,)), OUTSIDE, opened.initial_adapter())


@pytest.mark.training_api
def test_a_checkpoint_of_something_else(training_bundle: Path) -> None:
    content = (training_bundle / "checkpoint").read_bytes()
    replace(training_bundle, "checkpoint", content.replace(b"adapter\0", b"bdapter\0"))
    assert "checkpoint: not a checkpoint of this bundle's adapter: expected the parameter 'adapter'" in str(error_of(training_bundle))


class Runtime:
    """Stands in for onnxruntime: its arena's size is an int32."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.sizes = fails, list[int]()

    def __getattr__(self, name: str) -> Any:
        return type("Anything", (), {"__init__": lambda *_: None, "ORT_ARENA_ALLOCATOR": 0, "DEFAULT": 0})

    def SessionOptions(self) -> Any:
        return onnxruntime.SessionOptions()

    def OrtArenaCfg(self, most: int, strategy: int, initial_bytes: int, dead: int) -> None:
        onnxruntime.OrtArenaCfg(most, strategy, initial_bytes, dead)
        self.sizes.append(initial_bytes)

    def create_and_register_allocator(self, *_: Any) -> None:
        if self.fails:
            raise RuntimeError("bad allocation")


def test_an_arena_beyond_what_the_runtime_counts(random_bundle: RandomBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_with_arena", [])
    settings = msgspec.structs.replace(Bundle.open(random_bundle.bundle).manifest.runtime, arena=Arena(2**36))
    runtime = Runtime()
    session_options(runtime, settings, None)
    assert runtime.sizes == [2**31 - 1]
    with pytest.raises(MemoryBudgetError, match="onnxruntime cannot reserve its arena of 68719476736 bytes: bad allocation"):
        session_options(Runtime(fails=True), settings, None)


# Memory

WITHIN = 200 * 2**20  # beyond what the process has before


def test_memory_of_reading(bundle: Path) -> None:
    """The largest manifest and trace that are read at all, filled with what is smallest in a file and largest in memory."""
    command = [sys.executable, read_within.__file__, str(bundle), str(WITHIN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr
