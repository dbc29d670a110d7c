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
from lcsb_mobile.export.graphs.head import soft_capped
from lcsb_mobile.export.models import Model
from lcsb_mobile.export.models.kinds import bound_gives, bound_values
from lcsb_mobile.export.models.layers import Linear, WholeLinear
from lcsb_mobile.export.models.tables import step_tables
from lcsb_mobile.export.weights.quantization import dequantize


def reference_step(
    model: Model, layout: AdapterLayout, weights: MappedWeights, subset: Subset, batch: Batch, adapter: Float32Array
) -> StepResult:
    """Loss and gradients by plain autograd; a layer above min(train) through which nothing is propagated is an identity to it:
    `h = h + (o - h).detach()` (DESIGN.md, "The method, exactly"), and what it gives has no gradient. LoRA outside `train` is frozen."""
    config = model.config
    subset.check(config.num_hidden_layers)
    input_ids, labels, position_ids, segment_ids = map(
        torch.from_numpy, (batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids)
    )
    vectors = layout.vectors(adapter)
    flat = [torch.from_numpy(vector.copy()).requires_grad_(layer in subset.train) for layer, vector in enumerate(vectors)]
    tables = step_tables(config, len(batch.input_ids))(position_ids=position_ids, segment_ids=segment_ids)

    h = _matrix(weights, "embed_tokens.weight")[input_ids] * config.embedding_scale  # (T, D)
    crossing: dict[str, Tensor] = {}
    for layer, (place, kind) in enumerate(model.walk()):
        tensors = {name: torch.from_numpy(array) for name, array in weights.layer(kind.name, model.numbers[layer]).items()}
        linear = _linear(tensors, layout.views(layer, flat[layer]), layout.lora.scaling)
        out, *given = kind.block({"h": h, **bound_values(kind, place, tables, crossing)}, tensors, linear)
        exact = layer < subset.train[0] or layer in subset.propagate
        h = out if exact else h + (out - h).detach()
        crossing |= bound_gives(kind, place, given if exact else [value.detach() for value in given])
    h = model.final_norm(h, torch.from_numpy(weights["norm.weight"]))
    head = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    logits, _ = soft_capped(h @ _matrix(weights, head).T, config.final_logit_softcapping)
    loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL)

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
