"""A bundle's file integrity, and that it is written whole or not at all. What the command line says of it: tests/cli/test_cli.py."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.bundles import RandomBundle, python

from lcsb_mobile.bundle.directory import Bundle, seal, write_bundle
from lcsb_mobile.bundle.manifest import FORMAT_VERSION, MANIFEST_FILE
from lcsb_mobile.errors import BundleError, BundleVersionError, IntegrityError, OutputExistsError
from lcsb_mobile.io.files import sha256


@pytest.fixture
def bundle(random_bundle: RandomBundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_bundle.bundle, tmp_path / "bundle"))


def edit(bundle: Path, **changes: Any) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def read(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / MANIFEST_FILE).read_text("utf-8")))


def test_open(random_bundle: RandomBundle) -> None:
    bundle = Bundle.open(random_bundle.bundle)
    manifest = bundle.manifest
    on_disk = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert on_disk == {*manifest.files, MANIFEST_FILE}
    assert bundle.initial_adapter().shape == (manifest.adapter.size,) == (3 * manifest.kinds[0].size,)
    assert set(bundle.weights.layer("block", 0)) >= {"self_attn.q_proj.weight.packed"}
    assert bundle.tokenizer.decode(bundle.tokenizer.encode("the boats")) == "the boats"


def test_every_byte_counts(bundle: Path) -> None:
    """One bit of any file, the manifest aside, is noticed, and the file named; of many that are changed the first eight."""
    names = list(Bundle.open(bundle).manifest.files)
    for name in names:
        content = (bundle / name).read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        (bundle / name).write_bytes(changed)
        with pytest.raises(IntegrityError, match=f"{re.escape(name)}: expected SHA-256"):
            Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    for name in names:
        (bundle / name).write_bytes((bundle / name).read_bytes()[::-1])
    with pytest.raises(IntegrityError) as error:
        Bundle.open(bundle)
    assert str(error.value).count("expected SHA-256") == 8 and f"and {len(names) - 8} more" in str(error.value)


def test_size_is_stated(bundle: Path) -> None:
    with (bundle / "weights.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"weights\.bin: expected \d+ bytes, found \d+"):
        Bundle.open(bundle)


def test_versions(bundle: Path) -> None:
    edit(bundle, format_version=FORMAT_VERSION + 1, what_we_do_not_know_yet=1)  # the version is looked at first
    with pytest.raises(BundleVersionError, match="update lcsb_mobile"):
        Bundle.open(bundle)
    edit(bundle, format_version=2, adapter={}, block_flops={})  # as version 2 was
    with pytest.raises(BundleVersionError, match="format version 2 is older than 3; export the bundle again"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "a/../../b", ""])
def test_paths_stay_inside(bundle: Path, name: str) -> None:
    files = read(bundle)["files"]
    edit(bundle, files=files | {name: files["weights.bin"]})
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(bundle)


def test_a_graph_outside_the_bundle(bundle: Path) -> None:
    """A graph's file must be one that was checked."""
    graphs = read(bundle)["graphs"]
    next(iter(graphs.values()))["file"] = "../elsewhere.onnx"
    edit(bundle, graphs=graphs)
    with pytest.raises(BundleError, match=r"expected the file \w+\.onnx, found '\.\./elsewhere\.onnx'"):
        Bundle.open(bundle)


def test_tensors_end_within_the_file(bundle: Path) -> None:
    weights = read(bundle)["weights"]
    weights[0]["offset"] = 1 << 40
    edit(bundle, weights=weights)
    with pytest.raises(BundleError, match="end at byte"):
        Bundle.open(bundle)


def test_an_unsealed_bundle_is_none(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not sealed"), write_bundle(tmp_path / "b", force=False) as directory:
        (directory / "weights.bin").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_seal_states_every_file(random_bundle: RandomBundle, tmp_path: Path) -> None:
    manifest = Bundle.open(random_bundle.bundle).manifest
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "graph.onnx").write_bytes(b"graph")
    sealed = seal(tmp_path, msgspec.structs.replace(manifest, files={}))
    assert list(sealed.files) == ["sub/graph.onnx"]
    assert sealed.files["sub/graph.onnx"].sha256 == sha256(tmp_path / "sub" / "graph.onnx")
    assert msgspec.json.decode((tmp_path / MANIFEST_FILE).read_bytes(), type=type(manifest)) == sealed


def test_force_replaces_bundles_alone(bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for path in (home, tmp_path / "file"):
        with pytest.raises(OutputExistsError, match="is not a bundle"), write_bundle(path, force=True):
            raise AssertionError("entered")
    with pytest.raises(OutputExistsError, match="--force"), write_bundle(bundle, force=False):
        raise AssertionError("entered")
    assert (home / "thesis.tex").exists() and Bundle.open(bundle)


# The program seals a copy of the bundle whose adapter differs, and kills itself before the Nth call of what changes or syncs a
# directory. It prints those calls when it comes to its end.
KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from lcsb_mobile.io import files
from lcsb_mobile.bundle.directory import Bundle, seal, write_bundle
target, source, last, exchange = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "exchange"
if not exchange:
    files._exchange = lambda first, second: False
calls = []

def counted(name, function):
    def call(*arguments, **options):
        if len(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(name)
        return function(*arguments, **options)
    return call

with write_bundle(target, force=True) as directory:
    for file in source.iterdir():
        shutil.copy(file, directory)
    (directory / "manifest.json").unlink()
    (directory / "adapter.safetensors").write_bytes(bytes((source / "adapter.safetensors").stat().st_size))
    seal(directory, Bundle.open(source).manifest)
    for module, name in ((os, "chmod"), (os, "unlink"), (os, "rmdir"), (files, "sync"), (files, "_exchange"), (Path, "rename")):
        setattr(module, name, counted(name, getattr(module, name)))
print(*calls)
"""


@pytest.mark.parametrize(("how", "switch"), [("exchange", "_exchange"), ("two renames", "rename")])
def test_killed_while_replacing(random_bundle: RandomBundle, tmp_path: Path, how: str, switch: str) -> None:
    """At whatever moment: the old bundle or the new one stands in its place, whole. Where two paths cannot change places in one
    step there is one moment between two renames; then both stand beside it."""
    old = sha256(random_bundle.bundle / "adapter.safetensors")

    def killed_before(call: int) -> tuple[str, str]:
        place = tmp_path / str(call)
        place.mkdir()
        target = Path(shutil.copytree(random_bundle.bundle, place / "b"))
        done = python(KILLED, target, random_bundle.bundle, call, how)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if not target.exists():
            assert len([Bundle.open(path) for path in place.iterdir()]) == 2
            return "neither", done.stdout
        return ("old" if Bundle.open(target).manifest.files["adapter.safetensors"].sha256 == old else "new"), done.stdout

    state, printed = killed_before(-1)
    calls = printed.split()
    at = calls.index(switch)
    assert state == "new" and calls[:at].count("sync") > 10
    states = [killed_before(call)[0] for call in (0, at, at + 1, at + 2, len(calls) - 1)]
    assert states == ["old", "old", "new", "new", "new"] if how == "exchange" else ["old", "old", "neither", "new", "new"]


def test_weights_are_read_in_place(random_bundle: RandomBundle) -> None:
    weights = Bundle.open(random_bundle.bundle).weights
    view = next(iter(weights.layer("block", 1).values()))
    assert isinstance(view.base, np.ndarray) and view.base is not None  # a view of the mapped file, not a copy
