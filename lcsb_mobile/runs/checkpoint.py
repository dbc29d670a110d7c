"""A run's state in one file, from which it goes on bit for bit: adapter, moments, how far it came, and what it is a run of.

Specification: docs/run_checkpoint.md. The file is safetensors; its metadata carries a SHA-256 of the whole file, header included, in which
the digest's own 64 characters count as zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from lcsb_mobile.arrays import Float32Array, Int64Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError, RunCheckpointError
from lcsb_mobile.io.bounded import some
from lcsb_mobile.io.files import replace_atomically
from lcsb_mobile.io.safetensors_writer import UNKNOWN_DIGEST, TensorEntry, file_digest, write_digested
from lcsb_mobile.training.state import AdapterState
from lcsb_mobile.training.trainer import TrainConfig

FORMAT, VERSION = "lcsb_mobile.checkpoint", "3"
NAME = re.compile(r"step-(\d{8,18})\.safetensors")
MOST_HEADER_BYTES = 4 * 2**20  # schedules are the longest part: some 10 kB for a shuffled one of 48 layers
STEP_COLUMNS = 6  # loss, learning rate, gradient norm, gradient seconds, optimizer seconds, anonymous bytes (0: not known)
DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


class RunIdentity(Record, frozen=True):
    """What decides a run's result, the runtime and its threads aside. `bundle`: its identity (`Manifest.identity`), or the SHA-256 of its
    manifest where it has none; `data`, `evaluation_data`, `initial_adapter` (None: the bundle's): of the files' bytes. `tokens`,
    `evaluation_tokens`: of what the data was made into (`Dataset.tokens_sha256`); `date`: the local time at which the run began, which is
    now for its chat template to its end. `hold_out`: the share of the examples that is evaluated instead, where there is no evaluation
    data. `seed`: of the data's order."""

    bundle: str
    data: str
    evaluation_data: str | None
    tokens: str
    evaluation_tokens: str | None
    date: Annotated[datetime, msgspec.Meta(tz=False)]
    hold_out: float
    initial_adapter: str | None
    schedule: tuple[Subset, ...]
    train: TrainConfig
    seed: int


class RunPlace(Record, frozen=True):
    """How far a run came, as the file's metadata has it. `sequences`: how many the data's endless stream has given. `runtime`, with its
    version, and `kept_layers` are those of the last step."""

    identity: RunIdentity
    step: int
    sequences: int
    runtime: str
    kept_layers: int


@dataclass(frozen=True)
class RunCheckpoint:
    """`updates` int64[L]: AdamW's count of each layer. `steps` float64[step, STEP_COLUMNS] and `evaluations` float64[e, 2], (step, loss):
    the run's history."""

    place: RunPlace
    state: AdapterState
    updates: Int64Array
    steps: npt.NDArray[np.float64]
    evaluations: npt.NDArray[np.float64]


class _Entry(Record, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Metadata(Record, frozen=True):
    format: str
    version: str
    sha256: str
    run: str


def write_checkpoint(path: Path, checkpoint: RunCheckpoint) -> None:
    """Whole or not at all, and synced. Raises StorageError."""
    arrays = _arrays(checkpoint)
    kinds = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    entries = {name: TensorEntry(kinds[array.dtype], array.shape) for name, array in arrays.items()}
    run = msgspec.json.encode(checkpoint.place).decode()
    metadata = {"format": FORMAT, "version": VERSION, "sha256": UNKNOWN_DIGEST, "run": run}
    with replace_atomically(path, private=True) as temporary, temporary.open("wb") as file:
        write_digested(file, entries, arrays.__getitem__, metadata)


def _arrays(checkpoint: RunCheckpoint) -> dict[str, npt.NDArray[Any]]:
    state = checkpoint.state
    return {
        "adapter": state.adapter,
        "first_moment": state.first_moment,
        "second_moment": state.second_moment,
        "updates": checkpoint.updates,
        "steps": checkpoint.steps,
        "evaluations": checkpoint.evaluations,
    }


def read_checkpoint(path: Path, layout: AdapterLayout) -> RunCheckpoint:
    """Checked before anything of it is used: digest, format, names, shapes, values. Its arrays are views of the mapped file.

    Raises RunCheckpointError with what is wrong.
    """
    try:
        with path.open("rb") as file:
            header, data_start = _read_header(path, file)
        if path.stat().st_size == data_start:
            raise RunCheckpointError(f"{path}: holds no tensors")
        data = np.memmap(path, np.uint8, "r", offset=0)[data_start:]
    except OSError as error:
        raise RunCheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    place = _decode(path, header.pop("__metadata__"))
    arrays = _views(path, header, data, _expected(place, layout, len(data)))
    _check_values(path, arrays)
    state = AdapterState(arrays["adapter"], arrays["first_moment"], arrays["second_moment"])
    return RunCheckpoint(place, state, arrays["updates"], arrays["steps"], arrays["evaluations"])


def checkpoint_files(directory: Path) -> list[Path]:
    """The checkpoints in a directory, the newest first. Raises RunCheckpointError when it cannot be read."""
    try:
        found = {int(match[1]): file for file in directory.iterdir() if (match := NAME.fullmatch(file.name)) and file.is_file()}
    except OSError as error:
        raise RunCheckpointError(f"{directory}: cannot be read: {error.strerror or error}") from error
    return [found[step] for step in sorted(found, reverse=True)]


def newest_good(files: Sequence[Path], layout: AdapterLayout) -> tuple[Path, RunCheckpoint, list[str]]:
    """The first of `files` that can be read, and what is wrong with those before it. Raises RunCheckpointError when none can."""
    faults: list[str] = []
    for file in files:
        try:
            return file, read_checkpoint(file, layout), faults
        except RunCheckpointError as error:
            faults.append(str(error))
    raise RunCheckpointError(f"{'; '.join(faults)}; no good checkpoint is left")


def read_adapter(path: Path, layout: AdapterLayout, bundle: str | None = None) -> Float32Array:
    """float32[N] of a checkpoint, or of the newest good one in a directory. `bundle`: the identity of the one that it is to be of, if of
    any. Raises RunCheckpointError."""
    files = checkpoint_files(path) if path.is_dir() else [path]
    if not files:
        raise RunCheckpointError(f"{path}: holds no checkpoint (step-….safetensors)")
    file, checkpoint, _ = newest_good(files, layout)
    if bundle is not None and (found := checkpoint.place.identity.bundle) != bundle:
        raise RunCheckpointError(f"{file}: is of a run on another bundle: expected {bundle[:12]}…, found {found[:12]}…; name that bundle")
    return np.array(checkpoint.state.adapter)


def _read_header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header's fields and where the data starts, once the digest was found right."""
    size = int.from_bytes(start := file.read(8), "little")
    if len(start) < 8 or not 2 <= size <= MOST_HEADER_BYTES:
        raise RunCheckpointError(f"{path}: not a checkpoint: its header is said to have {size} bytes")
    text = file.read(size)
    try:
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(fields.get("__metadata__", msgspec.Raw(b"null")), type=_Metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RunCheckpointError(f"{path}: not a checkpoint, or a damaged one: {error}") from error
    if (metadata.format, metadata.version) != (FORMAT, VERSION):
        raise RunCheckpointError(
            f"{path}: expected {FORMAT} version {VERSION}, found {metadata.format[:40]!r} version {metadata.version[:10]!r}; "
            "end the run with the lcsb_mobile that began it, or begin another in another directory"
        )
    if (digest := file_digest(start + text, file, metadata.sha256)) != metadata.sha256:
        raise RunCheckpointError(f"{path}: damaged: expected SHA-256 {metadata.sha256[:12]}…, found {digest[:12]}…")
    return {**fields, "__metadata__": metadata}, 8 + size


def _decode(path: Path, metadata: _Metadata) -> RunPlace:
    try:
        place = msgspec.json.decode(metadata.run, type=RunPlace)
        place.identity.train.check()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OptionError) as error:
        raise RunCheckpointError(f"{path}: malformed: {error}") from error
    expected = place.step * place.identity.train.accumulation
    if place.step < 0 or place.sequences != expected:
        raise RunCheckpointError(f"{path}: malformed: step {place.step} after {place.sequences} sequences, expected {expected}")
    return place


def _expected(place: RunPlace, layout: AdapterLayout, size: int) -> dict[str, TensorEntry]:
    """The tensors in file order. There are as many evaluations as make up the `size` of the data."""
    state = TensorEntry("F32", (layout.size,))
    updates, steps = TensorEntry("I64", (layout.num_layers,)), TensorEntry("F64", (place.step, STEP_COLUMNS))
    rest = max(0, size - 3 * state.nbytes - updates.nbytes - steps.nbytes)
    names = ("adapter", "first_moment", "second_moment", "updates", "steps", "evaluations")
    return dict(zip(names, (state, state, state, updates, steps, TensorEntry("F64", (rest // 16, 2))), strict=True))


def _views(
    path: Path, header: Mapping[str, msgspec.Raw], data: npt.NDArray[np.uint8], expected: Mapping[str, TensorEntry]
) -> dict[str, npt.NDArray[Any]]:
    """The tensors, which lie one after the other in this order and fill the file."""
    faults = [f"{name} is missing" for name in expected if name not in header]
    faults += [f"{name[:40]!r} is unknown" for name in header if name not in expected]
    arrays: dict[str, npt.NDArray[Any]] = {}
    end = 0
    for name, entry in expected.items() if not faults else ():
        start, end = end, end + entry.nbytes
        wanted = _Entry(entry.dtype, entry.shape, (start, end))
        if _entry(header[name]) != wanted:
            faults.append(f"{name}: expected {entry.dtype} {list(entry.shape)} at byte {start}, found {_text(header[name])}")
        elif end <= len(data):
            arrays[name] = data[start:end].view(DTYPES[entry.dtype]).reshape(entry.shape)
    if not faults and end != len(data):
        faults.append(f"expected {end} bytes of tensors, found {len(data)}")
    if faults:
        raise RunCheckpointError(f"{path}: does not fit the bundle's adapter: {some(faults)}")
    return arrays


def _entry(raw: msgspec.Raw) -> _Entry | None:
    try:
        return msgspec.json.decode(raw, type=_Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw)[:80].decode(errors="replace")


def _check_values(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    faults = [f"{name} holds NaN or infinite values" for name, array in arrays.items() if not np.isfinite(array).all()]
    faults += [f"{name} holds negative values" for name in ("second_moment", "updates") if (arrays[name] < 0).any()]
    if faults:
        raise RunCheckpointError(f"{path}: {'; '.join(faults)}")
