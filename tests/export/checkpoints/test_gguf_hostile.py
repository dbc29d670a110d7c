"""GGUF files that are damaged, lie, or come in parts: one clear line, before memory is asked for."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from helpers.checkpoints import random_model
from helpers.gguf_files import model_keys, model_tensors, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.errors import CheckpointError, LcsbError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.gguf_file import read_file
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import checkpoint_weights

MOST_BYTES = 20_000_000  # that a file of some kilobytes may cost


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def number(name: str, value: int) -> bytes:
    return key(name, 4, struct.pack("<I", value))


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(keys: list[bytes], tensors: list[bytes], data: int = 64, version: int = 3, counts: tuple[int, int] | None = None) -> bytes:
    tensor_count, key_count = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


ARCHITECTURE = key("general.architecture", 8, text("llama"))
LARGE = [
    number(f"llama.{name}", value)
    for name, value in {
        "block_count": 900, "context_length": 9, "embedding_length": 2**20, "feed_forward_length": 2**20, "attention.head_count": 2**10,
        "attention.head_count_kv": 2**10, "vocab_size": 2**20,
    }.items()
] + [key("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5))]  # fmt: skip
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a large model of 768 bytes": (header([ARCHITECTURE, *LARGE], [tensor("output_norm.weight", (8,))]), r"missing.*\(and \d+ more\)"),
    "no sizes": (header([ARCHITECTURE], []), r"llama\.block_count: missing; .*llama\.embedding_length: missing"),
    "no architecture": (header([], []), "general.architecture: expected a name, found None"),
    "an array of 2^60 numbers": (header([key("x", 9, struct.pack("<IQ", 0, 2**60))], []), "truncated"),
    "an array of 2^60 strings": (header([key("x", 9, struct.pack("<IQ", 8, 2**60))], []), "2?.* strings are said to stand"),
    "an array of arrays": (header([key("x", 9, struct.pack("<IQ", 9, 2))], []), "an array of arrays is not"),
    "a string of 2^63 bytes": (header([key("x", 8, struct.pack("<Q", 2**63))], []), "bytes are said to stand"),
    "2^60 keys": (header([], [], counts=(0, 2**60)), "are said to stand|stands there twice|value of type"),
    "2^60 tensors": (header([], [], counts=(2**60, 0)), "expected 1 to 4 dimensions|are said to stand"),
    "a type that is not known": (header([key("x", 77, b"")], []), "a value of type 77"),
    "a key twice": (header([number("x", 1), number("x", 2)], []), "the key x stands there twice"),
    "a tensor twice": (header([ARCHITECTURE], [tensor("a", (4,)), tensor("a", (4,))]), "a: stands there twice"),
    "a tensor beyond the end": (header([ARCHITECTURE], [tensor("a", (2**40, 2**10))]), "would end at byte"),
    "sizes whose product is beyond 2^64": (header([ARCHITECTURE], [tensor("a", (2**40, 2**40, 2**40))]), "would end at byte"),
    "a tensor of 0": (header([ARCHITECTURE], [tensor("a", (0, 4))]), "expected sizes from 1 on"),
    "a tensor of 9 dimensions": (header([ARCHITECTURE], [tensor("a", (1,) * 9)]), "expected 1 to 4 dimensions, found 9"),
    "half a block": (header([ARCHITECTURE], [tensor("a", (31,), kind=8)]), "blocks of 32"),
    "an offset between": (header([ARCHITECTURE], [tensor("a", (4,), offset=3)]), "would end at byte"),
    "a tensor of an unknown type": (header([ARCHITECTURE], [tensor("a", (4,), kind=999)]), "type 999"),
    "an alignment of 0": (header([number("general.alignment", 0)], []), "expected a power of two, found 0"),
    "an alignment of a string": (header([key("general.alignment", 8, text("x"))], []), "expected a power of two, found 'x'"),
    "version 1": (header([], [], version=1), "version 1, where 2 and 3 are read"),
    "big-endian": (header([], [], version=3 << 24), "are read, little-endian"),
    "no UTF-8": (header([struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1)], []), "not a readable GGUF file"),
    "nothing": (b"", "not a readable GGUF file"),
    "a picture": (b"\x89PNG" + bytes(100), "it does not begin with GGUF"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_one_line_and_little_memory(tmp_path: Path, case: str) -> None:
    content, reason = HOSTILE[case]
    (tmp_path / "model.gguf").write_bytes(content)
    begun = time.monotonic()
    tracemalloc.start()
    with pytest.raises((CheckpointError, UnsupportedModelError), match=reason) as caught:
        open_checkpoint(tmp_path / "model.gguf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500
    assert peak < MOST_BYTES and time.monotonic() - begun < 20


def test_a_type_that_gguf_cannot_decode(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(header([ARCHITECTURE], [tensor("a", (4,), kind=int(gguf.GGMLQuantizationType.I32))]))
    with pytest.raises(UnsupportedModelError, match=r"quantisations that the package gguf cannot decode: a: of type I32"):
        open_checkpoint(tmp_path / "model.gguf")


VALUES = st.one_of(
    st.tuples(st.just(4), st.integers(0, 2**32 - 1).map(lambda value: struct.pack("<I", value))),
    st.tuples(st.just(6), st.floats(width=32).map(lambda value: struct.pack("<f", value))),
    st.tuples(st.just(7), st.sampled_from([b"\0", b"\1", b"\7"])),
    st.tuples(st.just(8), st.text(max_size=8).map(text)),
    st.tuples(st.just(9), st.lists(st.integers(0, 9), max_size=4).map(lambda v: struct.pack(f"<IQ{len(v)}I", 4, len(v), *v))),
    st.tuples(st.just(9), st.lists(st.text(max_size=4), max_size=4).map(lambda v: struct.pack("<IQ", 8, len(v)) + b"".join(map(text, v)))),
    st.tuples(st.integers(0, 20), st.binary(max_size=24)),
)
NAMES = st.one_of(
    st.sampled_from(sorted({
        template.format(arch="llama", id=0, name="x", dense="dense_2")
        for space in (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.General, gguf.Keys.Tokenizer, gguf.Keys.Split)
        for template in vars(space).values()
        if isinstance(template, str) and "." in template and "{" in template + "{"
    } - {"gguf.constants"})),
    st.text(max_size=12),
)  # fmt: skip
KEYS = st.lists(st.tuples(NAMES, VALUES), max_size=12).map(
    lambda pairs: [key(name, kind, value) for name, (kind, value) in dict(pairs).items()]
)
TENSORS = st.lists(
    st.builds(
        tensor,
        st.sampled_from(["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight", "rope_freqs.weight", "blk.0.ffn_up.bias", "x"]),
        st.lists(st.integers(0, 70), min_size=1, max_size=5).map(tuple),
        st.integers(0, 45),
        st.sampled_from([0, 32, 64, 2**33]),
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model.gguf", random_model("llama", tied=True))


@settings(max_examples=400, deadline=None)
@given(KEYS, TENSORS, st.booleans())
def test_generated_headers(tmp_path_factory: pytest.TempPathFactory, keys: list[bytes], tensors: list[bytes], named: bool) -> None:
    """Any header is read or refused by one of our errors."""
    path = tmp_path_factory.getbasetemp() / "generated.gguf"
    path.write_bytes(header([ARCHITECTURE, *keys] if named else keys, tensors, data=4096))
    open_or_refuse(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_headers(base: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(base.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 2200))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 1000]))])
    open_or_refuse(path)


def open_or_refuse(path: Path) -> None:
    try:
        with open_checkpoint(path) as checkpoint:
            for name, shape in checkpoint_weights(checkpoint.config).items():
                assert checkpoint.read(name).shape == shape
            checkpoint.write_tokenizer(path.parent / "tokenizer")
    except LcsbError as error:
        assert "\n" not in str(error) and len(str(error)) < 3000


def write_parts(directory: Path, model: Any, count: int, **changes: int) -> list[Path]:
    """As llama-gguf-split does: the keys stand in the first part."""
    names = list(model_tensors(model))
    paths = []
    for part in range(count):
        path = directory / f"model-{part + 1:05}-of-{count:05}.gguf"
        writer_keys = model_keys(model) if part == 0 else {}
        writer = gguf.GGUFWriter(path, "llama")
        for name, value in writer_keys.items():
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(name, value)
        writer.add_uint16("split.no", changes.get("no", part))
        writer.add_uint16("split.count", changes.get("count", count))
        writer.add_int32("split.tensors.count", changes.get("tensors", len(names)))
        for name in names[part::count]:
            writer.add_tensor(name, model_tensors(model)[name].contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def test_parts_are_one_model(tmp_path: Path) -> None:
    model = random_model("llama", tied=False)
    paths = write_parts(tmp_path, model, 3)
    whole = write_model(tmp_path / "whole.gguf", model)
    for path in (paths[0], paths[2]):  # any of them
        with open_checkpoint(path) as parts, open_checkpoint(whole) as expected:
            assert parts.config == expected.config
            assert all(torch.equal(parts.read(name), expected.read(name)) for name in checkpoint_weights(parts.config))


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    model = random_model("llama", tied=True)
    paths = write_parts(tmp_path, model, 2)
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(paths[0].read_bytes())
    with pytest.raises(CheckpointError, match=r"alone\.gguf: part 0 of 2 by its keys; name the parts as llama-gguf-split does"):
        read_file(alone)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match=r"one part of 2, and model-00002-of-00002\.gguf is not beside it; put all parts"):
        read_file(paths[0])
    write_parts(tmp_path, model, 2, no=0)
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.gguf: expected part 2 of 2, found split\.no 0 of split\.count 2"):
        read_file(paths[0])
    write_parts(tmp_path, model, 2, tensors=5)
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count: expected 5 tensors in all parts"):
        read_file(paths[0])
    (tmp_path / "model-00001-of-00000.gguf").write_bytes(paths[0].read_bytes())
    with pytest.raises(CheckpointError, match="expected a part from 1"):
        read_file(tmp_path / "model-00001-of-00000.gguf")
