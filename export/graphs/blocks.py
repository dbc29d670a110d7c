"""One block as graphs: forward, backward with the forward recomputed inside, and the pair that keeps what the backward needs instead.

They are captured once for all layers.

All layers of the supported families have one signature: what differs between them (weights, RoPE base, window) are inputs.
So capture time does not depend on depth. Inputs, in this order (T tokens, D hidden size, d head dimension, n adapter elements):

| name        | dtype   | shape  | meaning                                             |
|-------------|---------|--------|-----------------------------------------------------|
| h           | float32 | [T, D] | the block's input                                   |
| g           | float32 | [T, D] | d loss / d output (backward only)                   |
| cos, sin    | float32 | [T, d] | RoPE at the tokens' positions, of the layer's kind  |
| mask        | float32 | [T, T] | additive attention mask, of the layer's kind        |
| adapter     | float32 | [n]    | the layer's LoRA matrices                           |
| the weights |         |        | `layer_tensors`, in its order                       |

Outputs: forward `h_next` [T, D]; backward `g_next` [T, D] and `d_adapter` [n]; the kept tensors are `kept.0` and so on, float32.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.manifest import BlockWork
from lcsb_mobile.config import ModelConfig, QuantizationConfig
from lcsb_mobile.export.graphs.captured import CapturedGraph, capture, extract
from lcsb_mobile.export.graphs.kept import values_to_keep
from lcsb_mobile.export.graphs.tiles import decompress_for_each_sweep
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.layers import Cache, attention_over
from lcsb_mobile.export.weights.layer_tensors import layer_tensors
from lcsb_mobile.export.weights.quantization import dequantize

ACTIVATION_INPUTS = ("h", "cos", "sin", "mask", "adapter")
BACKWARD_INPUTS = ("h", "g", "cos", "sin", "mask", "adapter")

Block = Callable[..., Tensor]


@dataclass(frozen=True)
class Projections:
    """y = x Wᵀ + b + scaling (x Aᵀ) Bᵀ by the projection's name (models.layers.Linear); `tile`: rows or columns of W decompressed
    at a time, a multiple of the group size (None: all)."""

    weights: Mapping[str, Tensor]
    lora: Mapping[str, Tensor]
    scaling: float
    tile: int | None = None

    def __call__(self, name: str, x: Tensor) -> Tensor:
        y = x @ self._matrix(name, slice(None), slice(None)).t()
        if f"{name}.bias" in self.weights:
            y = y + self.weights[f"{name}.bias"]
        return y + (x @ self.lora[f"{name}.lora_A"].t()) @ (self.lora[f"{name}.lora_B"] * self.scaling).t()

    def rows(self, name: str, x: Tensor) -> Iterator[Tensor]:
        b = self.lora[f"{name}.lora_B"] * self.scaling
        low = x @ self.lora[f"{name}.lora_A"].t()  # (T, rank)
        bounds = self._bounds(len(b))
        # LoRA's parts by one split: its derivative is one concatenation, where slices would sum padded copies.
        for (start, stop), b_rows in zip(bounds, torch.split(b, [stop - start for start, stop in bounds])):
            y = x @ self._matrix(name, slice(start, stop), slice(None)).t()
            if f"{name}.bias" in self.weights:
                y = y + self.weights[f"{name}.bias"][start:stop]
            yield y + low @ b_rows.t()

    def columns(self, name: str, tiles: Iterable[Tensor]) -> Tensor:
        a = self.lora[f"{name}.lora_A"]
        bounds = self._bounds(a.shape[1])
        parts: list[Tensor] = []
        low_parts: list[Tensor] = []
        for x, (start, stop), a_columns in zip(tiles, bounds, torch.split(a, [stop - start for start, stop in bounds], 1)):
            parts.append(x @ self._matrix(name, slice(None), slice(start, stop)).t())
            low_parts.append(x @ a_columns.t())
        y = _sum(parts)
        if f"{name}.bias" in self.weights:
            y = y + self.weights[f"{name}.bias"]
        return y + _sum(low_parts) @ (self.lora[f"{name}.lora_B"] * self.scaling).t()

    def _matrix(self, name: str, rows: slice, columns: slice) -> Tensor:
        """Rows and columns of W, decompressed. The columns' bounds are multiples of the group size."""
        packed, scale = self.weights[f"{name}.weight.packed"], self.weights[f"{name}.weight.scale"]
        if rows not in (slice(None), slice(0, packed.shape[0])):
            packed, scale = packed[rows], scale[rows]
        if columns != slice(None):
            group = packed.shape[2] * (2 if packed.dtype == torch.uint8 else 1)
            groups = slice(columns.start // group, columns.stop // group)
            if groups != slice(0, packed.shape[1]):
                packed, scale = packed[:, groups], scale[:, groups]
        return dequantize(packed, scale)

    def _bounds(self, size: int) -> list[tuple[int, int]]:
        step = self.tile or size
        return [(start, min(start + step, size)) for start in range(0, size, step)]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return functools.reduce(operator.add, parts)


def make_block(config: ModelConfig, scaling: float, tile: int | None = None) -> Block:
    """`block(h, cos, sin, mask, lora, weights)`: plain, differentiable torch; `lora` are the matrices by name; `tile` as in Projections."""
    model = architecture(config.model_type)

    def block(
        h: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        lora: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        cache: Cache | None = None,
    ) -> Tensor:
        attend = attention_over(cos, sin, mask, config.query_scale, cache)
        return model.block(h, weights, Projections(weights, lora, scaling, tile), attend, config)

    return block


@dataclass(frozen=True)
class BlockGraphs:
    """The graphs of a model's one block signature, for sequences of `seq_len` tokens.

    `forward_keep` has, after `h_next`, the outputs `kept`; `backward_kept` takes them as inputs and recomputes no product with a
    base matrix.
    """

    forward: CapturedGraph
    backward: CapturedGraph
    forward_keep: CapturedGraph
    backward_kept: CapturedGraph
    kept: tuple[str, ...]
    seq_len: int

    def work(self) -> tuple[BlockWork, BlockWork]:
        """FLOPs of the matrix products, and bytes of float weights decompressed."""
        graphs = self.forward, self.backward, self.backward_kept
        return BlockWork(*(graph.flops for graph in graphs)), BlockWork(*(graph.decompressed_bytes for graph in graphs))


def capture_blocks(
    config: ModelConfig, layout: AdapterLayout, quantization: QuantizationConfig, seq_len: int, tile: int | None = None
) -> BlockGraphs:
    """Captures a block and its derivative once, and takes the four graphs out of it. `tile` as in Projections.

    Raises UnsupportedModelError when the group size does not divide a matrix.
    """
    block = make_block(config, layout.lora.scaling, tile)
    tensors = layer_tensors(config, quantization)
    examples = _example_inputs(config, layout, seq_len)
    weights = [torch.zeros(shape, dtype=getattr(torch, dtype)) for dtype, shape in tensors.values()]

    def joint(h: Tensor, g: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, adapter: Tensor, *w: Tensor) -> tuple[Tensor, ...]:
        weights_by_name = dict(zip(tensors, w))
        # The gradient is taken by each matrix and concatenated once; by the flat vector it would be a sum of padded slices.
        result: tuple[Any, ...] = torch.func.vjp(lambda x, lora: block(x, cos, sin, mask, lora, weights_by_name), h, layout.views(adapter))
        h_next, vjp = result
        dh, dlora = vjp(g)
        return h_next, dh, torch.cat([dlora[matrix.name].reshape(-1) for matrix in layout.matrices])

    args = [examples[name] for name in BACKWARD_INPUTS] + weights
    return split(capture(joint, args, (*BACKWARD_INPUTS, *tensors), ("h_next", "g_next", "d_adapter")), seq_len)


@dataclass(frozen=True)
class DecodeGraphs:
    """A block for generation with a cache of keys (after RoPE) and values, float32 [T, K, d] (K key-value heads, d head dimension).

    `prefill`: block_forward's inputs -> `h_next`, `keys`, `values` of all T tokens. `decode`: one token, h [1, D], cos and sin [1, d], mask
    [1, T + 1] (the cache's places, then the token itself), `past_keys`, `past_values` -> `h_next` [1, D], `keys`, `values` [1, K, d].
    """

    prefill: CapturedGraph
    decode: CapturedGraph


def capture_decoding(
    config: ModelConfig, layout: AdapterLayout, quantization: QuantizationConfig, seq_len: int, tile: int | None = None
) -> DecodeGraphs:
    block = make_block(config, layout.lora.scaling, tile)
    tensors = layer_tensors(config, quantization)
    examples = _example_inputs(config, layout, seq_len)
    weights = [torch.zeros(shape, dtype=getattr(torch, dtype)) for dtype, shape in tensors.values()]
    heads = (config.num_key_value_heads, config.head_dim)
    one = {
        "h": torch.zeros(1, config.hidden_size),
        "cos": torch.zeros(1, config.head_dim),
        "sin": torch.zeros(1, config.head_dim),
        "mask": torch.zeros(1, seq_len + 1),
        "past_keys": torch.zeros(seq_len, *heads),
        "past_values": torch.zeros(seq_len, *heads),
        "adapter": examples["adapter"],
    }

    def prefill(h: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, adapter: Tensor, *w: Tensor) -> tuple[Tensor, ...]:
        seen: list[Tensor] = []

        def record(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            seen.extend((keys, values))
            return keys, values

        h_next = block(h, cos, sin, mask, layout.views(adapter), dict(zip(tensors, w)), record)
        return h_next, *seen

    def decode(
        h: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past_keys: Tensor, past_values: Tensor, adapter: Tensor, *w: Tensor
    ) -> Any:
        seen: list[Tensor] = []

        def extend(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            seen.extend((keys, values))
            return torch.cat((past_keys, keys)), torch.cat((past_values, values))

        h_next = block(h, cos, sin, mask, layout.views(adapter), dict(zip(tensors, w)), extend)
        return h_next, *seen

    results = ("h_next", "keys", "values")
    return DecodeGraphs(
        prefill=capture(prefill, [examples[n] for n in ACTIVATION_INPUTS] + weights, (*ACTIVATION_INPUTS, *tensors), results),
        decode=capture(decode, [*one.values(), *weights], (*one, *tensors), results),
    )


def split(joint: CapturedGraph, seq_len: int) -> BlockGraphs:
    """(h_next, g_next, d_adapter) of (h, g, …) -> the four graphs."""
    decompress_for_each_sweep(joint.graph)
    h_next, g_next, d_adapter = joint.results
    inputs = dict(zip(joint.placeholders, joint.inputs))
    without_g = {node: name for node, name in inputs.items() if name != "g"}
    cut = values_to_keep(joint)
    kept = {node: f"kept.{number}" for number, node in enumerate(cut)}
    return BlockGraphs(
        forward=extract(joint, without_g, {"h_next": h_next}),
        backward=extract(joint, inputs, {"g_next": g_next, "d_adapter": d_adapter}),
        forward_keep=extract(joint, without_g, {"h_next": h_next} | {name: node for node, name in kept.items()}),
        backward_kept=extract(joint, inputs | kept, {"g_next": g_next, "d_adapter": d_adapter}),
        kept=tuple(kept.values()),
        seq_len=seq_len,
    )


def _example_inputs(config: ModelConfig, layout: AdapterLayout, seq_len: int) -> dict[str, Tensor]:
    """Distinct tensors: make_fx takes one tensor passed twice for one input."""
    hidden, rope = (seq_len, config.hidden_size), (seq_len, config.head_dim)
    shapes = {"h": hidden, "g": hidden, "cos": rope, "sin": rope, "mask": (seq_len, seq_len), "adapter": (layout.size,)}
    return {name: torch.zeros(shape) for name, shape in shapes.items()}
