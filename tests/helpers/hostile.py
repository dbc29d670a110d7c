"""Bundles whose manifest or files were changed by somebody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcsb_mobile.bundle.directory import UNKNOWN_DIGEST, Bundle
from lcsb_mobile.bundle.files import manifest_digest
from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.files import sha256

Json = dict[str, Any]
Change = Callable[[Json], object]


def edit(bundle: Path, change: Change) -> None:
    """Changes the manifest, and the digest that it states of itself: that is no signature."""
    manifest = json.loads((bundle / MANIFEST_FILE).read_text("utf-8"))
    change(manifest)
    if isinstance(manifest.get("digest"), str):
        manifest["digest"] = UNKNOWN_DIGEST
        manifest["digest"] = manifest_digest(json.dumps(manifest).encode(), UNKNOWN_DIGEST)
    (bundle / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")


def put(field: str, value: object) -> Change:
    """Sets a field, such as `graphs.embed.inputs.0.shape`; with slashes where a name has dots."""

    def change(manifest: Json) -> None:
        *parents, last = field.split("/" if "/" in field else ".")
        place: Any = manifest
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        place[int(last) if isinstance(place, list) else last] = value

    return change


def replace(bundle: Path, name: str, content: bytes) -> None:
    """Writes a file of the bundle and what the manifest states of it: a manifest has no signature."""
    (bundle / name).write_bytes(content)
    edit(bundle, lambda manifest: manifest["files"].update({name: {"size": len(content), "sha256": sha256(bundle / name)}}))


def refusal(bundle: Path, kind: type[BundleError] = BundleError) -> str:
    """The one line that opening it says."""
    with pytest.raises(BundleError) as error:
        Bundle.open(bundle)
    message = str(error.value)
    assert type(error.value) is kind and message.startswith(str(bundle)) and len(message) < 3500
    assert message.isprintable()
    return message
