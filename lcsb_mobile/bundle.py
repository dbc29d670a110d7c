"""The TrainingBundle: a directory that holds all that a device needs, verified when it is opened.

Specification: docs/bundle.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import msgspec

from lcsb_mobile.adapter import load_adapter
from lcsb_mobile.batch import Float32Array
from lcsb_mobile.errors import BundleError, BundleVersionError, IntegrityError, OutputExistsError
from lcsb_mobile.files import replace_directory, sha256
from lcsb_mobile.manifest import ADAPTER_FILE, FORMAT_VERSION, GOLDEN_FILE, MANIFEST_FILE, FileEntry, Manifest
from lcsb_mobile.tokenizer import Tokenizer
from lcsb_mobile.weights import WEIGHTS_FILE, MappedWeights


class _Version(msgspec.Struct):
    format_version: int


@dataclass(frozen=True)
class Bundle:
    """An open bundle. Nothing is held but the manifest; weights are mapped when asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Reads the manifest and checks every file against it, size and SHA-256.

        Raises BundleError (no bundle, malformed manifest, missing file), BundleVersionError or IntegrityError.
        """
        manifest_path = path / MANIFEST_FILE
        try:
            raw = manifest_path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: not a bundle: {MANIFEST_FILE} cannot be read ({error.strerror}); write one with lcsb export"
            ) from error
        manifest = _decode(manifest_path, raw)
        _check_files(path, manifest)
        return cls(path, manifest)

    @cached_property
    def weights(self) -> MappedWeights:
        return MappedWeights(self.path / WEIGHTS_FILE, self.manifest.weights)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self.path, self.manifest.model.vocab_size)

    def initial_adapter(self) -> Float32Array:
        return load_adapter(self.path / ADAPTER_FILE, self.manifest.adapter)

    @property
    def golden_path(self) -> Path:
        return self.path / GOLDEN_FILE


def _decode(path: Path, raw: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(raw, type=_Version).format_version
        if version > FORMAT_VERSION:
            raise BundleVersionError(
                f"{path}: format version {version} is newer than {FORMAT_VERSION}, the newest known; update lcsb_mobile"
            )
        if version < FORMAT_VERSION:
            raise BundleVersionError(f"{path}: format version {version} is older than {FORMAT_VERSION}; export the bundle again")
        return msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path}: malformed manifest: {error}; export the bundle again") from error


def _check_files(path: Path, manifest: Manifest) -> None:
    faults: list[str] = []
    for name, entry in manifest.files.items():
        pure = PurePosixPath(name)
        file = path / name
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise BundleError(f"{path}: the manifest lists {name!r}, which is outside the bundle")
        if not file.is_file():
            raise BundleError(f"{path}: {name} is missing; copy the bundle again, whole")
        if (size := file.stat().st_size) != entry.size:
            faults.append(f"{name}: expected {entry.size} bytes, found {size}")
        elif (digest := sha256(file)) != entry.sha256:
            faults.append(f"{name}: expected SHA-256 {entry.sha256[:12]}…, found {digest[:12]}…")
    needed = {WEIGHTS_FILE, ADAPTER_FILE, GOLDEN_FILE, *(graph.file for graph in manifest.graphs.values())}
    if missing := sorted(needed - manifest.files.keys()):
        raise BundleError(f"{path}: the manifest lists no {', '.join(missing)}; export the bundle again")
    end = max((tensor.offset + tensor.nbytes for tensor in manifest.weights), default=0)
    if end > manifest.files[WEIGHTS_FILE].size:
        raise BundleError(
            f"{path}: the manifest's tensors end at byte {end} of {WEIGHTS_FILE}, which has {manifest.files[WEIGHTS_FILE].size}"
        )
    if faults:
        raise IntegrityError(f"{path}: changed since it was exported: {'; '.join(faults)}; copy or export it again")


@contextmanager
def write_bundle(path: Path, force: bool) -> Iterator[Path]:
    """A directory to fill; it becomes `path` once its manifest was written by `seal`. A crash leaves no bundle.

    Raises OutputExistsError if `path` exists, unless `force` is given and it is a bundle or empty: nothing else is ever replaced.
    """
    if path.exists() and not (path / MANIFEST_FILE).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputExistsError(f"{path}: already exists and is not a bundle, so it is not replaced; choose another path")
    with replace_directory(path, force) as directory:
        yield directory
        if not (directory / MANIFEST_FILE).is_file():
            raise AssertionError("write_bundle: the bundle was not sealed")


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Adds the size and SHA-256 of every file to the manifest, writes and returns it."""
    files = {
        file.relative_to(directory).as_posix(): FileEntry(file.stat().st_size, sha256(file))
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != MANIFEST_FILE
    }
    sealed = msgspec.structs.replace(manifest, files=files)
    (directory / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n")
    return sealed
