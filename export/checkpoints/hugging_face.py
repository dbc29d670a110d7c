"""Reading a model: a Hugging Face directory of safetensors, or a GGUF file, checked whole before anything is loaded."""

from __future__ import annotations

import abc
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.side_files import carry_files, copy_tokenizer, read_object
from lcsb_mobile.export.checkpoints.stored import (
    BASE,
    DTYPES,
    LEFT_OUT,
    Places,
    check_tensors,
    locate,
    present_name,
    read_rows,
    stored_shapes,
    stored_tensors,
    with_stored_head,
)
from lcsb_mobile.export.models import architecture, checkpoint_weights, layer_prefix
from lcsb_mobile.io.bounded import one_line

if TYPE_CHECKING:
    from lcsb_mobile.export.checkpoints.gguf import GgufWeights

REPOSITORY = "models--"  # what folders of Hugging Face's cache begin with; the rest is owner--name
QUANTIZED = ("quantization_config", "quantization", "compression_config")  # keys of `config.json`: of most, of MLX, of compressed-tensors


class Checkpoint(abc.ABC):
    """A model's configuration, tensors and tokenizer. Tensors have Hugging Face's names: `models.checkpoint_weights`."""

    config: ModelConfig
    description: str  # one line for people: architecture, size, where the weights come from
    raw: Mapping[str, Any]  # what `config.json` holds
    left_out: Mapping[str, tuple[int, ...]]  # tensors that no text needs, by name: their shapes. They can be read like others

    @abc.abstractmethod
    def read(self, name: str) -> Tensor:
        """The tensor `name` as float32; nothing is kept. Raises KeyError for a name that the model does not have."""

    @abc.abstractmethod
    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` - 1 of a matrix as float32, without reading the others: an embedding may be the largest of all."""

    @abc.abstractmethod
    def write_tokenizer(self, directory: Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, chat template included. Raises TokenizerError."""

    def write_side_files(self, directory: Path) -> None:
        """Writes what transformers reads beside `config.json` and weights, for a checkpoint with these. Raises TokenizerError."""
        self.write_tokenizer(directory)

    @abc.abstractmethod
    def close(self) -> None:
        """Drops what is held in memory."""

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens the directory or `.gguf` file and checks that every tensor is there, readable and of the right shape.

    Raises CheckpointError, which names every fault, UnsupportedModelError, or MissingDependencyError (GGUF only).
    """
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory; give a Hugging Face checkpoint directory or a .gguf file")
    if path.suffix != ".gguf":
        raise CheckpointError(f"{path}: expected a Hugging Face checkpoint directory or a .gguf file, found another file")
    return _open_gguf(path)


def model_name(path: Path) -> str:
    """What people call it: the file's or the directory's name, also of "."; of a snapshot in Hugging Face's cache, which has its commit's
    name, the repository's ("owner/name")."""
    whole = Path(os.path.abspath(path))  # links, as all files of the cache are, stay what they are called
    for folder in (whole, *whole.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith(REPOSITORY) and whole.suffix != ".gguf":
            names = folder.parent.parent.name.removeprefix(REPOSITORY).split("--", 1)
            return "/".join((*names, *whole.relative_to(folder).parts))
    return whole.name or str(whole)


@dataclass(frozen=True)
class DirectoryCheckpoint(Checkpoint):
    """A Hugging Face directory. `places`: tensor name -> its safetensors file, which is open only during a `read`, and its name there."""

    config: ModelConfig
    description: str
    raw: Mapping[str, Any]
    directory: Path
    places: Places
    left_out: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        file, stored = self.places[name]
        with safe_open(file, framework="pt") as shard:
            tensor: Tensor = shard.get_tensor(stored)
        return tensor.to(torch.float32)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        return read_rows(self.places[name], start, stop)

    def write_tokenizer(self, directory: Path) -> None:
        copy_tokenizer(self.directory, directory)

    def write_side_files(self, directory: Path) -> None:
        carry_files(self.directory, directory)

    def close(self) -> None:
        """Nothing is held."""


class GgufCheckpoint(Checkpoint):
    """A GGUF file. Tensors are decoded when they are read."""

    def __init__(self, path: Path, config: ModelConfig, raw: Mapping[str, Any], weights: GgufWeights, passed_over: tuple[str, ...]) -> None:
        self.path = path
        self.config = config
        self.raw = raw
        self.description = ", ".join((_size(config), "GGUF", *(f"without the keys of {name}" for name in passed_over)))
        self.left_out: Mapping[str, tuple[int, ...]] = {}
        self._weights = weights

    def read(self, name: str) -> Tensor:
        return self._weights.read(name)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        return self._weights.read_rows(name, start, stop)

    def write_tokenizer(self, directory: Path) -> None:
        from lcsb_mobile.export.checkpoints import gguf

        with tempfile.TemporaryDirectory() as saved:
            gguf.save_tokenizer(self.path, Path(saved))
            copy_tokenizer(Path(saved), directory)

    def write_side_files(self, directory: Path) -> None:
        from lcsb_mobile.export.checkpoints import gguf

        gguf.save_tokenizer(self.path, directory)

    def close(self) -> None:
        self._weights.close()


def _open_directory(directory: Path) -> DirectoryCheckpoint:
    raw = read_object(directory / "config.json")
    _refuse_quantized(directory, raw)
    config = _read_config(raw, directory / "config.json")
    stored = stored_tensors(directory)
    config = _with_stored_prefix(config, stored)
    found, places = with_stored_head(config, locate(directory, config, stored))
    dtypes = check_tensors(directory, places, checkpoint_weights(found))
    others = {name: place for name, place in places.items() if name.startswith(tuple(LEFT_OUT))}
    parts = dict.fromkeys(part for prefix, part in LEFT_OUT.items() if any(name.startswith(prefix) for name in others))
    notes = [f"without {' and '.join(parts)}"] if parts else []
    description = ", ".join((_size(found), " and ".join(sorted(dtypes)), *notes))
    raw = raw if found == config else _untied(raw)
    return DirectoryCheckpoint(found, description, raw, directory, places, stored_shapes(others))


def _refuse_quantized(directory: Path, raw: Mapping[str, Any]) -> None:
    """Raises UnsupportedModelError naming the method, if the configuration has one. MLX writes its bits and groups without a name."""
    found = next((raw[key] for key in QUANTIZED if raw.get(key) is not None), None)
    if found is None:
        return
    method, advice = f"quant_method {found.get('quant_method')!r}" if isinstance(found, dict) else repr(found), ""
    if isinstance(found, dict) and "quant_method" not in found and "group_size" in found:
        method = f"by MLX, {found.get('bits')} bits in groups of {found['group_size']}"
        advice = "; take the checkpoint that it was made from, or what `mlx_lm.convert --dequantize` makes of this one"
    supported = f"{', '.join(DTYPES.values())}, or a .gguf file"
    raise UnsupportedModelError(f"{directory}: the weights are quantised ({one_line(method, 80)}); supported: {supported}{advice}")


def _open_gguf(path: Path) -> GgufCheckpoint:
    from lcsb_mobile.export.checkpoints import gguf

    raw, file, family, passed_over = gguf.read_gguf(path)
    config = _read_config(raw, path)
    return GgufCheckpoint(path, config, raw, gguf.open_weights(config, file, family), passed_over)


def _read_config(raw: Mapping[str, Any], path: Path) -> ModelConfig:
    """The typed configuration; errors name the file."""
    if not isinstance(raw.get("model_type"), str):
        raise CheckpointError(f"{path}: model_type: expected a string, found {raw.get('model_type')!r}")
    try:
        return architecture(raw["model_type"]).read_config(raw)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{path}: {error}") from error


def _with_stored_prefix(config: ModelConfig, stored: Mapping[str, Path]) -> ModelConfig:
    """transformers saves a text model under the names of the multimodal one that it was loaded from, whatever `model_type` it writes."""
    prefixes = (config.tensor_prefix, *getattr(architecture(config.model_type), "TENSOR_PREFIXES", ()))
    candidates = [msgspec.structs.replace(config, tensor_prefix=prefix) for prefix in prefixes]
    names = [present_name(config, name) for name in stored]
    for candidate in candidates:
        layers = layer_prefix(candidate, 0)
        if any(name.startswith((layers, layers.removeprefix(BASE))) for name in names):
            return candidate
    return config


def _untied(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model that is not tied, said outright: a reader before transformers 5 ties what it is told to."""
    said = {"tie_word_embeddings": False} | {name: False for name in ("tie_embedding",) if name in raw}  # LFM2's name comes first
    text = raw.get("text_config")
    parts = {"text_config": text | said} if isinstance(text, dict) else {}
    return {**raw, **said, **parts}


def _size(config: ModelConfig) -> str:
    parameters = sum(torch.Size(shape).numel() for shape in checkpoint_weights(config).values())
    return f"{config.model_type}, {config.num_hidden_layers} layers, {parameters / 1e6:.1f} M parameters"
