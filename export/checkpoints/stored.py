"""Which file of a Hugging Face directory holds which tensor, under which name; headers are read, tensors only to compare two heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import CheckpointError
from lcsb_mobile.export.checkpoints.side_files import read_object
from lcsb_mobile.export.models import HEAD, architecture, checkpoint_weights, embedding_name
from lcsb_mobile.io.bounded import some

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # safetensors' names of what is read -> torch's
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LEFT_OUT = {  # what tensors begin with that no text needs
    "model.visual.": "its vision tower",
    "model.vision_tower.": "its vision tower",
    "model.multi_modal_projector.": "its multi-modal projector",
    "mtp.": "its multi-token prediction",
}
BASE = "model."  # what transformers puts before a name where only that is a tensor of the model: some files hold the model without its head
ROWS_AT_ONCE = 4096  # of embedding and head, when they are compared
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
Places = Mapping[str, tuple[Path, str]]  # tensor name -> file, name in it


def stored_tensors(directory: Path) -> dict[str, Path]:
    """Tensor name -> its file, of all that are listed; none of a single file that cannot be read, which `check_tensors` names."""
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
    weight_map = read_object(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or any(Path(str(file)).name != file for file in weight_map.values()):
        raise CheckpointError(f"{directory / INDEX}: weight_map: expected an object of tensor names and file names beside the index")
    return {name: directory / file for name, file in weight_map.items()}


def present_name(config: ModelConfig, name: str) -> str:
    """A tensor's name as transformers writes it now, where it was another once (the architecture's RENAMED)."""
    renamed: Mapping[str, str] = getattr(architecture(config.model_type), "RENAMED", {})
    return next((new + name.removeprefix(old) for old, new in renamed.items() if name.startswith(old)), name)


def locate(directory: Path, config: ModelConfig, stored: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Where the model's tensors should be, the head also when it is tied, and the parts that are left out. What an index does not list is
    missing. A name that is none of the model's is one of them after BASE (transformers, `rename_source_key`)."""
    expected = {**checkpoint_weights(config), HEAD: ()}
    if (directory / SINGLE).exists() and not stored:  # it cannot be read, and is to be named
        return {name: (directory / SINGLE, name) for name in expected}
    places = {}
    for name, file in stored.items():
        own = present_name(config, name)
        longer = BASE + own
        if own in expected or own.startswith(tuple(LEFT_OUT)):
            places[own] = file, name
        elif longer not in stored and (longer in expected or longer.startswith(tuple(LEFT_OUT))):
            places[longer] = file, name
    return places


def with_stored_head(config: ModelConfig, places: Places) -> tuple[ModelConfig, Places]:
    """As transformers 5 ties (`PreTrainedModel.tie_weights`): to whichever of embedding and head is stored; and a head that is stored
    beside another embedding is not tied, whatever the configuration says."""
    embedding = embedding_name(config)
    if not config.tie_word_embeddings or HEAD not in places:
        return config, places
    others = {name: place for name, place in places.items() if name != HEAD}
    if embedding not in places:
        return config, {**others, embedding: places[HEAD]}
    try:
        equal = _equal(places[embedding], places[HEAD])
    except (SafetensorError, OSError, KeyError):  # the file, or the tensor that it lacks, will be named
        equal = True
    return (config, others) if equal else (msgspec.structs.replace(config, tie_word_embeddings=False), places)


def _equal(first: tuple[Path, str], second: tuple[Path, str]) -> bool:
    shapes = [_read_header(file)[name][1] for file, name in (first, second)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2:
        return False
    starts = range(0, shapes[0][0], ROWS_AT_ONCE)
    return all(torch.equal(*(read_rows(place, start, start + ROWS_AT_ONCE) for place in (first, second))) for start in starts)


def check_tensors(directory: Path, places: Places, expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The dtypes found. Reads headers only; raises one CheckpointError that names every bad file and tensor."""
    faults = []
    headers: dict[Path, dict[str, tuple[str, list[int]]] | None] = {}
    for file in sorted({file for name, (file, _) in places.items() if name in expected}):
        try:
            headers[file] = _read_header(file)
        except (SafetensorError, OSError) as error:
            headers[file] = None
            faults.append(f"{file.name} cannot be read, or is truncated ({error}): download it again")
    dtypes = set()
    for name, shape in expected.items():
        place = places.get(name)
        header = headers[place[0]] if place else {}
        if header is None:  # the file has been named
            continue
        dtype, found = header.get(place[1], (None, [])) if place else (None, [])
        if dtype is None:
            faults.append(f"{name}: missing")
        elif dtype not in DTYPES:
            faults.append(f"{name}: expected dtype {', '.join(DTYPES)}, found {dtype}")
        elif tuple(found) != shape:
            faults.append(f"{name}: expected shape {list(shape)}, found {found}")
        else:
            dtypes.add(DTYPES[dtype])
    if faults:
        raise CheckpointError(f"{directory}: {some(faults)}")
    return dtypes


def stored_shapes(places: Places) -> dict[str, tuple[int, ...]]:
    headers = {file: _read_header(file) for file, _ in places.values()}
    return {name: tuple(headers[file][stored][1]) for name, (file, stored) in places.items()}


def read_rows(place: tuple[Path, str], start: int, stop: int) -> Tensor:
    """As `Checkpoint.read_rows`."""
    file, name = place
    with safe_open(file, framework="pt") as shard:
        rows: Tensor = shard.get_slice(name)[start:stop]
    return rows.to(torch.float32)


def _read_header(file: Path) -> dict[str, tuple[str, list[int]]]:
    """Tensor name -> (dtype, shape). Opening also proves that the file is as long as its header says."""
    if not file.is_file():
        raise FileNotFoundError("no such file")
    with safe_open(file, framework="pt") as shard:
        slices = {name: shard.get_slice(name) for name in shard.keys()}
        return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
