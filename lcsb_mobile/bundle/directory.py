"""The TrainingBundle: a directory that holds all that a device needs, verified when it is opened.

Specification: docs/bundle.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import msgspec
import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.checks import check_keys, check_manifest
from lcsb_mobile.bundle.files import MANIFEST_BYTES, check_files, is_inside, manifest_digest
from lcsb_mobile.bundle.golden import check_fits, read_trace
from lcsb_mobile.bundle.manifest import ADAPTER_FILE, FORMAT_VERSION, GOLDEN_FILE, MANIFEST_FILE, FileEntry, Manifest
from lcsb_mobile.bundle.weights import BYTES, ROPE, SCALE, SCALES, WEIGHTS_FILE, ZERO_POINT, DType, MappedWeights, WeightTensor
from lcsb_mobile.errors import BundleError, BundleVersionError, OutputExistsError
from lcsb_mobile.io.bounded import one_line, read_bounded
from lcsb_mobile.io.files import replace_directory, sha256
from lcsb_mobile.targets import TARGETS
from lcsb_mobile.text.tokenizer import Tokenizer

# Fields of a manifest that do not decide what a run computes.
NOT_OF_A_RUN = ("target", "graphs", "runtime", "tools", "files", "identity", "base", "digest")

UNKNOWN_DIGEST = "0" * 64  # in the digest's place while it is computed
CHUNK = 1 << 20  # bytes of a read


class _Version(msgspec.Struct):
    format_version: int


@dataclass(frozen=True)
class Bundle:
    """An open bundle. Nothing is held but the manifest; weights are mapped when asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Reads the manifest, checks it, and every file against it: place, size and SHA-256; and that the golden trace is of its model.

        The bundle may come from anywhere (docs/hostile_input.md). Raises BundleError (no bundle, malformed manifest, missing file),
        BundleVersionError or IntegrityError.
        """
        raw = _read_manifest(path)
        manifest = _decode(path / MANIFEST_FILE, raw)
        check_keys(raw, path / MANIFEST_FILE)
        check_manifest(manifest, path / MANIFEST_FILE)
        check_files(path, manifest, raw)
        check_fits(read_trace(path / GOLDEN_FILE), manifest, path / GOLDEN_FILE)
        return cls(path, manifest)

    @cached_property
    def weights(self) -> MappedWeights:
        """Raises BundleError where the programs hold them."""
        target = self.manifest.target
        if TARGETS[target].holds_weights:
            found = f"found one of target {target}, whose programs hold the weights"
            raise BundleError(f"{self.path}: expected a bundle with {WEIGHTS_FILE}, {found}; export one with --target onnxruntime")
        return MappedWeights(self.path / WEIGHTS_FILE, self.manifest.weights)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self.path, self.manifest.model.vocab_size)

    def initial_adapter(self) -> Float32Array:
        return load_adapter(self.path / ADAPTER_FILE, self.manifest.adapter)

    @property
    def identity(self) -> str:
        """What a run on the bundle is known by: the manifest's, or its file's SHA-256 where it has none."""
        return self.manifest.identity or sha256(self.path / MANIFEST_FILE)

    @property
    def golden_path(self) -> Path:
        return self.path / GOLDEN_FILE


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """`Bundle.open` by a path of any kind."""
    return Bundle.open(Path(path))


def _read_manifest(path: Path) -> bytes:
    try:
        if not is_inside(path, MANIFEST_FILE):
            raise BundleError(f"{path}: {MANIFEST_FILE} is a link that leads outside the bundle")
        return read_bounded(path / MANIFEST_FILE, MANIFEST_BYTES)
    except OSError as error:
        raise BundleError(f"{path}: not a bundle: {MANIFEST_FILE} cannot be read ({error.strerror}); write one with lcsb export") from error


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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: malformed manifest: {one_line(error)}; export the bundle again") from error


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


def training_identity(manifest: Manifest, files: Mapping[str, FileEntry]) -> str:
    """SHA-256, hex, of the manifest without what follows from its target, and of the digests of the files that no target has alone. The
    golden trace decides nothing."""
    of_target = {*(graph.file for graph in manifest.graphs.values()), *TARGETS[manifest.target].files, GOLDEN_FILE}
    digests = {name: entry.sha256 for name, entry in files.items() if name not in of_target}
    values = {name: value for name, value in msgspec.to_builtins(manifest).items() if name not in NOT_OF_A_RUN}
    return hashlib.sha256(msgspec.json.encode({**values, "files": digests}, order="sorted")).hexdigest()


def base_digest(manifest: Manifest, weights: Path) -> str:
    """SHA-256, hex, of the frozen model: its configuration, then each tensor's name, dtype, shape and bytes, in the order of the names.
    The rotary tables follow from the configuration, and from the length of a sequence, which is no part of the model. All counts as in a
    bundle with programs for the CPU."""
    digest = hashlib.sha256(msgspec.json.encode(manifest.model, order="sorted"))
    with weights.open("rb") as file:
        for tensor in sorted(manifest.weights, key=attrgetter("name")):
            if not tensor.name.startswith(ROPE):
                dtype, convert = _as_for_the_cpu(manifest, tensor)
                digest.update(msgspec.json.encode((tensor.name, dtype, tensor.shape)))
                file.seek(tensor.offset)
                for start in range(0, tensor.nbytes, CHUNK):
                    part = file.read(min(CHUNK, tensor.nbytes - start))
                    digest.update(convert(part))
    return digest.hexdigest()


def _as_for_the_cpu(manifest: Manifest, tensor: WeightTensor) -> tuple[DType, Callable[[bytes], bytes]]:
    """A tensor's dtype in a bundle with programs for the CPU, and its bytes there, from those here."""
    if tensor.name.endswith(SCALE) and tensor.dtype == SCALES["gpu"]:
        return SCALES["cpu"], lambda part: np.frombuffer(part, np.float32).astype(np.float16).tobytes()
    if tensor.dtype == BYTES["gpu"] and tensor.shape[-1] == manifest.quantization.group_size:  # an element a byte
        return BYTES["cpu"], lambda part: (np.frombuffer(part, np.uint8) ^ ZERO_POINT).tobytes()
    return tensor.dtype, bytes


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Adds the size and SHA-256 of every file to the manifest, the identity, the base and its own digest; writes and returns it."""
    files = {
        file.relative_to(directory).as_posix(): FileEntry(file.stat().st_size, sha256(file))
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != MANIFEST_FILE
    }
    identity = training_identity(manifest, files)
    base = base_digest(manifest, directory / WEIGHTS_FILE) if WEIGHTS_FILE in files else None
    sealed = msgspec.structs.replace(manifest, files=files, identity=identity, base=base, digest=UNKNOWN_DIGEST)
    if TARGETS[manifest.target].holds_weights:  # they have entered the identity, and every program that needs them has its own
        (directory / WEIGHTS_FILE).unlink()
        del files[WEIGHTS_FILE]
    raw = msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n"
    digest = manifest_digest(raw, UNKNOWN_DIGEST)
    before, _, after = raw.rpartition(UNKNOWN_DIGEST.encode())
    (directory / MANIFEST_FILE).write_bytes(before + digest.encode() + after)
    return msgspec.structs.replace(sealed, digest=digest)
