"""The supported architectures, one module each, named after `model_type` in `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.models import gemma3_text, llama, qwen2, qwen3
from lcsb_mobile.export.models.layers import Attend, Linear


class Architecture(Protocol):
    """What a module of this package provides. T tokens, D hidden size, d head dimension; there is no batch dimension."""

    def read_config(self, raw: Mapping[str, Any]) -> ModelConfig:
        """From the contents of `config.json`. Raises CheckpointError (a field) or UnsupportedModelError (an option)."""
        ...

    def layer_weights(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Tensor name within a layer -> shape. 2-D entries are the seven matrices [out, in], 1-D the vectors."""
        ...

    def block(self, h: Tensor, vectors: Mapping[str, Tensor], linear: Linear, attend: Attend, config: ModelConfig) -> Tensor:
        """One layer: h (T, D) -> (T, D).

        `vectors`: the layer's 1-D tensors by name. `linear(name, x)`, as in `linear("self_attn.q_proj", x)`: matrix, bias and
        LoRA of that projection. `attend(q, k, v)`: attention with the RoPE and the mask of the layer's kind.
        """
        ...

    def final_norm(self, h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
        """The norm before the head, (T, D) -> (T, D); weight (D,)."""
        ...


ARCHITECTURES: dict[str, Architecture] = {"gemma3_text": gemma3_text, "llama": llama, "qwen2": qwen2, "qwen3": qwen3}


def architecture(model_type: str) -> Architecture:
    """Raises UnsupportedModelError, which lists what is supported."""
    if model_type not in ARCHITECTURES:
        raise UnsupportedModelError(f"model_type {model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[model_type]


def checkpoint_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint by its full name -> shape; `lm_head.weight` only when the head is not tied."""
    layer = architecture(config.model_type).layer_weights(config)
    weights: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    for number in range(config.num_hidden_layers):
        weights |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    weights["model.norm.weight"] = (config.hidden_size,)
    return weights if config.tie_word_embeddings else weights | {"lm_head.weight": (config.vocab_size, config.hidden_size)}
