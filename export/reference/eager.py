"""The eager reference: a step in plain PyTorch and its autograd, one block at a time, from the mapped int4 weights.

No captured graph and no exporter is involved, so it is what they are held to; it records the golden trace. It never holds
more float weights than one block's, nor more of the file in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import MappedWeights
from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import BundleError
from lcsb_mobile.export.graphs.blocks import make_block
from lcsb_mobile.export.graphs.head import chunk_bounds, cross_entropy
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.layers import attention_masks
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.export.weights.quantization import dequantize
from lcsb_mobile.runners.decoding import WholeSequenceDecoder


def import_runtime() -> Any:
    return torch


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> EagerRunner:
    manifest = bundle.manifest
    if manifest.weights != weight_table(manifest.model, manifest.quantization, manifest.seq_len):
        raise BundleError(f"{bundle.path}: its weights are not those of a {manifest.model.model_type}; export the bundle again")
    return EagerRunner(manifest.model, manifest.adapter, bundle.weights, threads)


class EagerRunner:
    """A StepRunner over `weights.bin`. Each step's tensors are freed when it returns."""

    name = "eager"
    version = str(torch.__version__)

    def __init__(self, config: ModelConfig, layout: AdapterLayout, weights: MappedWeights, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.config, self.layout, self.weights = config, layout, weights
        self.block = make_block(config, layout.lora.scaling)
        self.norm = architecture(config.model_type).final_norm
        self.head_name = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(self.config.num_hidden_layers)
        saved: dict[int, Tensor] = {}
        h = self._forward(batch, adapter, saved, subset.propagate)
        loss, g = self._head(h, batch)
        gradients: dict[int, Float32Array] = {}
        for layer in range(self.config.num_hidden_layers - 1, subset.train[0] - 1, -1):
            if layer in subset.propagate:
                g, gradient = self._backward(layer, saved.pop(layer), g, batch, adapter)
                if layer in subset.train:
                    gradients[layer] = gradient.numpy()
        return StepResult(float(loss), gradients)

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        return float(self._head(self._forward(batch, adapter), batch)[0])

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        h = self._forward(batch, adapter)
        x = self.norm(h[position : position + 1], self._tensor("norm.weight"), self.config)
        logits: Float32Array = torch.cat([(x @ rows.t())[0] for rows in self._head_chunks()]).numpy()
        return logits

    def decoder(self, adapter: Float32Array) -> WholeSequenceDecoder:
        seq_len = self.weights["rope.cos"].shape[1]
        return WholeSequenceDecoder(lambda batch, position: self.next_logits(batch, position, adapter), seq_len)

    @torch.no_grad()
    def _forward(self, batch: Batch, adapter: Float32Array, saved: dict[int, Tensor] | None = None, keep: Collection[int] = ()) -> Tensor:
        """h[L] (T, D); the inputs of the layers in `keep` go to `saved`."""
        h = self._rows("embed_tokens.weight", batch.input_ids) * self.config.embedding_scale
        for layer in range(self.config.num_hidden_layers):
            if layer in keep and saved is not None:
                saved[layer] = h
            h = self.block(h, *self._attention_inputs(layer, batch), self._lora(layer, adapter), self._layer(layer))
            self.weights.release()
        return h

    def _backward(self, layer: int, h: Tensor, g: Tensor, batch: Batch, adapter: Float32Array) -> tuple[Tensor, Tensor]:
        h = h.detach().requires_grad_()
        flat = torch.from_numpy(adapter[layer]).clone().requires_grad_()
        lora = self.layout.views(flat)
        out = self.block(h, *self._attention_inputs(layer, batch), lora, self._layer(layer))
        dh, dadapter = torch.autograd.grad(out, [h, flat], g)
        self.weights.release()
        return dh, dadapter

    def _head(self, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss over the counted labels and d loss / d h[L], (T, D)."""
        counted = torch.from_numpy(np.flatnonzero(batch.labels != IGNORED_LABEL))
        weight = self._tensor("norm.weight")
        x = self.norm(h[counted], weight, self.config)
        loss, dx = cross_entropy(x, self._rows(self.head_name, batch.labels[counted.numpy()]), self._head_chunks())
        vjp = torch.func.vjp(lambda y: self.norm(y[counted], weight, self.config), h)[1]
        return loss, vjp(dx)[0]

    def _head_chunks(self) -> Iterator[Tensor]:
        for start, stop in chunk_bounds(self.config.vocab_size, self.config.hidden_size):
            yield self._rows(self.head_name, np.arange(start, stop))
            self.weights.release()

    def _rows(self, name: str, rows: np.ndarray) -> Tensor:
        packed, scale = (torch.from_numpy(self.weights[f"{name}.{part}"][rows]) for part in ("packed", "scale"))
        return dequantize(packed, scale)

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.weights[name])

    def _attention_inputs(self, layer: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        kind = self.config.layer_kinds[layer]
        positions = torch.from_numpy(batch.position_ids)
        cos, sin = (self._tensor(f"rope.{name}")[kind, positions] for name in ("cos", "sin"))
        return cos, sin, attention_masks(self.config, torch.from_numpy(batch.segment_ids))[kind]

    def _lora(self, layer: int, adapter: Float32Array) -> dict[str, Tensor]:
        return {name: torch.from_numpy(view) for name, view in self.layout.views(adapter[layer]).items()}

    def _layer(self, layer: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.weights.layer(layer).items()}
