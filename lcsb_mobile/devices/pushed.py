"""What is asked of a bundle before it goes to a phone or a browser, and what is said of it afterwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PushedBundle(Record, frozen=True):
    """What `lcsb android push --json` and `lcsb ios push --json` print. `size`: bytes."""

    bundle: str
    phone: str
    folder: str
    size: int


def files_for_device(directory: Path, targets: Sequence[str], runner: str = "app", **names: str) -> dict[str, int]:
    """The size of each file of the bundle, which is verified. `targets`: those that `runner`, what opens it there, runs. `names`: what
    stands in paths and commands there, by what it is called here.

    Raises BundleError or IntegrityError for the bundle, OptionError for one that is no device's or a bad name.
    """
    bundle = Bundle.open(directory)
    if bundle.manifest.target not in targets:
        runs = f"{directory}: the {runner} runs bundles of target {' or '.join(targets)}"
        raise OptionError(f"{runs}, found {bundle.manifest.target}; export it with --target {targets[0]}")
    for what, value in names.items():
        if not NAME.fullmatch(value):
            raise OptionError(f"{what}: expected letters, digits and . _ - alone, found {value!r}")
    manifest = {MANIFEST_FILE: (directory / MANIFEST_FILE).stat().st_size}
    return manifest | {file: entry.size for file, entry in bundle.manifest.files.items()}
