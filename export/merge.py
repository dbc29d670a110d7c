"""`merge`: base and adapter as one Hugging Face checkpoint, W + alpha/rank * B A in float32, then cast; one matrix at a time."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy.typing as npt
import torch
from torch import Tensor

from lcsb_mobile.adapters.merge_options import MergeDtype, MergeOptions
from lcsb_mobile.adapters.peft import check_replaceable, read_source
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import TINY
from lcsb_mobile.bundle.weights import layer_tensor
from lcsb_mobile.config import ModelConfig, Record
from lcsb_mobile.errors import CheckpointError
from lcsb_mobile.export.checkpoints.hugging_face import model_name, open_checkpoint
from lcsb_mobile.export.checkpoints.stored import DTYPES, INDEX, SINGLE
from lcsb_mobile.export.models import checkpoint_weights, embedding_name, head_name, layer_prefix
from lcsb_mobile.export.weights.quantization import dequantize_stored
from lcsb_mobile.io.bounded import some
from lcsb_mobile.io.files import replace_directory
from lcsb_mobile.io.safetensors_writer import TensorEntry, write_safetensors
from lcsb_mobile.tiny import tiny_checkpoint

CONFIG_FILE = "config.json"
SHARD_BYTES = 5_000_000_000  # of tensors in one file
ROWS_AT_ONCE = 16_384  # of a matrix: all of one in a block, a part of an embedding
CONFIG_TOLERANCE = 1e-6  # relative: GGUF keeps a configuration's numbers in float32
OTHER_MODEL = 0.7  # a matrix further than that from the bundle's, relative, is none of this model: 4 bits cost 0.1, another matrix 1.4

SAFETENSORS_DTYPES = {name: dtype for dtype, name in DTYPES.items()}

Progress = Callable[[str, int, int], None]  # stage, done, total


class MergedModel(Record, frozen=True):
    """What `lcsb adapter merge --json` prints. `size`: bytes of the tensors. `base_difference`: ‖W - Ŵ‖ / ‖W‖ of the model's adapted
    matrices and the bundle's, which the adapter was trained on; None where those were taken."""

    directory: str
    source: str
    dtype: str
    files: tuple[str, ...]
    size: int
    merged_matrices: int
    base_difference: float | None


class Base(Protocol):
    """Float weights by Hugging Face's names; a Checkpoint is one."""

    def read(self, name: str) -> Tensor: ...

    def read_rows(self, name: str, start: int, stop: int) -> Tensor: ...


class BundleWeights:
    """A bundle's quantised matrices, decompressed, by Hugging Face's names. What a bundle does not quantise is as `model` has it."""

    def __init__(self, bundle: Bundle, model: Base) -> None:
        self._weights, self._model, self._group_size = bundle.weights, model, bundle.manifest.quantization.group_size
        config = bundle.manifest.model
        self._stacks: dict[str, tuple[str, int | None]] = {
            embedding_name(config): ("embed_tokens.weight", None),
            head_name(config): ("embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight", None),
        }
        for layer, place in enumerate(bundle.manifest.layers):
            for matrix in bundle.manifest.kind_named(place.kind).matrices:
                name = f"{matrix.name.rpartition('.')[0]}.weight"
                self._stacks[layer_prefix(config, layer) + name] = layer_tensor(place.kind, name), place.number

    def read(self, name: str) -> Tensor:
        return self._model.read(name)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        if name not in self._stacks:
            return self._model.read_rows(name, start, stop)
        stack, number = self._stacks[name]
        arrays = [self._weights[f"{stack}.{part}"] for part in ("packed", "scale")]
        packed, scale = (torch.from_numpy((array if number is None else array[number])[start:stop]) for array in arrays)
        rows = dequantize_stored(packed, scale, scale.shape[1] * self._group_size)
        self._weights.release()
        return rows


def merge(bundle: Bundle, options: MergeOptions, progress: Progress = lambda stage, done, total: None) -> MergedModel:
    """Writes a directory that `transformers` loads: configuration, weights, tokenizer; whole or not at all.

    Raises AdapterError, RunCheckpointError, CheckpointError (unreadable, or not the bundle's model), TokenizerError,
    OutputExistsError, StorageError.
    """
    path = tiny_checkpoint() if options.model == TINY else Path(options.model)
    check_replaceable(options.output, options.force, CONFIG_FILE, (options.source, bundle.path, path))
    manifest = bundle.manifest
    adapter = read_source(options.source, bundle)
    with open_checkpoint(path) as model, replace_directory(options.output, options.force, private=True) as directory:
        _check_model(path, model.config, manifest.model)
        own = BundleWeights(bundle, model)
        base = own if options.dequantized else model
        shapes = checkpoint_weights(model.config) | dict(model.left_out)
        merging = Merging(base, own, shapes, manifest.adapter, adapter, options.dtype)
        files = _write_weights(directory, merging, lambda done, total: progress("weights", done, total))
        _write_config(directory, model.raw, options.dtype)
        model.write_side_files(directory)
        source = f"{bundle.path.name}, decompressed" if options.dequantized else f"{model_name(path)}: {model.description}"
    difference = None if options.dequantized else merging.difference
    return MergedModel(str(options.output), source, options.dtype, tuple(files), sum(files.values()), merging.merged, difference)


class Merging:
    """Tensors of the merged model as they are stored, in parts. Compares the base's adapted matrices with the bundle's on the way."""

    def __init__(
        self,
        base: Base,
        own: BundleWeights,
        shapes: Mapping[str, tuple[int, ...]],
        layout: AdapterLayout,
        adapter: Float32Array,
        dtype: MergeDtype,
    ) -> None:
        self.base, self.own, self.shapes, self.scaling, self.dtype = base, own, shapes, layout.lora.scaling, dtype
        self.lora = {
            layout.module_name(layer, name): torch.from_numpy(view)
            for layer, vector in enumerate(layout.vectors(adapter))
            for name, view in layout.views(layer, vector).items()
        }
        self.merged = 0
        self._squares, self._norm = 0.0, 0.0

    @property
    def difference(self) -> float:
        """‖W - Ŵ‖ / ‖W‖ over all adapted matrices."""
        return math.sqrt(self._squares / self._norm) if self._norm else 0.0

    def parts(self, name: str) -> Iterator[npt.NDArray[Any]]:
        shape = self.shapes[name]
        if len(shape) != 2:
            yield self._stored(name, self.base.read(name))
            return
        module = name.removesuffix(".weight")
        a, b = (self.lora.get(f"{module}.{part}") for part in ("lora_A", "lora_B"))
        self.merged += a is not None
        for start in range(0, shape[0], ROWS_AT_ONCE):
            rows = self.base.read_rows(name, start, start + ROWS_AT_ONCE)
            if a is not None and b is not None:
                if self.base is not self.own:
                    self._compare(name, rows, self.own.read_rows(name, start, start + ROWS_AT_ONCE))
                rows = rows + self.scaling * (b[start : start + ROWS_AT_ONCE] @ a)
            yield self._stored(name, rows)

    def _compare(self, name: str, found: Tensor, trained_on: Tensor) -> None:
        square, norm = float((found - trained_on).square().sum()), float(found.square().sum())
        if square > OTHER_MODEL**2 * norm:
            far = math.sqrt(square / norm) if norm else math.inf
            raise CheckpointError(
                f"{name}: expected within {OTHER_MODEL:.0%} of the bundle's, found {far:.0%}: the "
                "bundle was exported from another model; give that one, or --dequantized, which takes the bundle's own weights"
            )
        self._squares, self._norm = self._squares + square, self._norm + norm

    def _stored(self, name: str, tensor: Tensor) -> npt.NDArray[Any]:
        """In the target's dtype; bfloat16 as uint16."""
        stored = tensor.to(getattr(torch, self.dtype))
        if not torch.isfinite(stored).all():
            raise CheckpointError(f"{name}: has values that {self.dtype} cannot hold; take another --dtype")
        array: npt.NDArray[Any] = (stored.view(torch.uint16) if self.dtype == "bfloat16" else stored).numpy()
        return array


def _check_model(path: Path, found: ModelConfig, expected: ModelConfig) -> None:
    """Raises CheckpointError naming every field that is not the bundle's."""
    sides = msgspec.to_builtins(found), msgspec.to_builtins(expected)
    faults = [
        f"{field}: expected {wanted}, found {sides[0][field]}" for field, wanted in sides[1].items() if not _alike(sides[0][field], wanted)
    ]
    if faults:
        raise CheckpointError(f"{path}: not the model that the bundle was exported from: {some(faults)}")


def _alike(first: Any, second: Any) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_alike(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=CONFIG_TOLERANCE)
    return bool(first == second)


def _write_weights(directory: Path, merging: Merging, progress: Callable[[int, int], None]) -> dict[str, int]:
    """One file, or shards and their index, as transformers names them. Returns the bytes of tensors in each file."""
    kind = SAFETENSORS_DTYPES[merging.dtype]
    shards = _shards({name: TensorEntry(kind, shape) for name, shape in merging.shapes.items()})
    names = [SINGLE] if len(shards) == 1 else [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    done = itertools.count(1)

    def read(name: str) -> Iterator[npt.NDArray[Any]]:
        yield from merging.parts(name)
        progress(next(done), len(merging.shapes))

    for file_name, entries in zip(names, shards, strict=True):
        with (directory / file_name).open("wb") as file:
            write_safetensors(file, entries, read, {"format": "pt"})
    files = {name: sum(entry.nbytes for entry in entries.values()) for name, entries in zip(names, shards, strict=True)}
    if len(shards) > 1:
        weight_map = {name: file_name for file_name, entries in zip(names, shards, strict=True) for name in entries}
        _write_json(directory / INDEX, {"metadata": {"total_size": sum(files.values())}, "weight_map": weight_map})
    return files


def _shards(entries: Mapping[str, TensorEntry]) -> list[dict[str, TensorEntry]]:
    """In order, at most SHARD_BYTES each unless one tensor is larger."""
    shards: list[dict[str, TensorEntry]] = [{}]
    size = 0
    for name, entry in entries.items():
        if size and size + entry.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = entry
        size += entry.nbytes
    return shards


def _write_config(directory: Path, raw: Mapping[str, Any], dtype: str) -> None:
    kept = {field: value for field, value in raw.items() if field not in ("torch_dtype", "quantization_config")}
    _write_json(directory / CONFIG_FILE, kept | {"dtype": dtype})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
