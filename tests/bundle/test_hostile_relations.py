"""Tables of a manifest that do not agree with each other, each value of them being in its range."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.hostile import Change, Json, edit, put, refusal

from lcsb_mobile.bundle.checks import check_manifest
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from lcsb_mobile.bundle.relations import relation_faults
from lcsb_mobile.bundle.weights import PAGE, WeightTensor
from lcsb_mobile.errors import BundleError


def swap(field: str, first: int, second: int) -> Change:
    """Of two entries of a list."""

    def change(manifest: Json) -> None:
        place: Any = manifest
        for parent in field.split("."):
            place = place[parent]
        place[first], place[second] = place[second], place[first]

    return change


def repeat(field: str) -> Change:
    """A list's first entry stands at its end again."""

    def change(manifest: Json) -> None:
        place: Any = manifest
        for parent in field.split("."):
            place = place[parent]
        place.append(place[0])

    return change


SHARED = [
    (put("model.layer_kinds", [0, 0]), "model.layer_kinds: expected one of 1 kinds for each of 3 layers, found [0, 0]"),
    (put("model.layer_kinds", [0, 0, 1]), "model.layer_kinds: expected one of 1 kinds for each of 3 layers, found [0, 0, 1]"),
    (put("model.num_key_value_heads", 4), "model: 6 heads are no multiple of 4 key-value heads"),
    (put("schedule", []), "schedule: expected at least one step, found none"),
    (put("schedule.0", {"train": [3], "propagate": [3]}), "schedule: step 1: train: expected ascending layers from 0 to 2, found [3]"),
    (put("schedule.1", {"train": [], "propagate": [1]}), "schedule: step 2: expected train to be non-empty"),
    (put("schedule.2.propagate", [2, 1, 0]), "schedule: step 3: propagate: expected ascending layers"),
    (put("schedule.2.propagate", [1, 2]), "schedule: step 3: expected train to be non-empty and within propagate"),
    (put("adapter.num_layers", 4000), "adapter.num_layers: expected 3, found 4000"),
    (put("adapter.size", 3071), "adapter.size: expected 3072, where the last of 14 matrices ends, found 3071"),
    (put("adapter.matrices.1.offset", 191), "adapter.matrices: expected a lora_B of rank 4 at 192, found AdapterMatrix("),
    (put("adapter.matrices.0.shape", [5, 48]), "adapter.matrices: expected a lora_A of rank 4 at 0"),
    (swap("adapter.matrices", 0, 1), "adapter.matrices: expected a lora_A of rank 4 at 0"),
    (put("adapter.matrices.1.name", "x.lora_B"), "expected both of one projection, found 'self_attn.q_proj.lora_A' and 'x.lora_B'"),
    (lambda manifest: manifest["adapter"]["matrices"].pop(), "where the last of 13 matrices ends"),
    (repeat("adapter.matrices"), "adapter.matrices: 'self_attn.q_proj.lora_A' stands twice"),
    (repeat("weights"), "weights: 'embed_tokens.weight.packed' stands twice"),
    (put("weights.0.offset", 1 << 40), "weights: the tensors end at byte 1099511634064 of weights.bin, which has 107072"),
    (put("files/weights.bin/size", 107071), "weights: the tensors end at byte 107072 of weights.bin, which has 107071"),
    (put("weights.1.offset", 0), "weights: 'embed_tokens.weight.packed' and 'embed_tokens.weight.scale' overlap"),
    (put("weights.0.shape.0", 130), "weights: 'embed_tokens.weight.packed': expected int8 [131, 6, 8], found int8 [130, 6, 8]"),
    (put("weights.1.dtype", "float32"), "weights: 'embed_tokens.weight.scale': expected float16 [131, 6], found float32 [131, 6]"),
    (put("weights.2.name", "norm"), "weights: 'norm.weight': expected float32 [48], found none"),
    (put("weights.3.shape.1", 31), "weights: 'rope.cos': expected float32 [1, 32, 12], found float32 [1, 31, 12]"),
    (
        put("weights.5.shape.0", 2),
        "weights: 'layers.self_attn.q_proj.weight.packed': expected uint8 [3, 72, 6, 4], found uint8 [2, 72, 6, 4]",
    ),
    (put("weights.5.dtype", "int8"), "weights: 'layers.self_attn.q_proj.weight.packed': expected uint8"),
    (put("weights.20.shape.0", 1), "weights: 'layers.post_attention_layernorm.weight': expected 3 layers, found 1"),
    (put("model.tie_word_embeddings", False), "weights: 'lm_head.weight.packed': expected int8 [131, 6, 8], found none"),
    (
        put("quantization.group_size", 10),
        "quantization.group_size: expected an even divisor of the 48 columns of 'embed_tokens.weight', found 10",
    ),
    (put("quantization.group_size", 3), "quantization.group_size: expected an even divisor"),
    (put("quantization.bits", 8), "expected int8 [3, 72, 6, 8], found uint8 [3, 72, 6, 4]"),
    (lambda manifest: manifest["graphs"].pop("gemm"), "graphs: gemm missing"),
    (put("graphs.gemm.inputs.0.shape", [2, 2]), "graphs.gemm: inputs: 'a': expected float32 [-1, -1], found float32 [2, 2]"),
    (put("graphs.gemm.file", "gemm_backward.onnx"), "graphs.gemm: expected the file gemm.onnx, found 'gemm_backward.onnx'"),
    (repeat("graphs.gemm.inputs"), "graphs.gemm: inputs: 'a' stands twice"),
    (repeat("graphs.gemm.outputs"), "graphs.gemm: outputs: 'y' stands twice"),
]

PROGRAMS = [
    (lambda manifest: manifest["graphs"].pop("head"), "graphs: head missing"),
    (put("graphs.embed.inputs.0.shape", [33]), "graphs.embed: inputs: 'input_ids': expected int64 [32], found int64 [33]"),
    (put("graphs.embed.outputs.0.dtype", "float16"), "graphs.embed: outputs: 'h': expected float32 [32, 48], found float16 [32, 48]"),
    (put("graphs.embed.outputs.0.dtype", "string"), "graphs.embed: 'h': expected a dtype and positive dimensions, found 'string' [32, 48]"),
    (put("graphs.embed.outputs.0.shape.0", -1), "graphs.embed: 'h': expected a dtype and positive dimensions, found 'float32' [-1, 48]"),
    (put("graphs.embed.outputs.0.shape.0", 0), "found 'float32' [0, 48]"),
    (put("graphs.embed.outputs.0.shape", [2**20, 2**20]), "'h': expected at most 1073741824 bytes, found float32 [1048576, 1048576]"),
    (put("graphs.embed.outputs.0.shape", [2**50] * 8), "expected at most 1073741824 bytes"),
    (put("graphs.embed.working_bytes", -1), "graphs.embed: working_bytes: expected 0 or more, found -1"),
    (
        put("graphs.embed.inputs.3.weight", "rope.cos"),
        "graphs.embed: 'rope.cos' as: 'embed_tokens.weight.packed': expected float32 [1, 32, 12]",
    ),
    (put("graphs.embed.inputs.3.weight", "absent"), "graphs.embed: 'absent' as: 'embed_tokens.weight.packed': expected nothing []"),
    (put("graphs.embed.inputs.0.weight", "norm.weight"), "graphs.embed: inputs: 'input_ids': expected int64 [32], found none"),
    (put("graphs.embed.outputs.0.weight", "norm.weight"), "graphs.embed: the output 'h' cannot be a weight"),
    (put("graphs.block_forward.inputs.5.shape", [3, 72, 6, 4]), "expected uint8 [72, 6, 4], found uint8 [3, 72, 6, 4]"),
    (put("graphs.block_decode.inputs.4.shape.0", 33), "graphs.block_decode: inputs: 'past_keys': expected float32 [32, 2, 12]"),
    (put("graphs.block_prefill.outputs.1.name", "key"), "graphs.block_prefill: outputs: 'keys': expected float32 [32, 2, 12], found none"),
    (put("graphs.logits.outputs.0.shape.0", 132), "graphs.logits: outputs: 'logits': expected float32 [131], found float32 [132]"),
    (put("graphs.adamw.inputs.0.shape.0", 1), "graphs.adamw: inputs: 'parameters': expected float32 [3072], found float32 [1]"),
    (
        put("graphs.block_forward_keep.outputs.1.shape.0", 9),
        "graphs.block_forward_keep: what block_backward_kept reads: 'kept.0': expected",
    ),
    (swap("graphs.block_forward_keep.outputs", 0, 1), "what block_backward_kept reads: 'h_next': expected none"),
    (put("graphs.head.inputs.0.name", "kept.0"), "graphs.head: inputs: 'h': expected float32 [32, 48], found none"),
    (
        lambda manifest: manifest["graphs"]["head"]["initializers"].append(manifest["graphs"]["head"]["inputs"].pop()),
        "graphs.head: 'norm.weight': expected the layers' weight that it is",
    ),
]

TRAINING = [
    (lambda manifest: manifest["graphs"].pop("optimizer_model"), "graphs: optimizer_model missing"),
    (put("graphs.training_model.inputs.4.shape", [4]), "graphs.training_model: inputs: 'train': expected bool [3], found bool [4]"),
    (put("graphs.eval_model.inputs.4.shape", [3, 3073]), "graphs.eval_model: inputs: 'adapter': expected float32 [3, 3072]"),
    (put("graphs.logits_model.outputs.0.shape", [130]), "graphs.logits_model: outputs: 'logits': expected float32 [131]"),
]


@pytest.mark.parametrize(("change", "expected"), SHARED + PROGRAMS, ids=[expected for _, expected in SHARED + PROGRAMS])
def test_of_target_onnxruntime(bundle: Path, change: Change, expected: str) -> None:
    edit(bundle, change)
    assert expected in refusal(bundle)


@pytest.mark.training_api
@pytest.mark.parametrize(("change", "expected"), SHARED + TRAINING, ids=[expected for _, expected in SHARED + TRAINING])
def test_of_target_onnxruntime_training(training_bundle: Path, change: Change, expected: str) -> None:
    edit(training_bundle, change)
    assert expected in refusal(training_bundle)


@pytest.mark.parametrize("which", ["bundle", pytest.param("training_bundle", marks=pytest.mark.training_api)])
def test_every_tensor_that_a_runner_makes(request: pytest.FixtureRequest, which: str) -> None:
    """Whichever input or output of whichever program is of another type: it is refused, and named. Only the optimizer's are not ours."""
    path: Path = request.getfixturevalue(which)
    manifest = json.loads((path / MANIFEST_FILE).read_bytes())
    for name, graph in manifest["graphs"].items():
        for tensor in (*graph["inputs"], *graph["outputs"]) if name != "optimizer_model" else ():
            kept, tensor["dtype"] = tensor["dtype"], "uint8" if tensor["dtype"] != "uint8" else "int8"
            with pytest.raises(BundleError, match=f"graphs.({name}|block_forward_keep): .*{re.escape(repr(tensor['name']))}: expected"):
                check_manifest(msgspec.convert(manifest, Manifest), path)
            tensor["dtype"] = kept
    check_manifest(msgspec.convert(manifest, Manifest), path)


def test_tensors_may_touch(bundle: Path) -> None:
    """To the byte: one ends where the next begins, and then one byte further."""
    manifest = Bundle.open(bundle).manifest
    files = manifest.files | {"weights.bin": FileEntry(2**20, "")}
    for size, expected in ((PAGE, []), (PAGE + 1, ["weights: 'a' and 'b' overlap"])):
        more = (WeightTensor("a", "int8", (size,), 40 * PAGE), WeightTensor("b", "int8", (1,), 41 * PAGE))
        assert list(relation_faults(msgspec.structs.replace(manifest, weights=(*manifest.weights, *more), files=files))) == expected


def test_every_fault_is_named(bundle: Path) -> None:
    """Of one program's eight, and what else there is: the first eight, each with what was expected and found."""
    edit(bundle, put("model.head_dim", 24))
    message = refusal(bundle)
    assert message.count("expected") == 8 and " more); export the bundle again" in message


def test_other_targets_have_other_programs(bundle: Path) -> None:
    """Nothing here runs them: they are listed, and the rest is held to the same."""
    edit(bundle, lambda manifest: manifest.update(target="coreml", graphs={}))
    assert Bundle.open(bundle).manifest.target == "coreml"
    edit(bundle, put("seq_len", 31))
    assert "weights: 'rope.cos': expected float32 [1, 31, 12]" in refusal(bundle)
