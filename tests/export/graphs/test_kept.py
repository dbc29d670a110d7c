"""What a block's forward keeps for its backward: enough for the same gradients, no product with a base matrix twice, the fewest bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
import torch
from helpers.captured import TILE, TILES, MakeGraphs, layer_feeds, random_hidden, run
from helpers.tiny_models import ARCHITECTURES, LORA, SEQ_LEN, MakeTiny, packed_batch
from torch import Tensor
from torch.fx import Node

from lcsb_mobile.export.graphs.blocks import Projections
from lcsb_mobile.export.graphs.captured import CapturedGraph, capture, op_name
from lcsb_mobile.export.graphs.kept import values_to_keep
from lcsb_mobile.export.models.layers import apply_rope, rms_norm, split_heads
from lcsb_mobile.export.weights.quantization import dequantize


def is_base_matrix(node: Node) -> bool:
    while op_name(node) == "permute":
        node = node.all_input_nodes[0]
    return op_name(node).startswith("dequantize_")


def base_products(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if op_name(node) == "mm" and any(map(is_base_matrix, node.all_input_nodes))]


def depends_on(node: Node, source: Node) -> bool:
    seen, pending = {node}, [node]
    while pending:
        for before in pending.pop().all_input_nodes:
            if before not in seen:
                seen.add(before)
                pending.append(before)
    return source in seen


# The blocks


@pytest.mark.parametrize("tile", [None, TILE])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_kept_forward_and_backward_equal_the_recomputing_ones(tiny: MakeTiny, graphs: MakeGraphs, name: str, tile: int | None) -> None:
    """Bit for bit: the same operations on the same values, some of them read instead of computed again."""
    model, blocks = tiny(name), graphs(name, tile=tile)
    feeds = layer_feeds(model, 1, packed_batch(), model.adapter()) | random_hidden(model)
    h_next, *kept = run(blocks.forward_keep, feeds)
    assert torch.equal(h_next, run(blocks.forward, feeds)[0])
    values = dict(zip(blocks.kept, kept, strict=True))
    for found, expected in zip(run(blocks.backward_kept, feeds | values), run(blocks.backward, feeds), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("tile", [None, TILE])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_backward_kept_repeats_no_product(graphs: MakeGraphs, name: str, tile: int | None) -> None:
    """One product with each base matrix, or tile of one: that of the gradient. The recomputing backward has the forward's too, but for
    a last one that no gradient depends on."""
    blocks = graphs(name, tile=tile)
    attention = sum(matrix.startswith("self_attn.") for matrix in blocks.kind.matrices)
    matrices = len(blocks.kind.matrices) if tile is None else attention + 3 * TILES
    products = base_products(blocks.backward_kept.graph.nodes)
    assert len(products) == matrices
    (g,) = (node for node, x in zip(blocks.backward_kept.placeholders, blocks.backward_kept.inputs) if x == "g")
    assert all(depends_on(product, g) for product in products)
    assert set(blocks.kept) <= set(blocks.backward_kept.inputs)
    downs = 1 if tile is None else TILES  # Gemma 3 has a norm after `down_proj`, whose gradient needs them
    assert len(base_products(blocks.backward.graph.nodes)) == 2 * matrices - (0 if name == "gemma3" else downs)
    assert blocks.backward_kept.flops < blocks.backward.flops


def test_what_llama_keeps(tiny: MakeTiny, graphs: MakeGraphs) -> None:
    """Rotated queries (scaled) and keys, values, the residual stream after attention, gate and up, and no more."""
    model, blocks = tiny("llama"), graphs("llama")
    feeds = layer_feeds(model, 1, packed_batch(), model.adapter()) | random_hidden(model)
    _, *found = run(blocks.forward_keep, feeds)
    config = model.config
    linear = Projections(feeds, model.layout.views(1, feeds["adapter"]), LORA.scaling)
    x = rms_norm(feeds["h"], feeds["input_layernorm.weight"], config.rms_norm_eps)
    q, k, v = (split_heads(linear(f"self_attn.{part}_proj", x), config.head_dim) for part in "qkv")
    cos, sin, heads = feeds["cos"], feeds["sin"], (2, 3 * SEQ_LEN, 12)  # three query heads to each of two key-value heads
    q = apply_rope(q, cos * config.query_scale, sin * config.query_scale).reshape(SEQ_LEN, 2, 3, 12).permute(1, 2, 0, 3).reshape(heads)
    scores = torch.bmm(q, apply_rope(k, cos, sin).permute(1, 2, 0)).reshape(6, SEQ_LEN, SEQ_LEN) + feeds["mask"]
    attended = torch.bmm(torch.softmax(scores, -1).reshape(2, -1, SEQ_LEN), v.permute(1, 0, 2))
    attended = attended.reshape(6, SEQ_LEN, 12).permute(1, 0, 2).reshape(SEQ_LEN, 72)
    residual = feeds["h"] + linear("self_attn.o_proj", attended)
    x = rms_norm(residual, feeds["post_attention_layernorm.weight"], config.rms_norm_eps)
    gate, up = linear("mlp.gate_proj", x), linear("mlp.up_proj", x)
    expected = [q, apply_rope(k, cos, sin).permute(1, 2, 0), v.permute(1, 0, 2), residual, gate, up]
    assert len(found) == len(expected)
    for kept, value in zip(found, expected, strict=True):
        torch.testing.assert_close(kept, value, rtol=1e-5, atol=1e-5)  # the same operations: measured equal


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tiles_keep_the_same_bytes(tiny: MakeTiny, graphs: MakeGraphs, name: str) -> None:
    """Gate and up in parts, all else alike."""

    def kept_elements(tile: int | None) -> int:
        return sum(node.meta["val"].numel() for node in graphs(name, tile=tile).forward_keep.results[1:])

    attention = 10 * tiny(name).config.head_dim  # queries of six heads, keys and values of two
    norms = 48 if name == "gemma3" else 0  # the output of `down_proj`, before the norm
    assert kept_elements(None) == kept_elements(TILE) == SEQ_LEN * (attention + 48 + 2 * 80 + norms)


# Small graphs, against all sets there are

T, D = 3, 8


def gated(h: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Both factors are needed."""
    return torch.sigmoid(h @ one.t()) * (h @ other.t())


def summed(h: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """The sum is enough for its square, and half as large as its terms."""
    total = h @ one.t() + h @ other.t()
    return total * total


def narrowed(h: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """A number a token is enough for the gate; the second product is linear and not needed at all."""
    gate = torch.sigmoid((h @ one.t()).mean(-1, keepdim=True))
    return (gate * h) @ other.t()


def chained(h: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """What stands before a product that is not repeated is needed as well."""
    x = torch.sigmoid(h @ one.t())
    return torch.sigmoid(x @ other.t()) + x.sum(-1, keepdim=True)


def sampled(h: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Two columns of a product are smaller than the product, though they are two values."""
    product = h @ one.t()
    return (torch.sigmoid(product[:, :1]) * torch.sigmoid(product[:, 1:2]) * h) @ other.t()


FUNCTIONS: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...] = (gated, summed, narrowed, chained, sampled)


def joint_of(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> CapturedGraph:
    """(h_next, g_next, d_adapter) of (h, g, adapter, two int4 matrices), the adapter a vector that h is multiplied by."""

    def joint(h: Tensor, g: Tensor, adapter: Tensor, *w: Tensor) -> tuple[Tensor, ...]:
        matrices = dequantize(w[0], w[1]), dequantize(w[2], w[3])
        out, vjp = torch.func.vjp(lambda x, vector: function(x * vector, *matrices), h, adapter)
        return out, *vjp(g)

    weights = [torch.zeros(D, 1, D // 2, dtype=torch.uint8), torch.zeros(D, 1, dtype=torch.float16)]
    args = [torch.zeros(T, D), torch.zeros(T, D), torch.zeros(D), *weights, *(w.clone() for w in weights)]
    return capture(joint, args, ("h", "g", "adapter", "p0", "s0", "p1", "s1"), ("h_next", "g_next", "d_adapter"))


def kept_of(joint: CapturedGraph) -> list[Node]:
    return values_to_keep(joint, ("g",), joint.results[1:])


def is_enough(joint: CapturedGraph, kept: frozenset[Node]) -> bool:
    """The gradients can be computed from the inputs and `kept` without a product with a base matrix of the forward's."""
    (g,) = (node for node, name in zip(joint.placeholders, joint.inputs) if name == "g")
    seen: set[Node] = set()
    pending = list(joint.results[1:])
    while pending:
        node = pending.pop()
        if node in seen or node in kept:
            continue
        seen.add(node)
        pending.extend(node.all_input_nodes)
    return all(depends_on(product, g) for product in base_products(seen))


def nbytes(nodes: Iterable[Node]) -> int:
    return sum(node.meta["val"].numel() * node.meta["val"].element_size() for node in nodes)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_no_smaller_set_is_enough(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    joint = joint_of(function)
    kept = kept_of(joint)
    assert is_enough(joint, frozenset(kept))
    (g,) = (node for node, name in zip(joint.placeholders, joint.inputs) if name == "g")
    candidates = [n for n in joint.graph.nodes if n.op == "call_function" and not depends_on(n, g)]
    smaller = [s for size in range(5) for s in itertools.combinations(candidates, size) if nbytes(s) < nbytes(kept)]
    assert smaller and len(candidates) >= 8
    assert not [s for s in smaller if is_enough(joint, frozenset(s))]


def test_nothing_is_kept_for_a_linear_function() -> None:
    """Of h itself; the adapter's gradient needs no product."""
    assert kept_of(joint_of(lambda h, one, other: (h @ one.t()) @ other.t())) == []


def test_the_sizes_of_the_small_sets() -> None:
    """So that the comparison above is one of different sets."""
    assert [nbytes(kept_of(joint_of(f))) // 4 for f in FUNCTIONS] == [2 * T * D, T * D, T, 2 * T * D, 2 * T]
