"""The exporter and runner of ONNX Runtime's training API against the eager runner; laws 2, 4 and 6 on its files."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from helpers.tiny_models import ARCHITECTURES, MODELS, MakeTiny, TinyModel, assert_steps_equal, make_tiny, packed_batch, subset

from lcsb_mobile import head
from lcsb_mobile.batch import Batch
from lcsb_mobile.errors import MissingDependencyError, OptionError
from lcsb_mobile.optimizer import AdamW, AdamWConfig, clip_gradients, gradient_norm
from lcsb_mobile.runners.onnxruntime_training import (
    PARAMETER,
    OnnxRuntimeTrainingRunner,
    batch_inputs,
    import_runtime,
    subset_inputs,
)
from lcsb_mobile.schedule import Method, ScheduleConfig, Subset, make_schedule

pytest.importorskip("onnxruntime.training", reason="onnxruntime-training is not installed: pip install 'lcsb_mobile[onnxruntime-training]'")

from helpers.onnxruntime_bundles import Exported, export_tiny

from lcsb_mobile.export import step_graph

# Relative to the largest element of a layer's gradient. float32 on both sides; ONNX Runtime sums its products and softmaxes in
# another order. Measured over 4 batches and 6 subsets of each model: 2e-6, Gemma 1.2e-5 (see test_blocks.py).
TOLERANCE = {"llama": 6e-6, "qwen2": 6e-6, "gemma3_text": 4e-5}

# Law 4, relative, over 24 steps at a rate of 1e-3. Measured: 3.2e-7, Gemma 4.4e-5: AdamW divides an element's gradient by its own
# size, so that where the gradient is hardly more than its rounding error a whole step of the learning rate depends on it.
LOSS_TOLERANCE = {"llama": 2e-6, "qwen2": 2e-6, "gemma3_text": 2e-4}

CHUNK_ROWS = 50  # three chunks of the vocabulary of 131, the last one shorter

DEFAULTS = AdamWConfig()
OTHERS = AdamWConfig(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3, clip_norm=0.5)

MakeExported = Callable[..., Exported]


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "head_rows", lambda hidden_size: CHUNK_ROWS)
        patch.setattr(step_graph, "head_rows", lambda hidden_size: CHUNK_ROWS)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, small_chunks: None) -> MakeExported:
    """`exported(name, bits=4, embedding_bits=8, layers=None, optimizer=DEFAULTS)`."""

    @functools.cache
    def export(name: str, bits: int = 4, embedding_bits: int = 8, layers: int | None = None, optimizer: AdamWConfig = DEFAULTS) -> Exported:
        return export_tiny(make_tiny(tmp_path_factory.mktemp(name), name, bits, embedding_bits, layers), optimizer)

    return export


def open_runner(case: Exported) -> OnnxRuntimeTrainingRunner:
    return OnnxRuntimeTrainingRunner(case.bundle, threads=1)


def some_subsets(layers: int) -> list[Subset]:
    """All layers; single ones from top to bottom; identity, exact and mixed."""
    top = layers - 1
    return [
        subset(range(layers)),
        subset([top]),
        subset([0]),
        subset([0, top]),
        subset([0], range(layers)),
        subset([1], range(1, layers)),
        subset([0], [top]),
        subset([1], [0, 1]),  # what lies below the lowest trained layer does not matter
    ]


# Steps


@pytest.mark.parametrize("bits", [(4, 8), (8, 4)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_steps_equal_the_eager_runner(exported: MakeExported, name: str, bits: tuple[int, int]) -> None:
    case = exported(name, *bits)
    runner, eager, tolerance = open_runner(case), case.model.runner(), TOLERANCE[case.model.config.model_type]
    for seed, step in enumerate(some_subsets(case.model.config.num_hidden_layers)):
        batch, adapter = packed_batch(seed), case.model.adapter(seed)
        found = runner.step(step, batch, adapter)
        assert set(found.gradients) == set(step.train)
        assert_steps_equal(found, eager.step(step, batch, adapter), tolerance)


@pytest.mark.parametrize("bits", [(4, 8), (8, 4)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_evaluate_and_logits_equal_the_eager_runner(exported: MakeExported, name: str, bits: tuple[int, int]) -> None:
    case = exported(name, *bits)
    runner, eager = open_runner(case), case.model.runner()
    batch, adapter = packed_batch(5), case.model.adapter(5)
    assert runner.evaluate(batch, adapter) == pytest.approx(eager.evaluate(batch, adapter), rel=1e-6)
    for position in (0, 6, 15):
        found, expected = runner.next_logits(batch, position, adapter), eager.next_logits(batch, position, adapter)
        assert found.shape == (case.model.config.vocab_size,)
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * float(np.abs(expected).max()))


def test_gradients_of_untrained_layers_are_exactly_zero(exported: MakeExported) -> None:
    case = exported("gemma3")
    runner = open_runner(case)
    runner.step(subset([0, 1, 2, 3]), packed_batch(), case.adapter)
    runner.step(subset([1], [2]), packed_batch(), case.adapter)
    gradient = runner.state.parameters[PARAMETER].grad
    assert [bool(gradient[layer].any()) for layer in range(4)] == [False, True, False, False]


def test_steps_do_not_depend_on_each_other(exported: MakeExported) -> None:
    """Nothing is left over from an evaluation, another subset or another adapter, and the result is not overwritten."""
    case = exported("llama")
    runner = open_runner(case)
    first = runner.step(subset([1, 2]), packed_batch(), case.adapter)
    kept = {layer: gradient.copy() for layer, gradient in first.gradients.items()}
    runner.step(subset([0]), packed_batch(1), case.adapter + 1)
    runner.evaluate(packed_batch(2), case.adapter - 1)
    again = runner.step(subset([1, 2]), packed_batch(), case.adapter)
    assert again.loss == first.loss
    for layer, gradient in kept.items():
        assert np.array_equal(gradient, first.gradients[layer])
        assert np.array_equal(gradient, again.gradients[layer])


def test_vocabulary_in_one_chunk(exported: MakeExported, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graph, "head_rows", lambda hidden_size: 4096)
    case = export_tiny(make_tiny(tmp_path, "qwen2-untied"), DEFAULTS)
    step, batch = subset([0, 1, 2]), packed_batch()
    assert_steps_equal(open_runner(case).step(step, batch, case.adapter), case.model.runner().step(step, batch, case.adapter), 6e-6)


def test_gradients_accumulate(exported: MakeExported) -> None:
    """Without `lazy_reset_grad` the next gradient is added, whichever layers it has."""
    case = exported("llama")
    runner, eager = open_runner(case), case.model.runner()
    steps = [(subset([0, 1, 2]), packed_batch(0)), (subset([1], [2]), packed_batch(1)), (subset([0, 2]), packed_batch(2))]
    expected = np.zeros_like(case.adapter)
    runner.step(*steps[0], case.adapter)  # resets, then computes
    for number, (step, batch) in enumerate(steps):
        if number > 0:
            runner.module(*batch_inputs(batch), *subset_inputs(step, 3))
        for layer, gradient in eager.step(step, batch, case.adapter).gradients.items():
            expected[layer] += gradient
    found = runner.state.parameters[PARAMETER].grad
    assert np.abs(found - expected).max() <= 6e-6 * np.abs(expected).max()
    runner.step(*steps[2], case.adapter)
    assert not runner.state.parameters[PARAMETER].grad[1].any()  # the reset forgets


# Law 4


def eager_losses(case: Exported, steps: Sequence[Subset], batches: Sequence[Batch], rate: float, config: AdamWConfig) -> list[float]:
    adapter, runner = case.adapter.copy(), case.model.runner()
    optimizer = AdamW(adapter, config)
    losses = []
    for step, batch in zip(steps, batches, strict=True):
        result = runner.step(step, batch, adapter)
        losses.append(result.loss)
        norm = gradient_norm(result.gradients)
        optimizer.update(clip_gradients(result.gradients, norm, config.clip_norm), rate)
    return losses


def cycles(layers: int, method: Method) -> tuple[list[Subset], list[Batch]]:
    """24 steps: eight or six whole cycles of a layer a step, on two batches in turn."""
    cycle = make_schedule(ScheduleConfig(method=method, subsets=layers), layers)
    return [cycle[number % len(cycle)] for number in range(24)], [packed_batch(number % 2) for number in range(24)]


LAW_4 = [(name, method, DEFAULTS) for name in MODELS for method in ("lcsb-exact", "lcsb-identity")]
LAW_4 += [(name, "lcsb-identity", OTHERS) for name in ARCHITECTURES]


@pytest.mark.parametrize(("name", "method", "config"), LAW_4, ids=lambda v: v if isinstance(v, str) else f"eps {v.eps}")
def test_law_4(exported: MakeExported, name: str, method: Method, config: AdamWConfig) -> None:
    """The official loop (Module, Optimizer and CheckpointState as they are) gives the losses of the eager runner and AdamW."""
    case = exported(name, optimizer=config)
    steps, batches = cycles(case.model.config.num_hidden_layers, method)
    runner = open_runner(case)
    found = runner.official_losses(steps, batches, 1e-3)
    expected = eager_losses(case, steps, batches, 1e-3, config)
    tolerance = LOSS_TOLERANCE[case.model.config.model_type]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0)
    assert found[-2] < 0.85 * found[0]  # it learns: the same batch as in step 0
    # The implicit updates are seen by this test: without them the losses are others.
    without = eager_losses(case, steps, batches, 1e-3, msgspec.structs.replace(config, implicit_updates="none"))
    assert np.abs(np.array(without) / expected - 1).max() > 100 * tolerance
    runner.options = runner.ort.SessionOptions()  # ONNX Runtime's own, without any setting of ours
    np.testing.assert_allclose(runner.official_losses(steps, batches, 1e-3), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_law_4_of_the_other_methods(exported: MakeExported, method: Method) -> None:
    case = exported("qwen2")
    steps, batches = cycles(3, method)
    expected = eager_losses(case, steps, batches, 1e-3, DEFAULTS)
    np.testing.assert_allclose(open_runner(case).official_losses(steps, batches, 1e-3), expected, rtol=LOSS_TOLERANCE["qwen2"], atol=0)


def test_runner_with_our_adamw_gives_the_same_losses(exported: MakeExported) -> None:
    """As the trainer runs it: gradients from Module, the update by `AdamW`."""
    case = exported("llama")
    steps, batches = cycles(3, "lcsb-exact")
    adapter, runner = case.adapter.copy(), open_runner(case)
    optimizer, losses = AdamW(adapter, DEFAULTS), []
    for step, batch in zip(steps, batches, strict=True):
        result = runner.step(step, batch, adapter)
        losses.append(result.loss)
        optimizer.update(clip_gradients(result.gradients, gradient_norm(result.gradients), DEFAULTS.clip_norm), 1e-3)
    np.testing.assert_allclose(losses, eager_losses(case, steps, batches, 1e-3, DEFAULTS), rtol=LOSS_TOLERANCE["llama"], atol=0)


# Law 6, and the files


GRAPHS = ("training_model.onnx", "eval_model.onnx", "logits_model.onnx", "optimizer_model.onnx")


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """With those of loops and branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and constants, everywhere."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_tensors(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def load(case: Exported, file: str) -> onnx.ModelProto:
    return onnx.load(case.bundle.path / file, load_external_data=False)


def matrix_sizes(model: TinyModel) -> set[int]:
    return {t.shape[1] * t.shape[2] * model.quantization.group_size for t in model.table if t.per_layer and t.name.endswith(".packed")}


@pytest.mark.parametrize("bits", [(4, 8), (8, 4)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_no_float_copy_of_a_matrix(exported: MakeExported, name: str, bits: tuple[int, int]) -> None:
    """Law 6: what is as large as a matrix lies in weights.bin, as integers, once."""
    case = exported(name, *bits)
    smallest = min(matrix_sizes(case.model))
    for file in GRAPHS:
        for tensor in all_tensors(load(case, file).graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                found = {entry.key: entry.value for entry in tensor.external_data}
                entry = next(t for t in case.model.table if t.name == tensor.name)
                assert found == {"location": "weights.bin", "offset": str(entry.offset), "length": str(entry.nbytes)}
                assert tuple(tensor.dims) == entry.shape
                if tensor.name.endswith(".packed"):
                    assert tensor.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
            else:
                assert np.prod(tensor.dims, dtype=int) < smallest, tensor.name
    assert sum((case.bundle.path / file).stat().st_size for file in GRAPHS) < 400_000
    adapter_bytes = case.adapter.nbytes
    assert adapter_bytes <= (case.bundle.path / "checkpoint").stat().st_size < adapter_bytes + 2000


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_file(exported: MakeExported, name: str) -> None:
    """The table covers the file but for padding; a block's matrices take half a byte and a float16 to 8 weights."""
    case = exported(name)
    table = case.model.table
    assert (case.bundle.path / "weights.bin").stat().st_size == table[-1].offset + table[-1].nbytes
    for before, after in pairwise(table):
        assert 0 <= after.offset - before.offset - before.nbytes < 4096
    for packed, scale in pairwise(table):
        if packed.per_layer and packed.name.endswith(".packed"):
            layers, rows, groups, size = packed.shape
            assert (packed.nbytes + scale.nbytes) / (layers * rows * groups * 2 * size) == 0.5 + 2 / 8


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graphs_do_not_depend_on_depth(exported: MakeExported, name: str) -> None:
    shallow, deep = exported(name, layers=3), exported(name, layers=6)
    for file in GRAPHS:
        kinds = [[node.op_type for node in all_nodes(load(case, file).graph)] for case in (shallow, deep)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_depth_of_six_runs(exported: MakeExported, name: str) -> None:
    case = exported(name, layers=6)
    step, batch = subset([1, 4], [2, 4]), packed_batch()
    found, expected = open_runner(case).step(step, batch, case.adapter), case.model.runner().step(step, batch, case.adapter)
    assert_steps_equal(found, expected, TOLERANCE[case.model.config.model_type])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graphs_are_described_as_they_are(exported: MakeExported, name: str) -> None:
    """The manifest's inputs and outputs are the files', with types and shapes; the standard checker accepts the files."""
    case = exported(name)
    dtypes = {onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.BOOL: "bool"}
    for stem, described in case.bundle.manifest.graphs.items():
        model = load(case, described.file)
        assert model.ir_version <= 10  # the newest that ONNX Runtime 1.19.2 reads
        assert described.file == f"{stem}.onnx"
        assert [i.name for i in model.graph.input] == [i.name for i in described.inputs]
        assert [o.name for o in model.graph.output] == [o.name for o in described.outputs]
        names = [node.name for node in all_nodes(model.graph)]
        assert len(names) == len(set(names))
        if stem != "optimizer_model":  # whose values are sequences
            for found, tensor in zip([*model.graph.input, *model.graph.output], [*described.inputs, *described.outputs], strict=True):
                kind = found.type.tensor_type
                assert (dtypes[kind.elem_type], tuple(d.dim_value for d in kind.shape.dim)) == (tensor.dtype, tensor.shape)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decompressions(exported: MakeExported, name: str) -> None:
    """In the training graph: seven in the forward loop, seven in a branch of the backward loop, a chunk of the head in its
    loop, and outside loops the rows of the input tokens and of the labels."""
    graph = load(exported(name), "training_model.onnx").graph
    loops = [next(a.g for a in node.attribute if a.name == "body") for node in graph.node if node.op_type == "Loop"]
    counts = [sum(node.op_type == "DequantizeLinear" for node in all_nodes(loop)) for loop in loops]
    assert sorted(counts) == [1, 7, 7]
    assert sum(node.op_type == "DequantizeLinear" for node in graph.node) == 2
    backward = next(loop for loop, count in zip(loops, counts, strict=True) if count == 7 and any(n.op_type == "If" for n in loop.node))
    assert not any(node.op_type == "DequantizeLinear" for node in backward.node)  # only when the layer propagates
    branch = next(node for node in backward.node if node.op_type == "If")
    otherwise = next(a.g for a in branch.attribute if a.name == "else_branch")
    assert {node.op_type for node in otherwise.node} == {"ConstantOfShape", "Identity"}


# Refusals


def test_bad_subset_is_refused(exported: MakeExported) -> None:
    case = exported("llama")
    with pytest.raises(OptionError, match="layers from 0 to 2"):
        open_runner(case).step(subset([3]), packed_batch(), case.adapter)


def test_missing_runtime(exported: MakeExported, tmp_path, monkeypatch: pytest.MonkeyPatch, tiny: MakeTiny) -> None:
    hidden: Any = None
    monkeypatch.setitem(sys.modules, "onnxruntime.training", hidden)
    with pytest.raises(MissingDependencyError, match="pip install 'lcsb_mobile\\[onnxruntime-training\\]'"):
        import_runtime()
    with pytest.raises(MissingDependencyError, match="pip install 'lcsb_mobile\\[onnxruntime-training\\]'"):
        export_tiny(make_tiny(tmp_path, "llama"), DEFAULTS)
