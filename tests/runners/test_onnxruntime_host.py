"""The host loop of target `onnxruntime`: its buffers, cancelling in mid-step, weights fed in place, one arena for all sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from helpers.captured import TILE
from helpers.onnxruntime_bundles import DEFAULTS, Exported, MakeExported
from helpers.tiny_models import ARCHITECTURES, packed_batch, subset

from lcsb_mobile.bundle.batch import StepResult
from lcsb_mobile.bundle.manifest import Arena
from lcsb_mobile.errors import BundleError, RuntimeVersionError
from lcsb_mobile.runners.block_programs import layer_weights
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.onnxruntime import OnnxRuntime, ort_values
from lcsb_mobile.runners.sessions import session_options
from lcsb_mobile.training.optimizer import AdamW

STEPS = [subset([0, 1, 2]), subset([1]), subset([0], [1]), subset([2]), subset([0, 2]), subset([1], [2])]


def open_runner(case: Exported, keep: int = 0) -> BlockRunner:
    return BlockRunner(case.bundle, OnnxRuntime(case.bundle, 1), keep)


def copied(result: StepResult) -> StepResult:
    return StepResult(result.loss, {layer: gradient.copy() for layer, gradient in result.gradients.items()})


def assert_same(found: StepResult, expected: StepResult) -> None:
    """Bit for bit: the same programs on the same numbers."""
    assert found.loss == expected.loss and list(found.gradients) == list(expected.gradients)
    assert all(np.array_equal(gradient, expected.gradients[layer]) for layer, gradient in found.gradients.items())


# Buffers


@pytest.mark.parametrize("keep", [0, 2])
def test_steps_do_not_depend_on_each_other(programs: MakeExported, keep: int) -> None:
    """Smaller subsets after larger ones and the reverse, evaluations and updates between them: each step is that of a fresh runner."""
    case = programs("llama", tile=TILE)
    fresh = [copied(open_runner(case, keep).step(step, packed_batch(seed), case.adapter + seed)) for seed, step in enumerate(STEPS)]
    runner = open_runner(case, keep)
    for order in (range(len(STEPS)), reversed(range(len(STEPS)))):
        for seed in order:
            assert_same(runner.step(STEPS[seed], packed_batch(seed), case.adapter + seed), fresh[seed])
            runner.evaluate(packed_batch(9), case.adapter - 1)


def test_a_result_lasts_until_the_next_step(programs: MakeExported) -> None:
    """What StepResult promises: evaluating, asking for logits, generating and updating change nothing of it."""
    case = programs("gemma3", tile=TILE)
    runner, adapter = open_runner(case, 1), case.adapter.copy()
    result = runner.step(subset([0, 2]), packed_batch(), adapter)
    before = copied(result)
    runner.evaluate(packed_batch(1), adapter + 1)
    runner.next_logits(packed_batch(2), 3, adapter)
    runner.decoder(adapter).start([5, 6, 7])
    layout = case.model.layout
    AdamW(adapter, layout.slices, DEFAULTS, runner.update_layer).update(result.gradients, 1e-3)
    assert_same(result, before)
    assert not np.array_equal(layout.vectors(adapter)[0], layout.vectors(case.adapter)[0])


def test_nothing_is_written_to_what_is_given(programs: MakeExported) -> None:
    case, batch = programs("llama", tile=TILE), packed_batch()
    runner, weights = open_runner(case, 1), (case.bundle.path / "weights.bin").read_bytes()
    adapter = case.adapter.copy()
    runner.step(subset([0, 1, 2]), batch, adapter)
    runner.evaluate(batch, adapter)
    assert np.array_equal(adapter, case.adapter)
    for name in ("input_ids", "labels", "position_ids", "segment_ids"):
        assert np.array_equal(getattr(batch, name), getattr(packed_batch(), name))
    table = case.model.table[-1]
    assert case.bundle.weights[table.name].tobytes() == weights[table.offset : table.offset + table.nbytes]
    assert (case.bundle.path / "weights.bin").read_bytes() == weights


# Between the layers


class Cancelled(Exception):
    pass


def test_between_layers_is_called_before_each_program_of_a_layer(programs: MakeExported) -> None:
    """A forward has three layers and the head; a backward as many as it propagates through."""
    runner = open_runner(programs("llama", tile=TILE))
    calls: list[int] = []
    runner.programs.between_layers = lambda: calls.append(1)
    for step, backward in ((subset([0, 1, 2]), 3), (subset([2]), 1), (subset([1], [0, 1, 2]), 2)):
        calls.clear()
        runner.step(step, packed_batch(), programs("llama", tile=TILE).adapter)
        assert len(calls) == 4 + backward


@pytest.mark.parametrize("keep", [0, 1])
def test_a_step_can_be_cancelled_anywhere(programs: MakeExported, keep: int) -> None:
    """At each call: the adapter is as it was, and the next step gives what it would have given."""
    case = programs("llama", tile=TILE)
    runner, adapter, step = open_runner(case, keep), case.adapter.copy(), subset([0, 2])
    expected = copied(runner.step(step, packed_batch(), adapter))
    for last in range(6):
        left = last

        def cancel() -> None:
            nonlocal left
            if left == 0:
                raise Cancelled
            left -= 1

        runner.programs.between_layers = cancel
        with pytest.raises(Cancelled):
            runner.step(subset([0, 1, 2]), packed_batch(3), adapter)
        runner.programs.between_layers = lambda: None
        assert np.array_equal(adapter, case.adapter)
        assert_same(runner.step(step, packed_batch(), adapter), expected)


def test_phases_are_timed(programs: MakeExported) -> None:
    case = programs("llama", tile=TILE)
    runner = open_runner(case)
    result = runner.step(subset([1]), packed_batch(), case.adapter)
    AdamW(case.adapter.copy(), case.model.layout.slices, DEFAULTS, runner.update_layer).update(result.gradients, 1e-3)
    assert set(runner.clock.seconds) == {"embed", "forward", "head", "backward", "optimizer"}


# Weights and sessions


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_fed_in_place(programs: MakeExported, name: str) -> None:
    """What a session reads lies where `weights.bin` is mapped, at the table's offset and the layer's."""
    case = programs(name, tile=TILE)
    bundle, table = case.bundle, {tensor.name: tensor for tensor in case.model.table}
    first = case.model.table[0]
    base = bundle.weights[first.name].ctypes.data - first.offset
    seen = set()
    for graph in bundle.manifest.graphs.values():
        for layer, feeds in layer_weights(bundle, graph.inputs).items():
            described = {x.name: x for x in graph.inputs if x.weight is not None}
            assert feeds.keys() == described.keys()
            for name_of_input, fed in feeds.items():
                tensor = table[described[name_of_input].weight]
                size = tensor.nbytes // (tensor.shape[0] if tensor.per_layer else 1)
                assert tensor.per_layer == (layer is not None)
                assert fed.ctypes.data == base + tensor.offset + (0 if layer is None else bundle.manifest.layers[layer].number * size)
                assert fed.shape == described[name_of_input].shape
                seen.add((tensor.name, layer))
    layers = case.model.config.num_hidden_layers
    assert seen >= {(t.name, layer) for t in case.model.table if t.per_layer for layer in range(layers)}


def test_inputs_are_fed_in_place() -> None:
    """Adapter, labels and buffers: an OrtValue over an array is the array."""
    array = np.zeros((3, 4), np.float32)
    assert ort_values(onnxruntime, {"a": array})["a"].data_ptr() == array.ctypes.data


class Runtime:
    """ONNX Runtime, but for the registration of an allocator, which a process can make once."""

    OrtMemoryInfo, OrtAllocatorType, OrtMemType = onnxruntime.OrtMemoryInfo, onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
    SessionOptions, OrtArenaCfg = onnxruntime.SessionOptions, onnxruntime.OrtArenaCfg

    def __init__(self) -> None:
        self.registered: list[Any] = []

    def create_and_register_allocator(self, memory: Any, config: Any) -> None:
        self.registered.append(config)


def test_sessions_use_the_manifests_settings_and_one_arena(programs: MakeExported) -> None:
    """The allocator is registered once, however many sessions there are."""
    settings, runtime = programs("llama", tile=TILE).bundle.manifest.runtime, Runtime()
    made = [session_options(runtime, settings, threads) for threads in (1, 3, None)]
    assert len(runtime.registered) == 1
    assert [options.intra_op_num_threads for options in made] == [1, 3, 0]
    for options in made:
        assert options.get_session_config_entry("session.use_env_allocators") == "1"
        for key, entry in settings.session_config.items():
            assert options.get_session_config_entry(key) == entry


def test_a_process_has_one_arena_whatever_runs_in_it(programs: MakeExported) -> None:
    """ONNX Runtime refuses a second one: a bundle that asks for another size, or the runner of the training API, takes the first."""
    settings, runtime = programs("llama", tile=TILE).bundle.manifest.runtime, Runtime()
    session_options(runtime, settings, 1)
    session_options(runtime, msgspec.structs.replace(settings, arena=Arena(initial_bytes=2**20)), 1)
    assert len(runtime.registered) == 1


def test_a_program_is_loaded_when_it_is_first_run(programs: MakeExported, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a training step loads no program of generation, and each program is loaded once."""
    case = programs("llama", tile=TILE)
    loaded: list[str] = []
    session = onnxruntime.InferenceSession

    def record(path: Path, *arguments: Any, **options: Any) -> Any:
        loaded.append(path.stem)
        return session(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    runner = open_runner(case)
    assert loaded == []
    for _ in range(2):
        runner.step(subset([0, 2]), packed_batch(), case.adapter)
    assert loaded == ["embed", "block_forward", "head", "block_backward"]


def test_a_broken_program_is_named(programs: MakeExported, tmp_path: Path) -> None:
    case = programs("llama", tile=TILE)
    bundle = type(case.bundle)(tmp_path, case.bundle.manifest)
    (tmp_path / "weights.bin").symlink_to(case.bundle.path / "weights.bin")
    for content, error, reason in (
        (b"not a model", BundleError, "not an ONNX file"),
        (b"", RuntimeVersionError, "onnxruntime [0-9.]+.* cannot load it"),
    ):
        (tmp_path / "embed.onnx").write_bytes(content)
        with pytest.raises(error, match=rf"embed\.onnx: {reason}"):
            BlockRunner(bundle, OnnxRuntime(bundle, 1)).evaluate(packed_batch(), case.adapter)


def test_the_head_computes_counted_positions_alone(programs: MakeExported, tmp_path: Path) -> None:
    """Its products have a row for each counted label, by ONNX Runtime's own record of the shapes."""
    case, batch = programs("llama", tile=TILE), packed_batch()
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix, options.log_severity_level = True, str(tmp_path / "profile"), 3
    graph = case.bundle.manifest.graphs["head"]
    session = onnxruntime.InferenceSession(case.bundle.path / graph.file, options, providers=["CPUExecutionProvider"])
    feeds = {x.name: case.bundle.weights[x.weight] for x in graph.inputs if x.weight is not None}
    session.run(None, feeds | {"h": np.ones((20, 48), np.float32), "labels": batch.labels})
    events = json.loads(Path(session.end_profiling()).read_text())
    shapes = [
        e["args"]["output_type_shape"][0]["float"]
        for e in events
        if e.get("args", {}).get("op_name") in ("Gemm", "MatMul") and "output_type_shape" in e["args"]
    ]
    assert len(shapes) >= 6 and {shape[0] for shape in shapes} == {batch.counted_labels} and batch.counted_labels < 12
