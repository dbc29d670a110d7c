"""The files of a bundle against its manifest: each is inside the directory, of a size that its reader takes, and unchanged."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lcsb_mobile.bundle.golden import TRACE_BYTES
from lcsb_mobile.bundle.manifest import ADAPTER_FILE, GOLDEN_FILE, MANIFEST_FILE, Manifest
from lcsb_mobile.bundle.weights import WEIGHTS_FILE
from lcsb_mobile.errors import BundleError, IntegrityError
from lcsb_mobile.io.bounded import some
from lcsb_mobile.io.files import sha256
from lcsb_mobile.io.onnx_external_data import PROGRAM_BYTES
from lcsb_mobile.io.ort_checkpoint import SLACK_BYTES
from lcsb_mobile.targets import CHECKPOINT_FILE, TARGETS
from lcsb_mobile.text.chat_format import CHAT_BYTES, CHAT_FILE
from lcsb_mobile.text.tokenizer import CONFIG_FILE, FILE_BYTES, TEMPLATE_FILE, TOKENIZER_FILE

MIB = 2**20
MANIFEST_BYTES = 4 * MIB  # 60 kB are usual; the schedule is what grows, to 1 MB for 126 layers, each a subset, shuffled
ENTRY_BYTES = 256  # of an adapter file's header for each tensor
MODEL_BYTES = 256 * MIB  # of a package's functions; 7 MB are usual for 24 layers
MOST_FILES = 1000
FLOAT = 4

# A part of a path that every file system takes as it stands, and means the same by: no blank, backslash or colon, no dot at either end.
PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?", re.ASCII)
MOST_CHARACTERS = 200
UNASKED = (TEMPLATE_FILE, CHAT_FILE, f"{CHECKPOINT_FILE}.data")  # what a reader takes up wherever it lies, listed or not


def check_files(path: Path, manifest: Manifest, raw: bytes) -> None:
    """`raw`: the manifest's own bytes. Raises BundleError for files that are missing, outside, not listed or too large, else IntegrityError
    for those that were changed, the manifest among them. Nothing is read before all are known to be in their place."""
    faults = list(_name_faults(manifest)) or [*_size_faults(manifest), *_place_faults(path, manifest)]
    if faults:
        raise BundleError(f"{path}: {some(faults)}")
    try:
        changes = [*_changes_of_manifest(manifest, raw), *_changes(path, manifest)]
    except OSError as error:
        raise BundleError(f"{path}: {error.filename} cannot be read: {error.strerror}") from error
    if changes:
        raise IntegrityError(f"{path}: changed since it was exported: {some(changes)}; copy or export it again")


def is_inside(path: Path, name: str) -> bool:
    """Whether a bundle's file is in its directory, every link followed."""
    return Path(os.path.realpath(path / name)).is_relative_to(os.path.realpath(path))


def _name_faults(manifest: Manifest) -> Iterator[str]:
    names = manifest.files.keys()
    for name in names:
        if len(name) > MOST_CHARACTERS or not all(PART.fullmatch(part) for part in name.split("/")):
            yield f"the manifest lists {name!r}, which is outside the bundle or not a name on every system"
    for folded, count in Counter(name.casefold() for name in (*names, MANIFEST_FILE)).items():
        if count > 1:
            yield f"the manifest lists {folded!r} {count} times for a system that does not tell upper case from lower"
    needed = {ADAPTER_FILE, GOLDEN_FILE, TOKENIZER_FILE, CONFIG_FILE, *(graph.file for graph in manifest.graphs.values())}
    needed.update(TARGETS[manifest.target].files)
    if not TARGETS[manifest.target].holds_weights:
        needed.add(WEIGHTS_FILE)
    if missing := sorted(needed - names):
        yield f"the manifest lists no {', '.join(missing)}; export the bundle again"
    if len(names) > MOST_FILES:
        yield f"the manifest lists {len(names)} files, more than {MOST_FILES}"


def _size_faults(manifest: Manifest) -> Iterator[str]:
    """Of what is read whole, and of what an allocation goes by: then nothing larger than the files themselves is allocated."""
    layout = manifest.adapter
    state = layout.size * FLOAT
    header = sum(len(layout.matrices[kind]) for kind in layout.kinds) * ENTRY_BYTES + SLACK_BYTES
    bounds = {name: (0, most) for name, most in {GOLDEN_FILE: TRACE_BYTES, CHAT_FILE: CHAT_BYTES, **FILE_BYTES}.items()}
    whole = manifest.target in TARGETS and TARGETS[manifest.target].holds_weights  # then each layer has its own functions
    bounds |= {graph.file: (0, MODEL_BYTES if whole else PROGRAM_BYTES) for graph in manifest.graphs.values()}
    bounds |= {ADAPTER_FILE: (state, state + header), CHECKPOINT_FILE: (state, state + SLACK_BYTES)}
    for name, (least, most) in bounds.items():
        if name in manifest.files and not least <= manifest.files[name].size <= most:
            yield f"{name}: expected {least} to {most} bytes, found {manifest.files[name].size}"


def _place_faults(path: Path, manifest: Manifest) -> Iterator[str]:
    for name in manifest.files:
        if not is_inside(path, name):
            yield f"{name} is a link that leads outside the bundle"
        elif not (path / name).is_file():
            yield f"{name} is missing; copy the bundle again, whole"
    for name in _opened_whole(path, manifest):
        if name not in manifest.files:
            yield f"{name} is not listed in the manifest; remove it"
    for name in UNASKED:
        if name not in manifest.files and os.path.lexists(path / name):
            yield f"{name} is not listed in the manifest; remove it"


def _opened_whole(path: Path, manifest: Manifest) -> Iterator[str]:
    """What lies in a directory that a runtime opens as one, such as an asset of Core AI: it may take up more than is asked of it."""
    shared = TARGETS[manifest.target].shared_file
    if shared is not None and "/" in shared:
        for found in sorted((path / shared.partition("/")[0]).rglob("*")):
            if not found.is_dir() or found.is_symlink():
                yield found.relative_to(path).as_posix()


def manifest_digest(raw: bytes, stated: str) -> str:
    """SHA-256 of a manifest's bytes in which the digest that it states, where it stands last, is zeros."""
    before, found, after = raw.rpartition(stated.encode())
    return hashlib.sha256(before + b"0" * len(found) + after).hexdigest()


def _changes_of_manifest(manifest: Manifest, raw: bytes) -> Iterator[str]:
    if manifest.digest is not None and (digest := manifest_digest(raw, manifest.digest)) != manifest.digest:
        yield f"{MANIFEST_FILE}: expected SHA-256 {manifest.digest[:12]}…, found {digest[:12]}…"


def _changes(path: Path, manifest: Manifest) -> Iterator[str]:
    for name, entry in manifest.files.items():
        if (size := (path / name).stat().st_size) != entry.size:
            yield f"{name}: expected {entry.size} bytes, found {size}"
        elif (digest := sha256(path / name)) != entry.sha256:
            yield f"{name}: expected SHA-256 {entry.sha256[:12]}…, found {digest[:12]}…"
