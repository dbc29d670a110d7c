"""Reading a model: a Hugging Face directory of safetensors, or a GGUF file, checked whole before anything is loaded."""

from __future__ import annotations

import abc
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import CheckpointError, TokenizerError, UnsupportedModelError
from lcsb_mobile.export.models import architecture, checkpoint_weights, embedding_name
from lcsb_mobile.io.bounded import refused_as

if TYPE_CHECKING:
    from lcsb_mobile.export.checkpoints.gguf import GgufWeights

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # safetensors' names of what is read -> torch's
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LEFT_OUT = {"model.visual.": "its vision tower", "mtp.": "its multi-token prediction"}  # what tensors begin with that no text needs
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


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


@dataclass(frozen=True)
class DirectoryCheckpoint(Checkpoint):
    """A Hugging Face directory. `files`: tensor name -> its safetensors file, which is open only during a `read`."""

    config: ModelConfig
    description: str
    raw: Mapping[str, Any]
    directory: Path
    files: Mapping[str, Path]
    left_out: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        with safe_open(self.files[name], framework="pt") as shard:
            tensor: Tensor = shard.get_tensor(name)
        return tensor.to(torch.float32)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        with safe_open(self.files[name], framework="pt") as shard:
            rows: Tensor = shard.get_slice(name)[start:stop]
        return rows.to(torch.float32)

    def write_tokenizer(self, directory: Path) -> None:
        copy_tokenizer(self.directory, directory)

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

    def close(self) -> None:
        self._weights.close()


def copy_tokenizer(source: Path, target: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` into `target`, which is made if need be.

    What newer checkpoints keep in `chat_template.jinja`, and older ones in `special_tokens_map.json`, is folded into
    `tokenizer_config.json`. Raises TokenizerError when there is no `tokenizer.json` or a file cannot be read.
    """
    tokenizer = source / "tokenizer.json"
    if not tokenizer.is_file():
        raise TokenizerError(f"{source}: no tokenizer.json; save a fast one with transformers' AutoTokenizer.save_pretrained")
    with refused_as(TokenizerError, f"{tokenizer}: not a tokenizer; download it again"):
        tokenizers.Tokenizer.from_file(str(tokenizer))
    settings = _read_settings(source / "tokenizer_config.json")
    settings = _read_settings(source / "special_tokens_map.json") | settings
    template = source / "chat_template.jinja"
    if template.is_file():
        try:
            settings["chat_template"] = template.read_text(encoding="utf-8")
        except ValueError as error:
            raise TokenizerError(f"{template}: not UTF-8 ({error}); download it again") from error
    ends = _read_settings(source / "generation_config.json").get("eos_token_id")
    if ends is not None:
        settings["eos_token_id"] = ends
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer, target / "tokenizer.json")
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _open_directory(directory: Path) -> DirectoryCheckpoint:
    raw = _read_object(directory / "config.json")
    quantization = raw.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise UnsupportedModelError(
            f"{directory}: the weights are quantised (quant_method {method!r}); supported: {', '.join(DTYPES.values())}, or a .gguf file"
        )
    config = _read_config(raw, directory / "config.json")
    stored = _stored_tensors(directory)
    config = _with_stored_prefix(config, stored)
    expected = checkpoint_weights(config)
    files = _weight_files(directory, stored, expected)
    dtypes = _check_tensors(directory, files, expected)
    parts = [part for prefix, part in LEFT_OUT.items() if any(name.startswith(prefix) for name in stored)]
    notes = [f"without {' and '.join(parts)}"] if parts else []
    description = ", ".join((_size(config), " and ".join(sorted(dtypes)), *notes))
    others = {name: file for name, file in stored.items() if name.startswith(tuple(LEFT_OUT))}
    return DirectoryCheckpoint(config, description, raw, directory, {**files, **others}, _shapes(others))


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


def _stored_tensors(directory: Path) -> dict[str, Path]:
    """Tensor name -> its file, of all that are listed; none of a single file that cannot be read, which `_check_tensors` names."""
    if (directory / SINGLE).exists():
        try:
            return dict.fromkeys(_read_header(directory / SINGLE), directory / SINGLE)
        except (SafetensorError, OSError):
            return {}
    if not (directory / INDEX).exists():
        pickled = [name for name in PICKLED if (directory / name).exists()]
        if pickled:
            raise CheckpointError(f"{directory}: only pickled weights ({pickled[0]}), which are not read; convert them to safetensors")
        raise CheckpointError(f"{directory}: neither {SINGLE} nor {INDEX}")
    weight_map = _read_object(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or any(Path(str(file)).name != file for file in weight_map.values()):
        raise CheckpointError(f"{directory / INDEX}: weight_map: expected an object of tensor names and file names beside the index")
    return {name: directory / file for name, file in weight_map.items()}


def _with_stored_prefix(config: ModelConfig, stored: Mapping[str, Path]) -> ModelConfig:
    """transformers saves a text model under the names of the multimodal one that it was loaded from, whatever `model_type` it writes."""
    prefixes = (config.tensor_prefix, *getattr(architecture(config.model_type), "TENSOR_PREFIXES", ()))
    candidates = [msgspec.structs.replace(config, tensor_prefix=prefix) for prefix in prefixes]
    return next((candidate for candidate in candidates if embedding_name(candidate) in stored), config)


def _weight_files(directory: Path, stored: Mapping[str, Path], expected: Mapping[str, object]) -> dict[str, Path]:
    """Tensor name -> the file that should hold it. A tensor that the index does not list is left out."""
    if (directory / SINGLE).exists():
        return dict.fromkeys(expected, directory / SINGLE)
    return {name: stored[name] for name in expected if name in stored}


def _check_tensors(directory: Path, files: Mapping[str, Path], expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The dtypes found. Reads headers only; raises one CheckpointError that names every bad file and tensor."""
    faults = []
    headers: dict[Path, dict[str, tuple[str, list[int]]] | None] = {}
    for file in sorted(set(files.values())):
        try:
            headers[file] = _read_header(file)
        except (SafetensorError, OSError) as error:
            headers[file] = None
            faults.append(f"{file.name} cannot be read, or is truncated ({error}): download it again")
    dtypes = set()
    for name, shape in expected.items():
        header = headers[files[name]] if name in files else {}
        if header is None:  # the file has been named
            continue
        dtype, found = header.get(name, (None, []))
        if dtype is None:
            faults.append(f"{name}: missing")
        elif dtype not in DTYPES:
            faults.append(f"{name}: expected dtype {', '.join(DTYPES)}, found {dtype}")
        elif tuple(found) != shape:
            faults.append(f"{name}: expected shape {list(shape)}, found {found}")
        else:
            dtypes.add(DTYPES[dtype])
    if faults:
        raise CheckpointError(f"{directory}: {'; '.join(faults)}")
    return dtypes


def _shapes(files: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    headers = {file: _read_header(file) for file in set(files.values())}
    return {name: tuple(headers[file][name][1]) for name, file in files.items()}


def _read_header(file: Path) -> dict[str, tuple[str, list[int]]]:
    """Tensor name -> (dtype, shape). Opening also proves that the file is as long as its header says."""
    if not file.is_file():
        raise FileNotFoundError("no such file")
    with safe_open(file, framework="pt") as shard:
        slices = {name: shard.get_slice(name) for name in shard.keys()}
        return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises CheckpointError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # a ValueError for half a surrogate pair, which JSON can hold and no file
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; a Hugging Face checkpoint has one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _read_settings(path: Path) -> dict[str, Any]:
    """A JSON object of the tokenizer's, empty when there is no such file. Raises TokenizerError."""
    try:
        return _read_object(path) if path.exists() else {}
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error


def _size(config: ModelConfig) -> str:
    parameters = sum(torch.Size(shape).numel() for shape in checkpoint_weights(config).values())
    return f"{config.model_type}, {config.num_hidden_layers} layers, {parameters / 1e6:.1f} M parameters"
