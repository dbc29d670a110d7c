"""The files of a bundle that somebody else wrote, with a manifest that states them as they are: read, or refused with a message."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.bundles import RandomBundle, StubRunner
from helpers.hostile import put, refusal, replace

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import NO_TRACE, read_trace
from lcsb_mobile.errors import BundleError, OptionError, TokenizerError
from lcsb_mobile.io.ort_checkpoint import check_checkpoint
from lcsb_mobile.text.tokenizer import Tokenizer
from lcsb_mobile.training.golden import compare_runners

MIB = 2**20

# golden.json

GOLDEN = [
    (put("run.0.subset", {"train": [3], "propagate": [3]}), "step 3: train: expected ascending layers from 0 to 2, found [3]"),
    (put("run.0.subset", {"train": [], "propagate": []}), "step 3: expected train to be non-empty"),
    (put("run.0.batch", 2), "step 3: expected one of 2 batches, found 2"),
    (put("steps.0.batch", -1), "step 0: expected one of 2 batches, found -1"),
    (put("steps.0.gradient_norms", [1.0]), "step 0: expected the norms of 3 layers, found [1.0]"),
    (put("steps.1.gradient_norms.0", -1), "step 1: expected the norms of 2 layers, found [-1.0"),
    (put("batches.0.input_ids.0", 131), "batch 0: input_ids: expected 0 to 130, found "),
    (put("batches.0.input_ids.0", -1), "batch 0: input_ids: expected 0 to 130, found -1 to "),
    (put("batches.1.labels.0", -99), "batch 1: labels: expected 0 to 130, found -100 to "),
    (put("batches.1.labels", [-100] * 32), "batch 1: labels: none is counted"),
    (put("batches.0.position_ids.0", 32), "batch 0: position_ids: expected 0 to 31, found 0 to 32"),
    (put("batches.0.segment_ids.0", 2**62), "batch 0: segment_ids: expected 0 to 31"),
    (put("batches.0.segment_ids", []), "batch 0: segment_ids: expected 32 numbers, found 0"),
    (put("learning_rate", 0), "learning_rate: expected more than 0 and at most 1, found 0.0"),
    (put("step_tolerance", 10), "step_tolerance: expected 0 to 0.05, found 10.0"),
    (put("run_tolerance", -1), "run_tolerance: expected 0 to 0.05, found -1.0"),
]


@pytest.mark.parametrize(("change", "expected"), GOLDEN, ids=[expected for _, expected in GOLDEN])
def test_golden_trace(bundle: Path, change: Callable[[Any], object], expected: str) -> None:
    trace = json.loads((bundle / "golden.json").read_bytes())
    change(trace)
    replace(bundle, "golden.json", json.dumps(trace).encode())
    message = refusal(bundle)
    assert f"{bundle / 'golden.json'}: not a golden trace of this bundle: " in message and expected in message


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"batches": ' + b"[" * 100_000, b'"\xff"', b'{"learning_rate": "\xff"}', b"", b"NaN"]
)
def test_golden_trace_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"golden\.json: not a readable golden trace \("):
        read_trace(tmp_path / "golden.json")


def test_a_trace_of_nothing(bundle: Path) -> None:
    """Random weights have none: there is nothing to compare on."""
    replace(bundle, "golden.json", msgspec.json.encode(NO_TRACE))
    opened = Bundle.open(bundle)
    with pytest.raises(OptionError, match="eager: expected a bundle with a golden trace"):
        compare_runners(StubRunner(), StubRunner(), opened.manifest.schedule, read_trace(opened.golden_path), opened.initial_adapter())


# The tokenizer

CONFIGS = [
    (b"[" * 100_000, "not readable JSON: maximum recursion depth"),
    (b"\xff", "not UTF-8: invalid start byte at byte 0"),
    (b"[]", "expected a JSON object, found list"),
    (b'{"eos_token": "\\ud800"}', "eos_token: expected a string or {\"content\": string}, found '\\ud800'"),
    (b'{"eos_token": {"content": [' + b"0," * 5000 + b"0]}}", "eos_token: expected a string or {"),
    (b'{"chat_template": [{"name": [], "template": ""}]}', "chat_template: expected a list of {name, template}"),
    (b'{"chat_template": "' + b"{% if a %}" * 150 + b"{% endif %}" * 150 + b'"}', "chat_template: cannot be compiled: "),
    (b'{"chat_template": "{{ ' + b"(" * 5000 + b'"}', "chat_template: "),
]


@pytest.mark.parametrize(("content", "expected"), CONFIGS, ids=[expected for _, expected in CONFIGS])
def test_tokenizer_config(bundle: Path, content: bytes, expected: str) -> None:
    replace(bundle, "tokenizer_config.json", content)
    opened = Bundle.open(bundle)
    with pytest.raises(TokenizerError) as error:
        print(opened.tokenizer)
    assert str(error.value).startswith(f"{bundle / 'tokenizer_config.json'}: ") and expected in str(error.value)
    assert len(str(error.value)) < 600


def test_template_file_that_is_no_text(bundle: Path) -> None:
    replace(bundle, "chat_template.jinja", b"\xff")
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja: not UTF-8: invalid start byte at byte 0"):
        print(Bundle.open(bundle).tokenizer)


def with_template(directory: Path, source: str) -> Tokenizer:
    (directory / "chat_template.jinja").write_text(source, "utf-8")
    return Tokenizer.open(directory, 131)


ENDLESS = ["{{ 'a' * 10**11 }}", "{{ 'a'|center(10**11) }}", "{% set x = 'a' * 10**11 %}{% if x %}{% endif %}"]
DOUBLING = "{% set n = namespace(x='a' * 1000) %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}"


@pytest.mark.parametrize("source", [*ENDLESS, DOUBLING])
def test_templates_are_given_little_memory(bundle: Path, source: str) -> None:
    """Where one asks for more, it is refused, and the process goes on."""
    tokenizer = with_template(bundle, source)
    with pytest.raises(TokenizerError, match="the chat template refused the messages: MemoryError"):
        tokenizer.render_chat([])
    assert np.ones(400 * MIB // 8).sum() > 0  # nobody else is bounded
    assert with_template(bundle, "{{ 'a' * 10**7 }}").render_chat([]) == "a" * 10**7


@pytest.mark.parametrize(
    "source", ["{{ 'a' * 10**8 }}", "{{ 'a'|center(10**8) }}", "{% set x = 'a' * 10**8 %}", "{% if 'a' * 10**8 %}{% endif %}"]
)
def test_templates_compute_nothing_when_they_are_compiled(bundle: Path, source: str) -> None:
    tracemalloc.start()
    try:
        with_template(bundle, source)
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB
    finally:
        tracemalloc.stop()


PARTS = [
    ({"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}, "Token `a` out of vocabulary"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "not a readable tokenizer: Precompiled: Error"),
]


@pytest.mark.parametrize(("part", "expected"), PARTS, ids=["error", "panic"])
def test_parts_of_a_tokenizer_that_do_not_fit(bundle: Path, part: dict[str, Any], expected: str) -> None:
    """The library panics at the second, which is no Exception."""
    content = json.loads((bundle / "tokenizer.json").read_bytes()) | part
    replace(bundle, "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(TokenizerError) as error:
        print(Bundle.open(bundle).tokenizer)
    assert expected in str(error.value)


class Panics:
    """Stands in for a tokenizer of the library's that fails as it does: by an exception that is no Exception."""

    class PanicException(BaseException):
        pass

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fail(*_: Any, **__: Any) -> Any:
            raise self.PanicException("index out of bounds") if name in ("encode", "decode") else KeyboardInterrupt

        return fail


def test_panics_while_it_is_used(bundle: Path) -> None:
    tokenizer = Tokenizer.open(bundle, 131)
    tokenizer._backend = Panics()  # type: ignore[assignment]
    with pytest.raises(TokenizerError, match="text that cannot be tokenised, 'the boats': index out of bounds"):
        tokenizer.encode("the boats")
    with pytest.raises(TokenizerError, match="tokens that cannot be decoded: index out of bounds"):
        tokenizer.decode([1])
    with pytest.raises(KeyboardInterrupt):
        tokenizer._special_id("eos_token")


# The checkpoint of the training API

SHAPE = (3, 3072)


def place_of(content: bytes, value: bytes) -> int:
    assert content.count(value) == 1
    return content.index(value)


def changed(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


@pytest.fixture(scope="session")
def checkpoint_bytes(random_training_bundle: RandomBundle) -> bytes:
    return (random_training_bundle.bundle / "checkpoint").read_bytes()


def checkpoint_refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(BundleError) as error:
        check_checkpoint(path, "adapter", SHAPE)
    return str(error.value)


@pytest.mark.training_api
def test_checkpoint_of_a_bundle(random_training_bundle: RandomBundle, checkpoint_bytes: bytes, tmp_path: Path) -> None:
    check_checkpoint(random_training_bundle.bundle / "checkpoint", "adapter", SHAPE)
    dimensions = place_of(checkpoint_bytes, struct.pack("<Iqq", 2, *SHAPE))
    cases = [
        (changed(checkpoint_bytes, 4, b"ORTM"), "expected b'ODTC' at byte 4, found b'ORTM'"),
        (changed(checkpoint_bytes, place_of(checkpoint_bytes, b"adapter\0"), b"b"), "expected the parameter 'adapter', found b'bdapter'"),
        (changed(checkpoint_bytes, dimensions + 4, struct.pack("<q", 1 << 40)), "expected a parameter of [3, 3072], found another shape"),
        (checkpoint_bytes + bytes(5000), "expected at most 40960 bytes, found 41992"),
        (b"", "cannot mmap an empty file"),
    ]
    for content, expected in cases:
        message = checkpoint_refusal(tmp_path / "checkpoint", content)
        assert "not a checkpoint of this bundle's adapter: " in message and expected in message


@pytest.mark.training_api
def test_checkpoint_of_another_shape(random_training_bundle: RandomBundle) -> None:
    for name, shape, expected in (("adapter", (3072, 3), "another shape"), ("theta", SHAPE, "'theta'"), ("adapter", (1, 2), "at most")):
        with pytest.raises(BundleError, match=expected):
            check_checkpoint(random_training_bundle.bundle / "checkpoint", name, shape)


@pytest.mark.training_api
def test_every_byte_of_a_checkpoint_that_counts(checkpoint_bytes: bytes, tmp_path: Path) -> None:
    """Whatever is changed outside the values, the file is read as the same parameter or refused; and so it is when cut anywhere."""
    start = place_of(checkpoint_bytes, checkpoint_bytes[0x5C : 0x5C + 64])
    outside = [*range(start), *range(start + 4 * SHAPE[0] * SHAPE[1], len(checkpoint_bytes))]
    path = tmp_path / "checkpoint"
    for at in outside:
        for byte in (0, 0xFF, checkpoint_bytes[at] ^ 1):
            path.write_bytes(changed(checkpoint_bytes, at, bytes([byte])))
            try:
                check_checkpoint(path, "adapter", SHAPE)
            except BundleError as error:
                assert "not a checkpoint of this bundle's adapter" in str(error)
        assert "not a checkpoint" in checkpoint_refusal(path, checkpoint_bytes[:at])
