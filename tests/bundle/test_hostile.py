"""A bundle from anywhere: each thing that its manifest or its files may do is refused with a message, before anything is made by it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.hostile import Change, edit, put, refusal

from lcsb_mobile.bundle.checks import BUFFER_BYTES
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.files import MANIFEST_BYTES, MOST_CHARACTERS, MOST_FILES
from lcsb_mobile.bundle.golden import TRACE_BYTES
from lcsb_mobile.bundle.manifest import MANIFEST_FILE, SESSION_CONFIG
from lcsb_mobile.errors import IntegrityError
from lcsb_mobile.export.onnx.settings import INT8_SETTINGS, SETTINGS
from lcsb_mobile.io.files import sha256
from lcsb_mobile.io.onnx_external_data import MOST_DEPTH, MOST_FIELDS, PROGRAM_BYTES
from lcsb_mobile.text.tokenizer import FILE_BYTES, RENDER_BYTES

LINEAR = {"num_key_heads": 2, "num_value_heads": 4, "key_head_dim": 8, "value_head_dim": 8, "chunk": 16}

# Values by themselves

VALUES = [
    (put("seq_len", 0), "seq_len: expected 1 to 1048576, found 0"),
    (put("seq_len", -5), "seq_len: expected 1 to 1048576, found -5"),
    (put("seq_len", 10**18), "seq_len: expected 1 to 1048576, found 1000000000000000000"),
    (put("seed", -1), "seed: expected 0 to 9007199254740992, found -1"),
    (put("identity", "f" * 63), "identity: expected a SHA-256, found 'fff"),
    (put("model.vocab_size", 2**40), "model.vocab_size: expected 1 to 16777216"),
    (put("model.hidden_size", 0), "model.hidden_size: expected 1 to 262144, found 0"),
    (put("model.intermediate_size", 0), "model.intermediate_size: expected 1"),
    (put("model.num_hidden_layers", 10**9), "model.num_hidden_layers: expected 1 to 4096, found 1000000000"),
    (put("model.num_attention_heads", 0), "model.num_attention_heads: expected 1"),
    (put("model.num_key_value_heads", 0), "model.num_key_value_heads: expected 1"),
    (put("model.head_dim", -1), "model.head_dim: expected 1"),
    (put("model.rms_norm_eps", 2), "model.rms_norm_eps: expected 0 to 1, found 2.0"),
    (put("model.query_scale", 0), "model.query_scale: expected 1e-09 to 1000000000, found 0.0"),
    (put("model.embedding_scale", 1e300), "model.embedding_scale"),
    (put("model.residual_multiplier", 0), "model.residual_multiplier: expected 1e-09 to 1000000000, found 0.0"),
    (put("model.logits_scaling", -1), "model.logits_scaling: expected 1e-09 to 1000000000, found -1.0"),
    (put("model.attn_logit_softcapping", 0), "model.attn_logit_softcapping: expected 1e-09 to 1000000000, found 0.0"),
    (put("model.final_logit_softcapping", 1e300), "model.final_logit_softcapping: expected 1e-09 to 1000000000, found 1e+300"),
    (put("model.rotary_dim", 0), "model.rotary_dim: expected 2 to 4096, found 0"),
    (put("model.conv_kernel", 10**6), "model.conv_kernel: expected 0 to 256, found 1000000"),
    (
        put("model.attention_kinds", {str(number): {"rope_theta": 1} for number in range(65)}),
        "model.attention_kinds: expected at most 64, found 65",
    ),
    (put("model.attention_kinds.full_attention.rope_theta", 0), "model.attention_kinds: expected positive numbers"),
    (put("model.attention_kinds.full_attention.window", 0), "model.attention_kinds: expected positive numbers"),
    *(
        (put("model.linear_attention", LINEAR | {field: value}), "model.linear_attention: expected 1 to 4096, found LinearAttention(")
        for field in LINEAR
        for value in (0, 4097)
    ),
    (put("lora.rank", 0), "lora.rank: expected 1 to 65536, found 0"),
    (put("lora.alpha", -1), "lora.alpha"),
    (put("kinds", []), "kinds: expected 1 to 64, found 0"),
    (lambda manifest: manifest.update(kinds=manifest["kinds"] * 65), "kinds: expected 1 to 64, found 65"),
    *(
        (put("kinds.0.name", name), f"kinds: {name[:40]!r}: expected a name of small letters and digits")
        for name in ("", "Block", "1block", "block_forward", "bl.ck", "../block", "bl\u00f6ck", "b" * 32)
    ),
    (put("kinds.0.size", 0), "kinds: 'block': expected a size of 1 to 2^31 and an attention_width of 0 to 2^24, found 0 and 72"),
    (put("kinds.0.size", 2**40), "kinds: 'block': expected a size of 1 to 2^31"),
    (put("kinds.0.attention_width", -1), "an attention_width of 0 to 2^24, found 3072 and -1"),
    (put("kinds.0.attention_width", 2**25), "an attention_width of 0 to 2^24, found 3072 and 33554432"),
    (put("kinds.0.matrices.0.shape.0", -4), "kinds: 'block': 'self_attn.q_proj.lora_A': expected positive dimensions, found [-4, 48] at 0"),
    (put("kinds.0.matrices.0.offset", -1), "'self_attn.q_proj.lora_A': expected positive dimensions, found [4, 48] at -1"),
    *(
        (
            put("kinds.0.state.0.shape", shape),
            f"kinds: 'block': state 'keys': expected positive dimensions of at most 1073741824 bytes, found {shape}",
        )
        for shape in ([], [0, 2, 12], [32, -2, 12], [1] * 9, [32, 2**12, 2**12], [2**50] * 8)
    ),
    (put("kinds.0.flops.forward", -1), "kinds: 'block': flops: expected 0 or more, found BlockWork(forward=-1"),
    (put("kinds.0.decompressed_bytes.backward_kept", -1), "kinds: 'block': decompressed_bytes: expected 0 or more"),
    (put("layers.1.number", -1), "layers: layer 1: expected 0 or more, found number -1, offset 3072"),
    (put("layers.1.offset", -3072), "layers: layer 1: expected 0 or more, found number 1, offset -3072"),
    (put("layers.2.offset", 2**60), "offset: expected a number of at most 2^53, found 1152921504606846976"),
    (put("layers/0/reads", {"\u001b[2J": "x"}), r"reads: expected a text without control characters, found '\x1b[2J'"),
    (put("quantization.group_size", 0), "quantization.group_size: expected 2 to 65536, found 0"),
    (put("schedule_config.subsets", 0), "schedule_config.subsets: expected 1"),
    (put("optimizer.betas.0", 1.0), "optimizer.betas: expected 0 to less than 1, found [1.0, 0.999]"),
    (put("optimizer.eps", -1), "optimizer.eps: expected 0 to 1, found -1.0"),
    (put("optimizer.weight_decay", -1), "optimizer.weight_decay"),
    (put("optimizer.clip_norm", 0), "optimizer.clip_norm"),
    (put("runtime.arena.initial_bytes", -1), "runtime.arena.initial_bytes: expected 0 to 68719476736, found -1"),
    (put("runtime.arena.initial_bytes", 2**40), "runtime.arena.initial_bytes"),
    (put("weights.1.offset", -4096), "weights: 'embed_tokens.weight.scale': expected positive dimensions at a multiple of 4096 bytes"),
    (put("weights.1.offset", 12290), "found [131, 6] at byte 12290"),
    (put("weights.1.shape.0", 0), "weights: 'embed_tokens.weight.scale': expected positive dimensions"),
    (put("weights.1.shape", []), "found [] at byte 8192"),
    (put("weights.1.shape", [1] * 9), "found [1, 1, 1, 1, 1, 1, 1, 1, 1] at byte 8192"),
    (put("source", "\u001b]0;x\u0007"), r"source: expected a text without control characters, found '\x1b]0;x\x07'"),
    (put("tools/a\nb", "1"), r"tools: expected a text without control characters, found 'a\nb'"),
    (put("reconstruction_error", {"x\u009b": 0}), r"found 'x\x9b'"),
    (put("files/gemm.onnx/size", 2**60), "size: expected a number of at most 2^53, found 1152921504606846976"),
]


@pytest.mark.parametrize(("change", "expected"), VALUES, ids=[expected[:40] for _, expected in VALUES])
def test_values(bundle: Path, change: Change, expected: str) -> None:
    edit(bundle, change)
    assert expected in refusal(bundle)


def test_all_faults_at_once(bundle: Path) -> None:
    changes = [change for change, _ in VALUES[:12]]
    edit(bundle, lambda manifest: [change(manifest) for change in changes])
    message = refusal(bundle)
    assert all(f"model.{name}" in message for name in ("vocab_size", "hidden_size")) and message.count("expected") == 8
    assert message.endswith("(and 3 more); export the bundle again")


# What ONNX Runtime is told

HARMFUL = {
    "session.node_partition_config_file": "/tmp/written",  # writes the file
    "session.load_model_format": "ORT",
    "session.optimized_model_filepath": "/tmp/written",
    "session.model_external_initializers_file_folder_path": "/etc",
    "session.use_ort_model_bytes_directly": "1",
    "session.force_spinning_stop": "2",
    "": "",
}


@pytest.mark.parametrize("key", HARMFUL)
def test_session_configuration(bundle: Path, key: str) -> None:
    edit(bundle, put("runtime.session_config", {key: HARMFUL[key]}))
    assert f"runtime.session_config: {key!r} = {HARMFUL[key]!r} is none of the entries that an export writes" in refusal(bundle)


def test_session_configuration_that_is_written() -> None:
    written = SETTINGS.session_config | INT8_SETTINGS.session_config
    assert tuple(written) == SESSION_CONFIG and set(written.values()) <= {"0", "1"}


# JSON

MALFORMED: list[tuple[bytes, str]] = [
    (b"[" * 100_000, "malformed manifest: "),
    (b'{"format_version": 3, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed manifest: maximum recursion depth"),
    (b'{"format_version": 3, "x": "\xff"}', "malformed manifest: Object contains unknown field `x`"),
    (b'{"format_version": 3, "source": "\xff"}', "malformed manifest: "),  # from 0.23 on msgspec says it in other words
    (b'{"format_version": NaN}', "malformed manifest: JSON is malformed"),
    (b'{"format_version": 1e999}', "malformed manifest: Number out of range"),
    (b'{"format_version": ' + b"9" * 5000 + b"}", "malformed manifest: Integer value out of range"),
    (b'{"format_version": 3, "\\u001b[2J": 1}', "malformed manifest: Object"),
    (b"", "malformed manifest: Input data was truncated"),
    (b" " * (MANIFEST_BYTES + 1), f"cannot be read ({MANIFEST_BYTES + 1} bytes, more than the {MANIFEST_BYTES} that are read)"),
]


@pytest.mark.parametrize(("content", "expected"), MALFORMED, ids=[str(number) for number in range(len(MALFORMED))])
def test_malformed_json(bundle: Path, content: bytes, expected: str) -> None:
    (bundle / MANIFEST_FILE).write_bytes(content)
    assert expected in refusal(bundle)


@pytest.mark.parametrize("inner", [False, True])
def test_a_key_twice(bundle: Path, inner: bool) -> None:
    """One reader takes the first, another the last: what is checked here would not be what a phone reads."""
    text = (bundle / MANIFEST_FILE).read_text("utf-8")
    old, new = ('"rank":', '"rank": 4, "rank":') if inner else ('"seed":', '"seed": 1, "seed":')
    (bundle / MANIFEST_FILE).write_text(text.replace(old, new, 1), "utf-8")
    assert f"the key '{'rank' if inner else 'seed'}' stands twice in an object" in refusal(bundle)


# Files

NAMES = ["../x", "/x", "a/../x", "", "a\\b", "a//b", "./x", "a/", ".x", "a.", "C:x", "a b", "a\u0000b", "é", "x" * 201, "a/.b", "con\n"]


@pytest.mark.parametrize("name", NAMES)
def test_names(bundle: Path, name: str) -> None:
    edit(bundle, lambda manifest: manifest["files"].update({name: manifest["files"]["gemm.onnx"]}))
    message = refusal(bundle)
    assert "which is outside the bundle or not a name on every system" in message or "control characters" in message


@pytest.mark.parametrize("name", ["Weights.bin", "MANIFEST.json", "manifest.json"])
def test_names_that_some_systems_take_for_one(bundle: Path, name: str) -> None:
    edit(bundle, lambda manifest: manifest["files"].update({name: manifest["files"]["weights.bin"]}))
    assert f"the manifest lists {name.lower()!r} 2 times for a system that does not tell" in refusal(bundle)


def test_too_many_files(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["files"].update({f"f{n}": manifest["files"]["gemm.onnx"] for n in range(MOST_FILES)}))
    assert f"files, more than {MOST_FILES}" in refusal(bundle)


@pytest.mark.parametrize("name", ["weights.bin", "adapter.safetensors", "golden.json", "tokenizer.json", "tokenizer_config.json"])
def test_files_that_are_read_are_listed(bundle: Path, name: str) -> None:
    edit(bundle, lambda manifest: manifest["files"].pop(name))
    assert f"the manifest lists no {name}" in refusal(bundle) or name == "weights.bin"


@pytest.mark.training_api
def test_the_checkpoint_is_listed(training_bundle: Path) -> None:
    edit(training_bundle, lambda manifest: manifest["files"].pop("checkpoint"))
    assert "the manifest lists no checkpoint" in refusal(training_bundle)


@pytest.mark.parametrize("name", ["chat_template.jinja", "checkpoint.data"])
def test_files_that_would_be_read_unasked(bundle: Path, name: str) -> None:
    (bundle / name).symlink_to("/etc/passwd")
    assert f"{name} is not listed in the manifest; remove it" in refusal(bundle)


@pytest.mark.parametrize("name", ["weights.bin", "tokenizer.json", MANIFEST_FILE])
def test_links_that_lead_outside(bundle: Path, name: str) -> None:
    """Even to what is the same file."""
    outside = shutil.move(bundle / name, bundle.parent / "outside")
    (bundle / name).symlink_to(outside)
    assert f"{name} is a link that leads outside the bundle" in refusal(bundle)


def test_a_directory_that_leads_outside(bundle: Path) -> None:
    (bundle.parent / "outside").mkdir()
    shutil.copy(bundle / "gemm.onnx", bundle.parent / "outside")
    (bundle / "sub").symlink_to(bundle.parent / "outside")
    edit(bundle, lambda manifest: manifest["files"].update({"sub/gemm.onnx": manifest["files"]["gemm.onnx"]}))
    assert "sub/gemm.onnx is a link that leads outside the bundle" in refusal(bundle)


def test_links_within(bundle: Path) -> None:
    (bundle / "there").mkdir()
    shutil.move(bundle / "weights.bin", bundle / "there")
    (bundle / "weights.bin").symlink_to("there/weights.bin")
    (bundle.parent / "link").symlink_to(bundle)
    assert Bundle.open(bundle.parent / "link").weights["norm.weight"].shape == (48,)


@pytest.mark.parametrize("name", ["weights.bin", "golden.json"])
def test_what_is_no_file(bundle: Path, name: str) -> None:
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(name, path)):  # the last is a link to itself
        shutil.rmtree(bundle / name) if (bundle / name).is_dir() else (bundle / name).unlink()
        make(bundle / name)
        assert f"{name} is missing; copy the bundle again, whole" in refusal(bundle)
    (bundle / MANIFEST_FILE).unlink()
    os.mkfifo(bundle / MANIFEST_FILE)
    assert "cannot be read (not a regular file)" in refusal(bundle)


SIZES = [
    ("golden.json", 16 * 2**20 + 1, "golden.json: expected 0 to 16777216 bytes"),
    ("tokenizer.json", 64 * 2**20 + 1, "tokenizer.json: expected 0 to 67108864 bytes"),
    ("tokenizer_config.json", 16 * 2**20 + 1, "tokenizer_config.json: expected 0 to 16777216 bytes"),
    ("gemm.onnx", 16 * 2**20 + 1, "gemm.onnx: expected 0 to 16777216 bytes"),
    ("adapter.safetensors", 36863, "adapter.safetensors: expected 36864 to 51712 bytes, found 36863"),
]


@pytest.mark.parametrize(("name", "size", "expected"), SIZES)
def test_sizes(bundle: Path, name: str, size: int, expected: str) -> None:
    """Refused before it is read: the digest is not looked at."""
    with (bundle / name).open("wb") as file:
        file.truncate(size)
    edit(bundle, put(f"files/{name}/size", size))
    assert expected in refusal(bundle)


@pytest.mark.training_api
def test_the_size_of_the_checkpoint(training_bundle: Path) -> None:
    test_sizes(training_bundle, "checkpoint", 36864 + 4097, "checkpoint: expected 36864 to 40960 bytes, found 40961")


def test_integrity_comes_last(bundle: Path) -> None:
    edit(bundle, put("files/gemm.onnx/sha256", "\u00e4" * 64))
    assert f"expected SHA-256 {'ä' * 12}…, found {sha256(bundle / 'gemm.onnx')[:12]}…" in refusal(bundle, IntegrityError)


def test_the_page_states_the_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hostile_input.md").read_text("utf-8")
    mib = 2**20
    config = ", ".join(f"{size // mib} MiB" for size in FILE_BYTES.values())
    for row in (
        f"| `manifest.json` | {MANIFEST_BYTES // mib} MiB ",
        f"| `golden.json` | {TRACE_BYTES // mib} MiB ",
        f"| a program | {PROGRAM_BYTES // mib} MiB, {MOST_FIELDS:,} fields, {MOST_DEPTH} messages ",
        f"| `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` | {config} ",
        f"| files of a bundle | {MOST_FILES:,}; names of {MOST_CHARACTERS} characters ",
        f"| one tensor that a runner makes a buffer for | {BUFFER_BYTES // 2**30} GiB",
        f"| memory of a chat template while it renders | {RENDER_BYTES // mib} MiB ",
    ):
        assert row in page, row
