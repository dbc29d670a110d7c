"""One block as graphs: forward, and backward with the forward recomputed inside, captured once for all layers.

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

Outputs: forward `h_next` [T, D]; backward `g_next` [T, D] and `d_adapter` [n].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx import Graph
from torch.fx.experimental.proxy_tensor import make_fx

from lcsb_mobile.adapter import AdapterLayout, adapter_layout
from lcsb_mobile.config import LoraConfig, ModelConfig, QuantizationConfig
from lcsb_mobile.models import architecture
from lcsb_mobile.models.layers import Linear
from lcsb_mobile.quantization import check_group_size, dequantize
from lcsb_mobile.weights import DType

ACTIVATION_INPUTS = ("h", "cos", "sin", "mask", "adapter")
BACKWARD_INPUTS = ("h", "g", "cos", "sin", "mask", "adapter")

Block = Callable[[Tensor, Tensor, Tensor, Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


def projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The seven matrices of a layer: name without `.weight` -> [out, in]."""
    shapes = architecture(config.model_type).layer_weights(config)
    return {name.removesuffix(".weight"): (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}


def lora_layout(config: ModelConfig, lora: LoraConfig) -> AdapterLayout:
    return adapter_layout(projections(config), config.num_hidden_layers, lora)


def packed_tensors(name: str, shape: tuple[int, ...], bits: int, group_size: int) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """The two tensors that a quantised matrix [N, K] is stored as."""
    rows, groups = shape[0], shape[1] // group_size
    packed: tuple[DType, tuple[int, ...]] = (
        ("uint8", (rows, groups, group_size // 2)) if bits == 4 else ("int8", (rows, groups, group_size))
    )
    return {f"{name}.packed": packed, f"{name}.scale": ("float16", (rows, groups))}


def layer_tensors(config: ModelConfig, quantization: QuantizationConfig) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """A layer's frozen tensors as they are stored: name within the layer -> (dtype, shape)."""
    shapes = architecture(config.model_type).layer_weights(config)
    check_group_size({name: shape[1] for name, shape in shapes.items() if len(shape) == 2}, quantization.group_size)
    tensors: dict[str, tuple[DType, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            tensors |= packed_tensors(name, shape, quantization.bits, quantization.group_size)
        else:
            tensors[name] = ("float32", shape)
    return tensors


def make_linear(weights: Mapping[str, Tensor], lora: Mapping[str, Tensor], scaling: float) -> Linear:
    """y = x Wᵀ + b + scaling (x Aᵀ) Bᵀ, by the projection's name."""

    def linear(name: str, x: Tensor) -> Tensor:
        y = x @ dequantize(weights[f"{name}.weight.packed"], weights[f"{name}.weight.scale"]).t()
        if f"{name}.bias" in weights:
            y = y + weights[f"{name}.bias"]
        return y + (x @ lora[f"{name}.lora_A"].t()) @ (lora[f"{name}.lora_B"] * scaling).t()

    return linear


def make_block(config: ModelConfig, scaling: float) -> Block:
    """`block(h, cos, sin, mask, lora, weights)`: plain, differentiable torch; `lora` are the matrices by name."""
    model = architecture(config.model_type)

    def block(h: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, lora: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        return model.block(h, weights, make_linear(weights, lora, scaling), cos, sin, mask, config)

    return block


@dataclass(frozen=True)
class CapturedGraph:
    """A graph of core ATen operators and the two lcsb ops; `inputs` and `outputs` name its placeholders and results."""

    program: torch.export.ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def graph(self) -> Graph:
        graph: Graph = self.program.graph
        return graph

    @property
    def flops(self) -> int:
        """Of the matrix products: 2 m k n each, times the batch of a `bmm`."""
        products = [node for node in self.graph.nodes if node.target in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)]
        return sum(2 * math.prod(node.meta["val"].shape) * node.args[0].meta["val"].shape[-1] for node in products)


@dataclass(frozen=True)
class BlockGraphs:
    """The two graphs of a model's one block signature, for sequences of `seq_len` tokens."""

    forward: CapturedGraph
    backward: CapturedGraph
    seq_len: int


def capture_blocks(config: ModelConfig, layout: AdapterLayout, quantization: QuantizationConfig, seq_len: int) -> BlockGraphs:
    """Captures forward and backward. Raises UnsupportedModelError when the group size does not divide a matrix."""
    block = make_block(config, layout.lora.scaling)
    tensors = layer_tensors(config, quantization)
    examples = _example_inputs(config, layout, seq_len)
    weights = [torch.zeros(shape, dtype=getattr(torch, dtype)) for dtype, shape in tensors.values()]

    def forward(h: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, adapter: Tensor, *w: Tensor) -> tuple[Tensor]:
        return (block(h, cos, sin, mask, layout.views(adapter), dict(zip(tensors, w))),)

    def backward(h: Tensor, g: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, adapter: Tensor, *w: Tensor) -> tuple[Tensor, Tensor]:
        weights_by_name = dict(zip(tensors, w))
        # The gradient is taken by each matrix and concatenated once; by the flat vector it would be a sum of padded slices.
        vjp = torch.func.vjp(lambda x, lora: block(x, cos, sin, mask, lora, weights_by_name), h, layout.views(adapter))[1]
        dh, dlora = vjp(g)
        return dh, torch.cat([dlora[matrix.name].reshape(-1) for matrix in layout.matrices])

    return BlockGraphs(
        forward=capture(forward, [examples[n] for n in ACTIVATION_INPUTS] + weights, (*ACTIVATION_INPUTS, *tensors), ("h_next",)),
        backward=capture(backward, [examples[n] for n in BACKWARD_INPUTS] + weights, (*BACKWARD_INPUTS, *tensors), ("g_next", "d_adapter")),
        seq_len=seq_len,
    )


def _example_inputs(config: ModelConfig, layout: AdapterLayout, seq_len: int) -> dict[str, Tensor]:
    """Distinct tensors: make_fx takes one tensor passed twice for one input."""
    hidden, rope = (seq_len, config.hidden_size), (seq_len, config.head_dim)
    shapes = {"h": hidden, "g": hidden, "cos": rope, "sin": rope, "mask": (seq_len, seq_len), "adapter": (layout.size,)}
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def capture(
    function: Callable[..., tuple[Tensor, ...]], args: Sequence[Tensor], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> CapturedGraph:
    """`function` of tensors as an ATen graph; what it decompresses stays compressed."""
    module = make_fx(function, decomposition_table=dict(core_aten_decompositions()), tracing_mode="fake")(*args)
    module.graph.eliminate_dead_code()
    module.recompile()
    return CapturedGraph(torch.export.export(module, tuple(args), strict=False), inputs, outputs)
