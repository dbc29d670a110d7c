"""Laws 1, 2 and 3 for the block graphs and the eager runner, held to `export.reference`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.captured import MakeGraphs, block, close, layer_feeds, run
from helpers.tiny_models import (
    ARCHITECTURES,
    MODELS,
    SEQ_LEN,
    WITH_BLOCK_BITS,
    MakeTiny,
    TinyModel,
    assert_steps_equal,
    packed_batch,
    subset,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import OptionError
from lcsb_mobile.export.graphs.blocks import KindGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.head import capture_final_norm, cross_entropy
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.autograd import reference_step
from lcsb_mobile.export.weights.layer_tensors import kind_tensors
from lcsb_mobile.export.weights.quantization import dequantize

# Relative to the largest element of a layer's gradient. Both sides are float32; sums run in another order, and the reference's
# identity path `h + (o - h)` rounds. Measured over 8 batches and all subsets below: 1.2e-6, Gemma 7e-6 (its norms after attention
# and MLP scale rounding errors up, see tests/export/models/test_models.py).
TOLERANCE = {"llama": 4e-6, "mistral": 4e-6, "phi3": 4e-6, "qwen2": 4e-6, "qwen3": 4e-6, "gemma3_text": 2e-5}
TOLERANCE |= {"gemma2": 6e-6, "granite": 4e-6, "smollm3": 4e-6}

QUANTIZATIONS = [(4, 8), (8, 4), (4, 4)]  # bits of blocks, bits of embedding and head


def reference(model: TinyModel, step: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
    return reference_step(model_of(model.config), model.layout, model.weights, step, batch, adapter)


# The eager runner


@pytest.mark.parametrize("bits", QUANTIZATIONS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_all_layers_equal_autograd(tiny: MakeTiny, name: str, bits: tuple[int, int]) -> None:
    """Law 1."""
    model = tiny(name, *bits)
    everything = subset(range(model.config.num_hidden_layers))
    batch, adapter = packed_batch(1), model.adapter(1)
    expected = reference(model, everything, batch, adapter)
    assert_steps_equal(model.runner().step(everything, batch, adapter), expected, TOLERANCE[model.config.model_type])
    assert all(np.abs(gradient).max() > 1e-3 for gradient in expected.gradients.values())
    assert model.runner().evaluate(batch, adapter) == pytest.approx(expected.loss, rel=1e-6)


def subsets(layers: int) -> st.SearchStrategy[Subset]:
    numbers = st.sets(st.integers(0, layers - 1))
    return st.builds(subset, numbers.filter(bool).map(sorted), numbers.map(sorted))


@pytest.mark.parametrize("name", MODELS)
def test_any_subset_equals_the_detach_reference(tiny: MakeTiny, name: str) -> None:
    """Law 2."""
    model = tiny(name)

    @settings(max_examples=12, deadline=None)
    @given(subsets(model.config.num_hidden_layers), st.integers(0, 7))
    def check(step: Subset, seed: int) -> None:
        batch, adapter = packed_batch(seed), model.adapter(seed)
        found = model.runner().step(step, batch, adapter)
        assert set(found.gradients) == set(step.train)  # the others have none
        assert_steps_equal(found, reference(model, step, batch, adapter), TOLERANCE[model.config.model_type])

    check()


def test_subsets_give_different_gradients(tiny: MakeTiny) -> None:
    """So that the test above tells them apart: exact, identity and mixed differ in layer 0 by far more than the tolerance."""
    model, batch = tiny("llama"), packed_batch()
    gradients = [reference(model, subset([0], p), batch, model.adapter()).gradients[0] for p in ([], [1], [2], [1, 2])]
    for number, first in enumerate(gradients):
        for second in gradients[number + 1 :]:
            assert np.abs(first - second).max() > 0.01 * np.abs(first).max()


def test_reference_sees_the_skipped_layers_in_the_loss(tiny: MakeTiny) -> None:
    """The identity is of the backward pass alone: the loss is that of the whole model, whatever the subset."""
    model, batch = tiny("qwen2"), packed_batch()
    losses = [reference(model, step, batch, model.adapter()).loss for step in (subset([0]), subset([2]), subset([0, 1, 2]))]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_gradient_is_the_slope_of_the_loss(tiny: MakeTiny) -> None:
    """The reference itself, against finite differences along random directions; float32 losses allow some 1e-3."""
    model, batch = tiny("llama"), packed_batch()
    adapter, everything = model.adapter(), subset(range(3))
    gradients = reference(model, everything, batch, adapter).gradients
    for layer in range(3):
        direction = np.zeros_like(adapter)
        direction[model.layout.slices[layer]] = gradients[layer] / np.linalg.norm(gradients[layer])
        up, down = (reference(model, everything, batch, adapter + s * 5e-3 * direction).loss for s in (1, -1))
        assert (up - down) / 1e-2 == pytest.approx(float(np.linalg.norm(gradients[layer])), rel=5e-3)


def test_step_does_not_write_to_the_adapter(tiny: MakeTiny) -> None:
    model, adapter = tiny("llama"), tiny("llama").adapter()
    model.runner().step(subset([0, 2]), packed_batch(), adapter)
    assert np.array_equal(adapter, model.adapter())


@pytest.mark.parametrize("name", MODELS)
def test_next_logits(tiny: MakeTiny, name: str) -> None:
    """The cross-entropy of these logits is the loss: the two ways of using the head agree."""
    model, batch, adapter = tiny(name), packed_batch(), tiny(name).adapter()
    counted = np.flatnonzero(batch.labels != IGNORED_LABEL)
    logits = np.stack([model.runner().next_logits(batch, int(position), adapter) for position in counted])
    assert logits.shape == (len(counted), model.config.vocab_size)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(batch.labels[counted]))
    assert loss.item() == pytest.approx(model.runner().evaluate(batch, adapter), rel=1e-6)


def test_bad_subset_is_refused(tiny: MakeTiny) -> None:
    with pytest.raises(OptionError, match="layers from 0 to 2"):
        tiny("llama").runner().step(subset([3]), packed_batch(), tiny("llama").adapter())


# The captured graphs


def head_rows(model: TinyModel, name: str) -> Tensor:
    return dequantize(torch.from_numpy(model.weights[f"{name}.packed"]), torch.from_numpy(model.weights[f"{name}.scale"]))


@pytest.mark.parametrize(("name", "bits"), WITH_BLOCK_BITS)
def test_graphs_equal_the_block(tiny: MakeTiny, graphs: MakeGraphs, name: str, bits: int) -> None:
    """Law 3, one block: captured forward equals the block, captured backward its autograd, for a layer of each kind."""
    model, captured = tiny(name, bits), graphs(name, bits)
    for layer in range(2):
        feeds = layer_feeds(model, layer, packed_batch(), model.adapter())
        h, g = torch.randn(2, SEQ_LEN, model.config.hidden_size, generator=torch.Generator().manual_seed(layer))
        h, adapter = h.requires_grad_(), feeds["adapter"].clone().requires_grad_()
        out = block(model, layer, h, adapter, feeds)
        dh, d_adapter = torch.autograd.grad(out, [h, adapter], g)
        feeds |= {"h": h.detach(), "g": g}
        # The same operations, decomposed: measured equal forward, 3e-7 of the largest element backward.
        close(run(captured.forward, feeds)[0], out.detach(), 1e-6)
        found_dh, found_d_adapter = run(captured.backward, feeds)
        close(found_dh, dh, 1e-6)
        close(found_d_adapter, d_adapter, 1e-6)


def chained_step(model: TinyModel, graphs: KindGraphs, step: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
    """A step by captured graphs alone, as a device's host loop makes it."""
    layers = [layer_feeds(model, layer, batch, adapter) for layer in range(model.config.num_hidden_layers)]
    norm, norm_backward = capture_final_norm(model_of(model.config), SEQ_LEN)
    inputs = [head_rows(model, "embed_tokens.weight")[batch.input_ids] * model.config.embedding_scale]
    for feeds in layers:
        inputs.append(run(graphs.forward, feeds | {"h": inputs[-1]})[0])
    feeds = {"x": inputs[-1], "weight": torch.from_numpy(model.weights["norm.weight"])}
    head = head_rows(model, "embed_tokens.weight" if model.config.tie_word_embeddings else "lm_head.weight")
    counted = np.flatnonzero(batch.labels != IGNORED_LABEL)
    cap = model.config.final_logit_softcapping
    loss, dx = cross_entropy(run(norm, feeds)[0][counted], head[batch.labels[counted]], head.split(50), cap)
    g = torch.zeros_like(inputs[-1])
    g[counted] = dx
    (g,) = run(norm_backward, feeds | {"g": g})
    gradients = {}
    for layer in range(len(layers) - 1, step.train[0] - 1, -1):
        if layer in step.propagate:
            g, d_adapter = run(graphs.backward, layers[layer] | {"h": inputs[layer], "g": g})
            if layer in step.train:
                gradients[layer] = d_adapter.numpy()
    return StepResult(float(loss), gradients)


@pytest.mark.parametrize("name", MODELS)
def test_chained_graphs_equal_the_model(tiny: MakeTiny, graphs: MakeGraphs, name: str) -> None:
    """Law 3: blocks chained are the whole model, forward and backward; with a subset they are the detach reference."""
    model, batch = tiny(name), packed_batch(3)
    layers = model.config.num_hidden_layers
    for step in (subset(range(layers)), subset([0, layers - 1]), subset([1], range(1, layers))):
        found = chained_step(model, graphs(name), step, batch, model.adapter())
        assert_steps_equal(found, reference(model, step, batch, model.adapter()), TOLERANCE[model.config.model_type])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_inputs_and_outputs(tiny: MakeTiny, graphs: MakeGraphs, name: str) -> None:
    model, captured = tiny(name), graphs(name)
    tensors = kind_tensors(captured.kind, model.quantization)
    read_back = [tensor for tensor in tensors if tensor != "mlp.down_proj.bias"]  # it is added last, no gradient depends on it
    assert captured.forward.inputs == ("h", "cos", "sin", "mask", "adapter", *tensors)
    assert captured.backward.inputs == ("h", "g", "cos", "sin", "mask", "adapter", *read_back)
    assert captured.forward_keep.inputs == captured.forward.inputs
    assert [x for x in captured.backward_kept.inputs if x not in captured.kept] == [
        x for x in captured.backward.inputs if x in captured.backward_kept.inputs
    ]
    assert (captured.forward.outputs, captured.backward.outputs) == (("h_next",), ("g_next", "d_adapter"))
    assert (captured.forward_keep.outputs, captured.backward_kept.outputs) == (("h_next", *captured.kept), ("g_next", "d_adapter"))
    for graph in (captured.forward, captured.backward, captured.forward_keep, captured.backward_kept):
        for node, input_name in zip(graph.placeholders, graph.inputs, strict=True):
            if input_name in tensors:
                example = node.meta["val"]
                assert (str(example.dtype).removeprefix("torch."), tuple(example.shape)) == tensors[input_name]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_stay_compressed(tiny: MakeTiny, graphs: MakeGraphs, name: str, bits: int) -> None:
    """One decompression a matrix in each graph, those of the recomputed forward shared with the backward, and no constant of any size."""
    matrices = len(graphs(name, bits).kind.matrices)
    assert matrices == (4 if name == "phi3" else 7)
    for captured in (graphs(name, bits).forward, graphs(name, bits).backward):
        operations = [str(node.target) for node in captured.graph.nodes if node.op == "call_function"]
        assert operations.count(f"lcsb.dequantize_int{bits}.default") == matrices
        assert sum("dequantize" in operation for operation in operations) == matrices
        assert not captured.module.state_dict()
        assert not [node for node in captured.graph.nodes if node.op == "get_attr"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graphs_do_not_depend_on_depth(graphs: MakeGraphs, name: str) -> None:
    def operations(captured: CapturedGraph) -> list[str]:
        return [str(node.target) for node in captured.graph.nodes]

    shallow, deep = graphs(name), graphs(name, layers=6)
    assert operations(shallow.forward) == operations(deep.forward)
    assert operations(shallow.backward) == operations(deep.backward)
