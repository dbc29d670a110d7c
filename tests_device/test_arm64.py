"""What `make test` runs on emulated processors has every operator that a bundle has: each is a kernel there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from device_bundles import BUNDLES

from lcsb_mobile.io.onnx_external_data import _Walk

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts/testing"))

from parts import ARM64_BUNDLES, ARM64_CPUS

LEADS_TO = {("model", 7): "graph", ("model", 25): "function", ("graph", 1): "node", ("function", 7): "node", ("node", 5): "attribute",
            ("attribute", 6): "graph"}  # fmt: skip
OPERATOR = ("node", 4)  # its field of onnx.proto3


def operators(walk: _Walk, kind: str, start: int, end: int) -> Iterator[str]:
    for number, _, first, last in walk._all(start, end):
        if (kind, number) == OPERATOR:
            yield bytes(walk.data[first:last]).decode()
        elif inner := LEADS_TO.get((kind, number)):
            yield from operators(walk, inner, first, last)


def operators_of(bundle: Path) -> set[str]:
    walks = [_Walk(path.read_bytes()) for path in bundle.glob("*.onnx")]
    return {name for walk in walks for name in operators(walk, "model", 0, len(walk.data))}


def test_the_emulated_bundles_have_every_operator() -> None:
    every = {bundle.name: operators_of(bundle) for bundle in BUNDLES}
    emulated = {Path(name).name for name in ARM64_BUNDLES}
    assert set().union(*(every[name] for name in emulated)) == set().union(*every.values())
    assert all(len(found) > 20 for found in every.values())
    for cpu in ARM64_CPUS[1::2]:
        assert set(filter(None, cpu.partition(":")[2].split(","))) <= emulated
