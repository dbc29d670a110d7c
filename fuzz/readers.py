"""Every reader of a stranger's file as a function of bytes, which reads them or raises an error of ours. Device half alone."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np

from lcsb_mobile.adapters import peft as peft_adapter
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import check_fits, read_trace
from lcsb_mobile.bundle.manifest import MANIFEST_FILE, Manifest
from lcsb_mobile.data.records import read_line
from lcsb_mobile.io.onnx_external_data import check_external_data
from lcsb_mobile.io.ort_checkpoint import check_checkpoint
from lcsb_mobile.io.safetensors_writer import UNKNOWN_DIGEST
from lcsb_mobile.planning.inspection import inspect_bundle
from lcsb_mobile.runs.checkpoint import read_checkpoint
from lcsb_mobile.text.tokenizer import Tokenizer

BASE = Path(__file__).parent / "base"
CORPUS = Path(__file__).parent / "corpus"
CROSSING = "crossing"  # the base of two kinds of layers, with files of its own in a directory of that name
SPLIT = 8  # bytes of a number: how long the first of two files is


@cache
def place(name: str) -> Path:
    """A directory of that name, removed when the process ends."""
    path = Path(_temporary().name) / name
    path.mkdir()
    return path


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lcsb-fuzz-")


@cache
def bundle(target: str, name: str = "changed") -> Path:
    """A directory with what the manifest `base/TARGET.json` lists; programs and weights are zeros, which nothing here runs."""
    directory = place(f"{target}-{name}")
    text = (BASE / f"{target}.json").read_bytes()
    (directory / MANIFEST_FILE).write_bytes(text)
    for name, entry in json.loads(text)["files"].items():
        kept = [path for path in (BASE / target / name, BASE / name) if path.exists()]
        content = kept[0].read_bytes() if kept else bytes(entry["size"])
        (directory / name).write_bytes(content)
    return directory


@cache
def manifest() -> Manifest:
    return Bundle.open(_untouched()).manifest


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.open(BASE, manifest().model.vocab_size)


def read_manifest(data: bytes) -> None:
    """Its digest put right, of a bundle whose other files are as they were; and what `lcsb inspect` makes of one that is accepted."""
    bases = ("onnxruntime-training", CROSSING)
    directory = bundle(next((base for base in bases if base.encode() in data[:100]), "onnxruntime"))
    (directory / MANIFEST_FILE).write_bytes(_with_digest(data, b'"digest": "'))
    opened = Bundle.open(directory)
    inspect_bundle(opened)
    opened.initial_adapter()
    for tensor in opened.manifest.weights:
        assert opened.weights[tensor.name].shape == tensor.shape


def _with_digest(data: bytes, field: bytes) -> bytes:
    """With the digest that stands after the last `field` put right."""
    at = data.rfind(field) + len(field)
    if at < len(field):
        return data
    end = at + len(UNKNOWN_DIGEST)
    return data[:at] + hashlib.sha256(data[:at] + UNKNOWN_DIGEST.encode() + data[end:]).hexdigest().encode() + data[end:]


def read_golden(data: bytes) -> None:
    path = _written("golden.json", data)
    check_fits(read_trace(path), manifest(), path)


def read_adapter_file(data: bytes) -> None:
    layout = manifest().adapter
    adapter = load_adapter(_written("adapter.safetensors", _with_digest(data, b'"sha256":"')), layout)
    assert adapter.shape == (layout.size,) and np.isfinite(adapter).all()


def read_peft(data: bytes) -> None:
    """A number, so many bytes of `adapter_config.json`, and the tensors. What was read is not written."""
    length = int.from_bytes(data[:SPLIT], "little")
    path = _written("adapter_model.safetensors", data[SPLIT + length :])
    _written("adapter_config.json", data[SPLIT : SPLIT + length])
    with patch.object(peft_adapter, "save_adapter"):
        peft_adapter.import_peft(path.parent, Bundle(_untouched(), manifest()), path.parent / "imported", force=True)


def read_run_checkpoint(data: bytes) -> None:
    """With its digest put right: what lies behind it is to be read, not SHA-256 broken."""
    layout = manifest().adapter
    read = read_checkpoint(_written("step-00000000.safetensors", _with_digest(data, b'"sha256":"')), layout)
    assert read.state.adapter.shape == (layout.size,)


def read_data_line(data: bytes) -> None:
    example = read_line(data, tokenizer()).example
    assert len(example.input_ids) == len(example.labels)


def read_program(data: bytes) -> None:
    check_external_data(_written("program.onnx", data), "weights.bin", 1 << 20, None)


def read_training_checkpoint(data: bytes) -> None:
    sizes = manifest().adapter.sizes
    check_checkpoint(_written("checkpoint", data), "adapter", (len(sizes), sizes[0]))


def read_tokenizer_config(data: bytes) -> None:
    path = _written("tokenizer_config.json", data)
    target = path.with_name("tokenizer.json")
    if not target.exists():
        target.write_bytes((BASE / "tokenizer.json").read_bytes())
    read = Tokenizer.open(path.parent, manifest().model.vocab_size)
    read.encode_document("the boats")


READERS: dict[str, Callable[[bytes], None]] = {
    "manifest": read_manifest,
    "golden": read_golden,
    "adapter": read_adapter_file,
    "peft": read_peft,
    "run_checkpoint": read_run_checkpoint,
    "data_line": read_data_line,
    "program": read_program,
    "training_checkpoint": read_training_checkpoint,
    "tokenizer_config": read_tokenizer_config,
}


def _untouched() -> Path:
    """A bundle that no reader writes to."""
    return bundle("onnxruntime", "untouched")


def _written(name: str, data: bytes) -> Path:
    path = place("scratch") / name
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    READERS[sys.argv[1]](Path(sys.argv[2]).read_bytes())
