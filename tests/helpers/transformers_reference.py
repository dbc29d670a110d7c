"""The reference that shares no code with the toolkit's models: transformers' model, peft's LoRA, autograd.

The base holds what the bundle's matrices decompress to. Each packed example is a pass of its own, so neither segments nor masks of ours
are involved.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor

from helpers.peft_models import dequantized
from helpers.tiny_models import TinyModel
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.export.reference.eager import EagerRunner

Hidden = dict[int, Float32Array]  # layer -> d loss / d h[layer], float32 [T, D]; L: at the top


@dataclass(frozen=True)
class TransformersReference:
    """`model`: a PeftModel in float32, eager attention, with LoRA of `layout`."""

    model: Any
    layout: AdapterLayout

    @classmethod
    def of(cls, model: TinyModel) -> TransformersReference:
        return cls.over(dequantized(model), model.layout)

    @classmethod
    def over(cls, base: Any, layout: AdapterLayout) -> TransformersReference:
        """On transformers' model, which is changed."""
        names = sorted({module.rpartition(".")[2] for layer in range(layout.num_layers) for module in layout.modules(layer)})
        lora = peft.LoraConfig(r=layout.lora.rank, lora_alpha=layout.lora.alpha, target_modules=names, task_type="CAUSAL_LM")
        return cls(peft.get_peft_model(base, lora).eval(), layout)

    def logits(self, ids: Tensor, adapter: Float32Array) -> Tensor:
        """(T, V) of one example, int64 (T,)."""
        self._set(adapter)
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=ids[None], use_cache=False).logits[0]
        return logits

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> tuple[StepResult, Hidden]:
        """By the definition of the method: `h + (o - h).detach()` in the layers above min(train) that pass no gradient."""
        self._set(adapter)
        layers: list[Any] = list(self.model.base_model.model.model.layers)
        hidden = [np.zeros((len(batch.input_ids), self._hidden_size), np.float32) for _ in range(len(layers) + 1)]
        identities = [layer for number, layer in enumerate(layers) if number > subset.train[0] and number not in subset.propagate]
        total = 0.0
        for part in _parts(batch):
            if (batch.labels[part] == IGNORED_LABEL).all():
                continue
            inputs: list[Tensor] = []
            with _hooks(layers, identities, inputs):
                logits = self.model(input_ids=torch.from_numpy(batch.input_ids[part])[None], use_cache=False).logits[0]
            labels = torch.from_numpy(batch.labels[part])
            loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum") / batch.counted_labels
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            for array, h in zip(hidden, inputs, strict=True):
                array[part] = 0 if h.grad is None else h.grad[0].numpy()
        return StepResult(total, {layer: self._gradient(layer) for layer in subset.train}), dict(enumerate(hidden))

    @property
    def _hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    def _set(self, adapter: Float32Array) -> None:
        self.model.zero_grad()
        state = {name: torch.from_numpy(view.copy()) for name, view in self.layout.named(adapter)}
        outcome = peft.set_peft_model_state_dict(self.model, state)
        assert not outcome.unexpected_keys and not [name for name in outcome.missing_keys if "lora" in name]

    def _gradient(self, layer: int) -> Float32Array:
        modules = dict(self.model.base_model.model.model.layers[layer].named_modules())
        parts = [matrix.name.rpartition(".") for matrix in self.layout.matrices[self.layout.kinds[layer]]]
        gradients = [getattr(modules[module], lora)["default"].weight.grad for module, _, lora in parts]
        flat: Float32Array = np.concatenate([gradient.numpy().ravel() for gradient in gradients])
        return flat


class RecordingRunner(EagerRunner):
    """The eager runner, and the gradients that passed between its layers in the last step."""

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        self.hidden: Hidden = {}
        return super().step(subset, batch, adapter)

    def _backward(self, layer: int, h: Tensor, g: Tensor, *rest: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        self.hidden.setdefault(layer + 1, g.numpy())
        dh, d_takes, d_adapter = super()._backward(layer, h, g, *rest)
        self.hidden[layer] = dh.numpy()
        return dh, d_takes, d_adapter


def _parts(batch: Batch) -> Iterator[slice]:
    """The packed examples."""
    edges = [0, *(np.flatnonzero(np.diff(batch.segment_ids)) + 1), len(batch.segment_ids)]
    for start, stop in itertools.pairwise(edges):
        assert batch.position_ids[start:stop].tolist() == list(range(stop - start))
        yield slice(start, stop)


@contextlib.contextmanager
def _hooks(layers: list[Any], identities: list[Any], inputs: list[Tensor]) -> Iterator[None]:
    """Within it `inputs` gets every layer's input and the last one's output, with gradients retained, and `identities` pass them on."""

    def enter(module: Any, args: tuple[Any, ...]) -> None:
        record(args[0])

    def record(h: Tensor) -> None:
        if not h.requires_grad:
            h.requires_grad_()
        h.retain_grad()
        inputs.append(h)

    def leave(module: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
        out = args[0] + (out - args[0]).detach() if module in identities else out
        if module is layers[-1]:
            record(out)
        return out

    handles: list[Any] = [layer.register_forward_pre_hook(enter) for layer in layers]
    handles += [layer.register_forward_hook(leave) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
