"""The slow, obvious step that every other form of a step is held to: the whole float model in one autograd graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import MappedWeights
from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.layers import Linear, WholeLinear, attention_masks, attention_over, rope_tables
from lcsb_mobile.export.weights.quantization import dequantize


def reference_step(
    config: ModelConfig, layout: AdapterLayout, weights: MappedWeights, subset: Subset, batch: Batch, adapter: Float32Array
) -> StepResult:
    """Loss and gradients by plain autograd; a layer above min(train) through which nothing is propagated is an identity to it:
    `h = h + (o - h).detach()` (DESIGN.md, "The method, exactly"). LoRA outside `train` is frozen."""
    subset.check(config.num_hidden_layers)
    model = architecture(config.model_type)
    input_ids, labels, position_ids, segment_ids = map(
        torch.from_numpy, (batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids)
    )
    flat = [torch.from_numpy(row.copy()).requires_grad_(layer in subset.train) for layer, row in enumerate(adapter)]  # each [n]
    cos, sin = (table[:, position_ids] for table in rope_tables(config, int(position_ids.max()) + 1))  # (kinds, T, d)
    masks = attention_masks(config, segment_ids)  # (kinds, T, T)

    h = _matrix(weights, "embed_tokens.weight")[input_ids] * config.embedding_scale  # (T, D)
    for layer, kind in enumerate(config.layer_kinds):
        tensors = {name: torch.from_numpy(array) for name, array in weights.layer(layer).items()}
        linear = _linear(tensors, layout.views(flat[layer]), layout.lora.scaling)
        out = model.block(h, tensors, linear, attention_over(cos[kind], sin[kind], masks[kind], config.query_scale), config)
        exact = layer < subset.train[0] or layer in subset.propagate
        h = out if exact else h + (out - h).detach()
    h = model.final_norm(h, torch.from_numpy(weights["norm.weight"]), config)
    head = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    loss = functional.cross_entropy(h @ _matrix(weights, head).T, labels, ignore_index=IGNORED_LABEL)

    gradients = torch.autograd.grad(loss, [flat[layer] for layer in subset.train])
    return StepResult(loss.item(), {layer: gradient.numpy() for layer, gradient in zip(subset.train, gradients)})


def _matrix(weights: MappedWeights, name: str) -> Tensor:
    return dequantize(torch.from_numpy(weights[f"{name}.packed"]), torch.from_numpy(weights[f"{name}.scale"]))


def _linear(tensors: dict[str, Tensor], lora: dict[str, Tensor], scaling: float) -> Linear:
    """`linear(name, x)`: y = x Wᵀ + b + scaling (x Aᵀ) Bᵀ."""

    def linear(name: str, x: Tensor) -> Tensor:
        y = x @ dequantize(tensors[f"{name}.weight.packed"], tensors[f"{name}.weight.scale"]).T
        if f"{name}.bias" in tensors:
            y = y + tensors[f"{name}.bias"]
        return y + scaling * (x @ lora[f"{name}.lora_A"].T) @ lora[f"{name}.lora_B"].T

    return WholeLinear(linear)
