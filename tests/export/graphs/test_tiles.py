"""Matrices of the MLP in tiles: the same block, forward and gradient, whatever the tile; and how large a tile is."""

from __future__ import annotations

import pytest
import torch
from helpers.captured import TILE, TILES, MakeGraphs, block, close, layer_feeds, random_hidden, run
from helpers.tiny_models import ARCHITECTURES, WITH_BLOCK_BITS, MakeTiny, packed_batch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcsb_mobile.bundle.weights import MOST_TILES, TILE_BYTES, tile_rows
from lcsb_mobile.export.graphs.blocks import Projections
from lcsb_mobile.export.graphs.captured import CapturedGraph, capture, op_name
from lcsb_mobile.export.graphs.tiles import stages
from lcsb_mobile.export.models.layers import gated_mlp, silu
from lcsb_mobile.export.weights.quantization import quantize

GROUP = 8

# Of the largest element: a sum over `intermediate_size` in float32 is cut into one a tile, so it rounds in other places. Measured
# over the cases below: 5e-7, Gemma 2e-6 (its norms after the MLP scale rounding errors up, see tests/export/models/test_models.py).
TOLERANCE = {"llama": 1.5e-6, "mistral": 1.5e-6, "phi3": 1.5e-6, "qwen2": 1.5e-6, "qwen3": 1.5e-6, "gemma3_text": 6e-6}
TOLERANCE |= {"gemma2": 3e-6, "granite": 1.5e-6, "smollm3": 1.5e-6}


def random_mlp(bits: int, bias: bool, hidden: int, inner: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Quantised weights and LoRA of rank 3; every bias and B differs from zero."""
    generator = torch.Generator().manual_seed(0)
    weights, lora = {}, {}
    for name, rows, columns in (("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)):
        matrix = quantize(torch.randn(rows, columns, generator=generator) * columns**-0.5, bits, GROUP)
        weights |= {f"mlp.{name}.weight.packed": matrix.packed, f"mlp.{name}.weight.scale": matrix.scale}
        if bias:
            weights[f"mlp.{name}.bias"] = torch.randn(rows, generator=generator)
        lora[f"mlp.{name}.lora_A"] = torch.randn(3, columns, generator=generator) * columns**-0.5
        lora[f"mlp.{name}.lora_B"] = torch.randn(rows, 3, generator=generator)
    return weights, lora


def mlp_and_gradients(x: Tensor, weights: dict[str, Tensor], lora: dict[str, Tensor], tile: int | None) -> list[Tensor]:
    x, leaves = x.clone().requires_grad_(), {name: matrix.clone().requires_grad_() for name, matrix in lora.items()}
    y = gated_mlp(x, Projections(weights, leaves, 2.0, tile), silu)
    return [y.detach(), *torch.autograd.grad(y, [x, *leaves.values()], torch.linspace(-1, 1, y.numel()).reshape(y.shape))]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([4, 8]), st.booleans(), st.integers(1, 4), st.integers(1, 10), st.integers(1, 12))
@example(4, True, 3, 10, 3)  # an uneven last tile
@example(8, False, 3, 10, 10)  # one tile
@example(4, True, 1, 7, 1)  # a tile a group
def test_mlp_in_tiles_equals_the_whole(bits: int, bias: bool, hidden: int, inner: int, tile: int) -> None:
    """`rows` and `columns` are `__call__` but for rounding: output, and gradients in the input and each LoRA matrix. Sizes in groups."""
    weights, lora = random_mlp(bits, bias, hidden * GROUP, inner * GROUP)
    x = torch.randn(5, hidden * GROUP, generator=torch.Generator().manual_seed(1))
    expected = mlp_and_gradients(x, weights, lora, None)
    for found, want in zip(mlp_and_gradients(x, weights, lora, tile * GROUP), expected, strict=True):
        close(found, want, 2e-6)  # sums of at most 80 products


def test_whole_products_are_the_tiles_put_together() -> None:
    """Of one tile's rows no other tile's LoRA, bias or scale takes part; nor of two that are walked together, one of each half."""
    weights, lora = random_mlp(4, True, 24, 40)
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    projections = Projections(weights, lora, 2.0, 16)
    tiles = list(projections.rows("mlp.up_proj", x))
    assert [tile.shape for tile in tiles] == [(5, 16), (5, 16), (5, 8)]
    close(torch.cat(tiles, 1), projections("mlp.up_proj", x), 1e-6)
    pairs = list(projections.halves("mlp.up_proj", x))
    assert [(first.shape, second.shape) for first, second in pairs] == [((5, 16), (5, 16)), ((5, 4), (5, 4))]
    close(torch.cat([part for half in zip(*pairs) for part in half], 1), projections("mlp.up_proj", x), 1e-6)
    inner = torch.randn(5, 40, generator=torch.Generator().manual_seed(2))
    close(projections.columns("mlp.down_proj", inner.split(16, 1)), projections("mlp.down_proj", inner), 1e-6)


@pytest.mark.parametrize(("name", "bits"), WITH_BLOCK_BITS)
def test_block_in_tiles_equals_the_whole(tiny: MakeTiny, name: str, bits: int) -> None:
    """Every architecture, with biases and without; tiles of one group, of uneven and of even division."""
    model = tiny(name, bits)
    feeds = layer_feeds(model, 1, packed_batch(), model.adapter()) | random_hidden(model)

    def block_and_gradients(tile: int | None) -> list[Tensor]:
        h, adapter = feeds["h"].clone().requires_grad_(), feeds["adapter"].clone().requires_grad_()
        out = block(model, 1, h, adapter, feeds, tile)
        return [out.detach(), *torch.autograd.grad(out, [h, adapter], feeds["g"])]

    expected = block_and_gradients(None)
    for tile in (8, TILE, 40):
        for found, want in zip(block_and_gradients(tile), expected, strict=True):
            close(found, want, TOLERANCE[model.config.model_type])
    for found, want in zip(block_and_gradients(80), expected, strict=True):
        # One tile is the whole; but of a fused matrix it is a product for each of what it holds.
        close(found, want, TOLERANCE[model.config.model_type] if model.config.model_type == "phi3" else 0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_captured_tiles_equal_the_whole(tiny: MakeTiny, graphs: MakeGraphs, name: str) -> None:
    """The block of another tiling is captured as another graph of the same function."""
    model, tiled, whole = tiny(name), graphs(name, tile=TILE), graphs(name)
    feeds = layer_feeds(model, 1, packed_batch(), model.adapter()) | random_hidden(model)
    for graph, same in ((tiled.forward, whole.forward), (tiled.backward, whole.backward)):
        assert (graph.inputs, graph.outputs) == (same.inputs, same.outputs)
        for found, want in zip(run(graph, feeds), run(same, feeds), strict=True):
            close(found, want, TOLERANCE[model.config.model_type])


def decompressed(captured: CapturedGraph) -> list[tuple[int, ...]]:
    return sorted(tuple(node.meta["val"].shape) for node in captured.graph.nodes if op_name(node).startswith("dequantize_"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_tile_is_decompressed_once(graphs: MakeGraphs, name: str) -> None:
    """In every graph: attention's four matrices whole (two, where three are one), gate and up by rows, down by columns, nothing larger."""
    blocks = graphs(name, tile=TILE)
    attention = [shape for matrix, shape in blocks.kind.matrices.items() if matrix.startswith("self_attn.")]
    tiles = [(size, 48) for size in (32, 32, 16)] * 2 + [(48, size) for size in (32, 32, 16)]
    assert len(tiles) == 3 * TILES
    for graph in (blocks.forward, blocks.forward_keep, blocks.backward_kept):
        assert decompressed(graph) == sorted(attention + tiles)
    # Gemma's recomputing backward goes through the tiles once for the MLP's output and once for its gradient.
    assert decompressed(blocks.backward) == sorted(attention + tiles * (2 if name == "gemma3" else 1))


def test_parts_of_any_sizes_are_told_apart() -> None:
    """Rows 0 to 7, 8 to 15 and 16 to 39 are tiles 0, 1 and 2, though the last is larger than the others together: else whatever comes of
    all of them would be taken for what comes of one."""
    weights, lora = random_mlp(4, False, 24, 40)
    tensors = weights | lora

    def parts(x: Tensor, *args: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(tensors, args))
        return tuple(Projections(named, named, 2.0, 16).rows("mlp.up_proj", x, (8, 8, 24)))

    captured = capture(parts, [torch.zeros(5, 24), *tensors.values()], ("x", *tensors), ("a", "b", "c"))
    (stage,) = stages(captured.graph)
    assert sorted((cut.args[2], number) for cut, number in stage.items()) == [(0, 0), (0, 0), (8, 1), (8, 1), (16, 2), (16, 2)]


# The size of a tile


@given(st.integers(1, 2**14), st.integers(1, 2**10), st.sampled_from([8, 16, 32, 64, 128]))
def test_tile_rows(hidden: int, groups: int, group_size: int) -> None:
    """A multiple of the group size; few tiles, which cover all rows and of which none is empty; as small as asked, where the number
    of tiles allows it; all at once only what is small or has no group to spare."""
    inner = groups * group_size
    rows = tile_rows(hidden, inner, group_size)
    if rows is None:
        assert hidden * inner * 4 <= TILE_BYTES or -(-inner // 2 // group_size) * group_size >= inner or groups == 1
        return
    assert rows % group_size == 0 and 0 < rows < inner
    tiles = -(-inner // rows)
    assert 2 <= tiles <= MOST_TILES
    fewest_bytes = max(TILE_BYTES, hidden * inner * 4 / MOST_TILES)
    assert (rows - group_size) * hidden * 4 < fewest_bytes  # a tile is rounded up by less than a group


@pytest.mark.parametrize(
    ("hidden", "inner", "expected"),
    [(48, 80, None), (576, 1536, None), (896, 4864, 1216), (1152, 6912, 864), (2048, 8192, 1024)],
    ids=["tiny", "SmolLM2 135M", "Qwen2.5 0.5B", "Gemma 3 1B", "Llama 3.2 1B"],
)
def test_tiles_of_known_models(hidden: int, inner: int, expected: int | None) -> None:
    assert tile_rows(hidden, inner, 32) == expected
