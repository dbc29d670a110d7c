"""The supported architectures, one module each, named after `model_type` in `config.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.models import gemma2, gemma3_text, granite, lfm2, llama, mistral, phi3, qwen2, qwen3, qwen3_5, smollm3
from lcsb_mobile.export.models.kinds import BlockKind, Place


class Architecture(Protocol):
    """What a module of this package provides. T tokens, D hidden size. Where a module has them, FINAL_NORM is the checkpoint's name of
    the norm before the head, without the prefix, TENSOR_PREFIXES are all prefixes that a checkpoint may have, and RENAMED says which
    beginnings of names are now others."""

    def read_config(self, raw: Mapping[str, Any]) -> ModelConfig:
        """From the contents of `config.json`. Raises CheckpointError (a field) or UnsupportedModelError (an option)."""
        ...

    def kinds(self, config: ModelConfig) -> tuple[BlockKind, ...]:
        """The kinds of its layers, in the order in which they are first used."""
        ...

    def layers(self, config: ModelConfig) -> tuple[Place, ...]:
        """What each layer is."""
        ...

    def final_norm(self, h: Tensor, weight: Tensor, config: ModelConfig) -> Tensor:
        """The norm before the head, (T, D) -> (T, D); weight (D,)."""
        ...


HEAD = "lm_head.weight"  # a checkpoint's name of the head that is not tied

ARCHITECTURES: dict[str, Architecture] = {
    "gemma2": gemma2,
    "gemma3": gemma3_text,  # with a vision tower, which is left out: read as gemma3_text
    "gemma3_text": gemma3_text,
    "granite": granite,
    "lfm2": lfm2,
    "llama": llama,
    "ministral": mistral,  # mistral with `layer_types`
    "mistral": mistral,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_5": qwen3_5,  # with a vision tower, which is left out: read as qwen3_5_text
    "qwen3_5_text": qwen3_5,
    "smollm3": smollm3,
}


def architecture(model_type: str) -> Architecture:
    """Raises UnsupportedModelError, which lists what is supported."""
    if model_type not in ARCHITECTURES:
        raise UnsupportedModelError(f"model_type {model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[model_type]


@dataclass(frozen=True)
class Model:
    """An architecture at a size: its kinds of layers by name, and its layers."""

    config: ModelConfig
    architecture: Architecture
    kinds: Mapping[str, BlockKind]
    places: tuple[Place, ...]

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Of each layer among those of its kind."""
        return tuple(sum(other.kind == place.kind for other in self.places[:layer]) for layer, place in enumerate(self.places))

    def count(self, kind: str) -> int:
        return sum(place.kind == kind for place in self.places)

    def walk(self) -> Iterator[tuple[Place, BlockKind]]:
        """The layers from the first up."""
        return ((place, self.kinds[place.kind]) for place in self.places)

    def final_norm(self, h: Tensor, weight: Tensor) -> Tensor:
        """The norm before the head, (T, D) -> (T, D); weight (D,)."""
        return self.architecture.final_norm(h, weight, self.config)


def model_of(config: ModelConfig) -> Model:
    """Raises UnsupportedModelError for an architecture that is not supported."""
    family = architecture(config.model_type)
    return Model(config, family, {kind.name: kind for kind in family.kinds(config)}, family.layers(config))


def embedding_name(config: ModelConfig) -> str:
    """As a checkpoint calls it; likewise below."""
    return f"{config.tensor_prefix}embed_tokens.weight"


def head_name(config: ModelConfig) -> str:
    """The embedding where they are tied."""
    return embedding_name(config) if config.tie_word_embeddings else HEAD


def final_norm_name(config: ModelConfig) -> str:
    return config.tensor_prefix + getattr(architecture(config.model_type), "FINAL_NORM", "norm.weight")


def layer_prefix(config: ModelConfig, layer: int) -> str:
    return f"{config.tensor_prefix}layers.{layer}."


def layer_sources(kind: BlockKind) -> dict[str, tuple[int, ...]]:
    """What a checkpoint holds of a layer: name within it -> shape; matrices are [out, in]."""
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in kind.matrices.items()}
    return shapes | {vector.source or name: vector.source_shape or vector.shape for name, vector in kind.vectors.items()}


def checkpoint_weights(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint by its full name -> shape; `lm_head.weight` only when the head is not tied."""
    model = model_of(config)
    weights: dict[str, tuple[int, ...]] = {embedding_name(config): (config.vocab_size, config.hidden_size)}
    for number, (_, kind) in enumerate(model.walk()):
        weights |= {layer_prefix(config, number) + name: shape for name, shape in layer_sources(kind).items()}
    weights[final_norm_name(config)] = (config.hidden_size,)
    return weights | {head_name(config): (config.vocab_size, config.hidden_size)}


def layer_vectors(read: Callable[[str], Tensor], config: ModelConfig, layer: int, kind: BlockKind) -> dict[str, Tensor]:
    """A layer's `vectors` as they are stored. `read`: gives the checkpoint's tensors as float32."""
    prefix = layer_prefix(config, layer)
    return {name: vector.convert(read(prefix + (vector.source or name))) for name, vector in kind.vectors.items()}
