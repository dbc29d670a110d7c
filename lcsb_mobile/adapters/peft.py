"""Adapters to and from PEFT's directory: `adapter_config.json` and `adapter_model.safetensors`. Specification: docs/adapter.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from lcsb_mobile.adapters.peft_config import CONFIG_FILE, PeftConfig, read_config, unreached, write_config
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout, check_digest, load_adapter, save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.config import Record
from lcsb_mobile.errors import AdapterError, OutputExistsError
from lcsb_mobile.io.files import check_output, replace_directory
from lcsb_mobile.io.safetensors_reader import FLOATS, StoredTensors, open_tensors
from lcsb_mobile.runs.checkpoint import FORMAT, read_adapter

MODEL_FILE = "adapter_model.safetensors"
TEXT_MODEL_PREFIXES = ("model.", "model.language_model.", "language_model.model.")  # the last before transformers 4.52
PICKLED_FILE = "adapter_model.bin"
MOST_FAULTS = 6  # of a file's tensors that an error names


class ExportedAdapter(Record, frozen=True):
    """What `lcsb adapter export --json` prints. `matrices`: how many tensors the directory holds."""

    directory: str
    base_model: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    matrices: int


class ImportedAdapter(Record, frozen=True):
    """What `lcsb adapter import --json` prints. `base_model`: as PEFT's configuration names it. `matrices`: how many were read.
    `initial`: projection -> the layers in which the directory does not adapt it: there A is the bundle's initial one and B zero."""

    adapter: str
    base_model: str | None
    rank: int
    scaling: float
    dtypes: tuple[str, ...]
    matrices: int
    initial: dict[str, tuple[int, ...]]


def read_source(path: Path, bundle: Bundle) -> Float32Array:
    """float32[N] of an adapter file, of a run's checkpoint, or of the newest checkpoint in a directory; of this bundle, as far as the file
    says.

    Raises AdapterError or RunCheckpointError.
    """
    layout = bundle.manifest.adapter
    if (path / CONFIG_FILE).is_file():
        raise AdapterError(f"{path}: expected an adapter file or a run's checkpoints, found a PEFT directory; lcsb adapter import reads it")
    return read_adapter(path, layout, bundle.identity) if path.is_dir() or _is_checkpoint(path) else load_adapter(path, layout)


def _is_checkpoint(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False  # load_adapter says why


def export_peft(source: Path, bundle: Bundle, output: Path, base_model: str | None = None, force: bool = False) -> ExportedAdapter:
    """Writes `source` (see `read_source`) as a directory that `peft.PeftModel.from_pretrained` loads, whole or not at all.

    `base_model`: what PEFT is to call the base; else the name of what the bundle was exported from. Raises AdapterError,
    RunCheckpointError, OutputExistsError or StorageError.
    """
    check_replaceable(output, force, CONFIG_FILE, (source, bundle.path))
    layout = bundle.manifest.adapter
    adapter = read_source(source, bundle)
    base_model = base_model or bundle.manifest.base_model.name
    with replace_directory(output, force, private=True) as directory:
        save_adapter(directory / MODEL_FILE, layout, adapter)
        targets = write_config(directory / CONFIG_FILE, layout, base_model)
    matrices = sum(len(layout.matrices[kind]) for kind in layout.kinds)
    return ExportedAdapter(str(output), base_model, layout.lora.rank, layout.lora.alpha, targets, matrices)


def import_peft(directory: Path, bundle: Bundle, output: Path, force: bool = False) -> ImportedAdapter:
    """Writes PEFT's `directory` as an adapter file of the bundle, which training goes on from, whole or not at all.

    Raises AdapterError for whatever is wrong with the directory, OutputExistsError or StorageError.
    """
    check_output(output, force)
    layout = bundle.manifest.adapter
    config = read_config(directory / CONFIG_FILE, layout)
    file = _open_model(directory)
    named = _as_the_file_calls(layout, file)
    initial = _check(file, config, named)
    adapter = bundle.initial_adapter()
    for name, view in named.named(adapter):
        if name in file.tensors:
            view[:] = file.read(name)
        elif ".lora_B." in name:
            view[:] = 0
    if not np.isfinite(adapter).all():
        raise AdapterError(f"{file.path}: holds NaN or infinite values")
    save_adapter(output, layout, adapter)
    dtypes = tuple(sorted({tensor.dtype for tensor in file.tensors.values()}))
    return ImportedAdapter(str(output), config.base_model_name_or_path, config.r, layout.lora.scaling, dtypes, len(file.tensors), initial)


def _as_the_file_calls(layout: AdapterLayout, file: StoredTensors) -> AdapterLayout:
    """The layout with the prefix that the file's names have: transformers' class for text alone and that for a whole multimodal
    checkpoint call the same layers differently. With its own where the names have another."""
    for prefix in TEXT_MODEL_PREFIXES:
        renamed = dataclasses.replace(layout, prefix=prefix)
        if not file.tensors.keys().isdisjoint(_shapes(renamed)):
            return renamed
    return layout


def _shapes(layout: AdapterLayout) -> dict[str, tuple[int, int]]:
    """By PEFT's names."""
    return {layout.tensor_name(layer, m.name): m.shape for layer, kind in enumerate(layout.kinds) for m in layout.matrices[kind]}


def _open_model(directory: Path) -> StoredTensors:
    path = directory / MODEL_FILE
    if not path.is_file() and (directory / PICKLED_FILE).exists():
        raise AdapterError(f"{directory}: only pickled weights ({PICKLED_FILE}), which are not read; load and save it with a newer peft")
    file = open_tensors(path)
    check_digest(path, file.metadata)
    return file


def _check(file: StoredTensors, config: PeftConfig, layout: AdapterLayout) -> dict[str, tuple[int, ...]]:
    """Projection -> the layers that the file leaves out. Raises AdapterError naming every tensor that does not fit."""
    faults = [] if file.tensors else ["holds no tensors"]
    faults += _tensor_faults(file, layout)
    initial: dict[str, tuple[int, ...]] = {}
    adapted: dict[str, int] = {}
    for layer in range(layout.num_layers):
        for module in layout.modules(layer):
            pair = [layout.tensor_name(layer, f"{module}.{part}") for part in ("lora_A", "lora_B")]
            missing = [name for name in pair if name not in file.tensors]
            if len(missing) == 2:
                initial[module] = (*initial.get(module, ()), layer)
            else:
                faults += [f"{name} is missing" for name in missing]
                adapted[layout.module_name(layer, module)] = layer
    faults += [
        f"{name} is adapted, and {CONFIG_FILE} says it is not" for name in unreached(file.path.with_name(CONFIG_FILE), config, adapted)
    ]
    if faults:
        more = f" (and {len(faults) - MOST_FAULTS} more)" if len(faults) > MOST_FAULTS else ""
        raise AdapterError(f"{file.path}: does not fit the bundle's adapter: {'; '.join(faults[:MOST_FAULTS])}{more}")
    return initial


def _tensor_faults(file: StoredTensors, layout: AdapterLayout) -> list[str]:
    wanted = _shapes(layout)
    faults = []
    for name, tensor in file.tensors.items():
        if name not in wanted:
            faults.append(f"{name[:100]!r}: the bundle adapts no such matrix")
        elif tensor.dtype not in FLOATS:
            faults.append(f"{name}: expected {', '.join(FLOATS)}, found {tensor.dtype[:10]!r}")
        elif tensor.shape != wanted[name]:
            faults.append(f"{name}: expected {list(wanted[name])}, found {list(tensor.shape)}")
    return faults


def check_replaceable(output: Path, force: bool, marker: str, inputs: Iterable[Path]) -> None:
    """Raises OutputExistsError unless `output` is free, or may be replaced by force: an empty directory, or one that holds `marker`
    and none of `inputs`. Nothing else is ever removed."""
    check_output(output, force)
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / marker).is_file():
        raise OutputExistsError(f"{output}: already exists and holds no {marker}, so it is not replaced; choose another path")
    if any(path.resolve().is_relative_to(output.resolve()) for path in inputs):
        raise OutputExistsError(f"{output}: holds what is read, so it is not replaced; choose another path")
