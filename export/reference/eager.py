"""The eager reference: a step in plain PyTorch and its autograd, one block at a time, from the mapped int4 weights.

No captured graph and no exporter is involved, so it is what they are held to; it records the golden trace. It never holds
more float weights than one block's, nor more of the file in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import MappedWeights, stored_for
from lcsb_mobile.errors import BundleError
from lcsb_mobile.export.graphs.blocks import Projections
from lcsb_mobile.export.graphs.head import chunk_bounds, cross_entropy, soft_capped
from lcsb_mobile.export.models import Model, model_of
from lcsb_mobile.export.models.kinds import bound_gives, bound_values
from lcsb_mobile.export.models.tables import step_tables
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.export.weights.layer_tensors import lora_layout
from lcsb_mobile.export.weights.quantization import dequantize_stored
from lcsb_mobile.runners.decoding import WholeSequenceDecoder


def import_runtime() -> Any:
    return torch


def make_runner(bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> EagerRunner:
    manifest = bundle.manifest
    model, layout = model_of(manifest.model), manifest.adapter
    table = weight_table(manifest.model, manifest.quantization, manifest.seq_len, stored_for(manifest.weights))
    if manifest.weights != table or not _same_layers(model, manifest):
        raise BundleError(f"{bundle.path}: its layers are not those of a {manifest.model.model_type}; export the bundle again")
    return EagerRunner(model, layout, bundle.weights, threads)


def _same_layers(model: Model, manifest: Manifest) -> bool:
    ours = [(place.kind, dict(place.reads), dict(place.takes), dict(place.gives)) for place in model.places]
    layout = lora_layout(model, manifest.lora)
    theirs = [(layer.kind, layer.reads, layer.takes, layer.gives) for layer in manifest.layers]
    return ours == theirs and layout == manifest.adapter


class EagerRunner:
    """A StepRunner over `weights.bin`. Each step's tensors are freed when it returns."""

    name = "eager"
    version = str(torch.__version__)

    def __init__(self, model: Model, layout: AdapterLayout, weights: MappedWeights, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.model, self.config, self.layout, self.weights = model, model.config, layout, weights
        self.head_name = "embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        self._places = list(model.walk())
        self._givers = {value: layer for layer, place in enumerate(model.places) for value in place.gives.values()}

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        subset.check(self.config.num_hidden_layers)
        vectors, tables = self.layout.vectors(adapter), self._tables(batch)
        saved: dict[int, Tensor] = {}
        crossing: dict[str, Tensor] = {}
        h = self._forward(batch, vectors, tables, crossing, saved, subset.propagate)
        loss, g = self._head(h, batch)
        gradients: dict[int, Float32Array] = {}
        sums: dict[str, Tensor] = {}  # what crosses layers -> its gradient so far
        for layer in range(self.config.num_hidden_layers - 1, subset.train[0] - 1, -1):
            if layer in subset.propagate:
                g, d_takes, gradient = self._backward(layer, saved.pop(layer), g, tables, crossing, sums, vectors[layer])
                for value, part in d_takes.items():
                    if self._givers[value] in subset.propagate and self._givers[value] >= subset.train[0]:
                        sums[value] = sums[value] + part if value in sums else part
                if layer in subset.train:
                    gradients[layer] = gradient.numpy()
        return StepResult(float(loss), gradients)

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        return float(self._head(self._forward(batch, self.layout.vectors(adapter), self._tables(batch)), batch)[0])

    def next_logits(self, batch: Batch, position: int, adapter: Float32Array) -> Float32Array:
        h = self._forward(batch, self.layout.vectors(adapter), self._tables(batch))
        x = self.model.final_norm(h[position : position + 1], self._tensor("norm.weight"))
        logits = torch.cat([(x @ rows.t())[0] for rows in self._head_chunks()])
        capped: Float32Array = soft_capped(logits, self.config.final_logit_softcapping)[0].numpy()
        return capped

    def decoder(self, adapter: Float32Array) -> WholeSequenceDecoder:
        return WholeSequenceDecoder(lambda batch, position: self.next_logits(batch, position, adapter), self.seq_len)

    @property
    def seq_len(self) -> int:
        """As many positions as the bundle has angles for."""
        return min(len(self.weights[f"rope.{name}.cos"]) for name in self.config.attention_kinds)

    @torch.no_grad()
    def _forward(
        self,
        batch: Batch,
        vectors: Sequence[Float32Array],
        tables: Mapping[str, Tensor],
        crossing: dict[str, Tensor] | None = None,
        saved: dict[int, Tensor] | None = None,
        keep: Collection[int] = (),
    ) -> Tensor:
        """h[L] (T, D); the inputs of the layers in `keep` go to `saved`, what layers give to `crossing`."""
        crossing = {} if crossing is None else crossing
        h = self._rows("embed_tokens.weight", batch.input_ids) * self.config.embedding_scale
        for layer, (place, kind) in enumerate(self._places):
            if layer in keep and saved is not None:
                saved[layer] = h
            lora = self.layout.views(layer, torch.from_numpy(vectors[layer]))
            h, *given = self._block(layer, {"h": h, **bound_values(kind, place, tables, crossing)}, lora)
            crossing.update(bound_gives(kind, place, given))
            self.weights.release()
        return h

    def _backward(
        self,
        layer: int,
        h: Tensor,
        g: Tensor,
        tables: Mapping[str, Tensor],
        crossing: Mapping[str, Tensor],
        sums: dict[str, Tensor],
        vector: Float32Array,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """d loss / d h, / d what it took by the step's names, and / d its adapter."""
        place, kind = self._places[layer]
        h = h.detach().requires_grad_()
        flat = torch.from_numpy(vector).clone().requires_grad_()
        taken = {place.takes[name]: crossing[place.takes[name]].detach().requires_grad_() for name in kind.takes}
        values = {"h": h, **bound_values(kind, place, tables, {**crossing, **taken})}
        out, *given = self._block(layer, values, self.layout.views(layer, flat))
        owed = {name: sums.pop(place.gives.get(name, ""), None) for name in kind.gives}
        outputs = [(out, g)] + [(value, owed[name]) for name, value in zip(kind.gives, given) if owed[name] is not None]
        results = torch.autograd.grad([o for o, _ in outputs], [h, flat, *taken.values()], [d for _, d in outputs])
        self.weights.release()
        return results[0], dict(zip(taken, results[2:])), results[1]

    def _block(self, layer: int, values: Mapping[str, Tensor], lora: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        kind = self._places[layer][1]
        weights = {name: torch.from_numpy(array) for name, array in self.weights.layer(kind.name, self.model.numbers[layer]).items()}
        return kind.block(values, weights, Projections(weights, lora, self.layout.lora.scaling))

    def _tables(self, batch: Batch) -> dict[str, Tensor]:
        tables = step_tables(self.config, len(batch.input_ids))
        stored = {name: self._tensor(name) for name in tables.stored}
        ids = {name: torch.from_numpy(getattr(batch, name)) for name in tables.inputs}
        return tables.make({**tables.consts, **stored, **ids})

    def _head(self, h: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss over the counted labels and d loss / d h[L], (T, D)."""
        counted = torch.from_numpy(np.flatnonzero(batch.labels != IGNORED_LABEL))
        weight = self._tensor("norm.weight")
        x = self.model.final_norm(h[counted], weight)
        label_rows = self._rows(self.head_name, batch.labels[counted.numpy()])
        loss, dx = cross_entropy(x, label_rows, self._head_chunks(), self.config.final_logit_softcapping)
        vjp = torch.func.vjp(lambda y: self.model.final_norm(y[counted], weight), h)[1]
        return loss, vjp(dx)[0]

    def _head_chunks(self) -> Iterator[Tensor]:
        for start, stop in chunk_bounds(self.config.vocab_size, self.config.hidden_size):
            yield self._rows(self.head_name, np.arange(start, stop))
            self.weights.release()

    def _rows(self, name: str, rows: np.ndarray) -> Tensor:
        packed, scale = (torch.from_numpy(self.weights[f"{name}.{part}"][rows]) for part in ("packed", "scale"))
        return dequantize_stored(packed, scale, self.config.hidden_size)

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.weights[name])
