"""Tables of a manifest that do not agree with each other, each value of them being in its range."""

from __future__ import annotations

import copy
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


def at(manifest: Json, field: str) -> Any:
    """A list, or an object."""
    place: Any = manifest
    for parent in field.split("."):
        place = place[int(parent) if isinstance(place, list) else parent]
    return place


def swap(field: str, first: int, second: int) -> Change:
    """Of two entries of a list."""

    def change(manifest: Json) -> None:
        place = at(manifest, field)
        place[first], place[second] = place[second], place[first]

    return change


def repeat(field: str) -> Change:
    """A list's first entry stands at its end again."""
    return lambda manifest: at(manifest, field).append(copy.deepcopy(at(manifest, field)[0]))


def append(field: str, value: object) -> Change:
    return lambda manifest: at(manifest, field).append(value)


def drop(field: str, name: str) -> Change:
    """Of inputs or outputs the one of that name."""
    return lambda manifest: at(manifest, field).remove(next(x for x in at(manifest, field) if x["name"] == name))


def together(*changes: Change) -> Change:
    return lambda manifest: [change(manifest) for change in changes]


def for_layers(field: str, value: object) -> Change:
    """In every layer."""
    return lambda manifest: [put(field, value)(layer) for layer in manifest["layers"]]


FULL = "full_attention"
LINEAR = {"num_key_heads": 2, "num_value_heads": 4, "key_head_dim": 8, "value_head_dim": 8, "chunk": 5}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 31}
PREFIXES = "expected no name that begins with kept., d_ or past_, found"

SHARED = [
    (put("model.layer_types", [FULL, FULL]), "model.layer_types: expected 3 layers, found 2"),
    (lambda manifest: manifest["layers"].pop(), "layers: expected 3 layers, found 2"),
    (put("model.attention_kinds.other", {"rope_theta": 1.0}), "model.attention_kinds: no layer is of type other"),
    (put("model.rotary_dim", 11), "model.rotary_dim: expected an even number of at most 12, found 11"),
    (put("model.rotary_dim", 14), "model.rotary_dim: expected an even number of at most 12, found 14"),
    (put("model.linear_attention", LINEAR), "seq_len: expected a multiple of 5, found 32"),
    (
        put("model.attention_kinds.full_attention.rope_scaling", DYNAMIC),
        "seq_len: expected at most 31, as the model's RoPE has it, found 32",
    ),
    (put("model.num_key_value_heads", 4), "model: 6 heads are no multiple of 4 key-value heads"),
    (put("schedule", []), "schedule: expected at least one step, found none"),
    (put("schedule.0", {"train": [3], "propagate": [3]}), "schedule: step 1: train: expected ascending layers from 0 to 2, found [3]"),
    (put("schedule.1", {"train": [], "propagate": [1]}), "schedule: step 2: expected train to be non-empty"),
    (put("schedule.2.propagate", [2, 1, 0]), "schedule: step 3: propagate: expected ascending layers"),
    (put("schedule.2.propagate", [1, 2]), "schedule: step 3: expected train to be non-empty and within propagate"),
    (repeat("kinds"), "kinds: 'block' stands twice; graphs: 'block_forward' stands twice"),
    (together(put("kinds.0.name", "gemm"), for_layers("kind", "gemm")), "graphs: 'gemm_backward' stands twice"),
    (
        together(repeat("kinds"), repeat("kinds"), put("kinds.1.name", "spare"), put("kinds.2.name", "more")),
        "kinds: no layer is of kind more, spare",
    ),
    (put("kinds.0.reads.1", "cos"), "kinds: block: names: 'cos' stands twice"),
    (put("kinds.0.takes", ["cos"]), "kinds: block: names: 'cos' stands twice"),
    *((put("kinds.0.reads.1", name), f"kinds: block: names: {name!r} stands twice") for name in ("h", "g", "adapter", "h_next", "g_next")),
    (put("kinds.0.gives", ["adapter"]), "kinds: block: names: 'adapter' stands twice"),
    (put("kinds.0.gives", ["keys"]), "kinds: block: state: 'keys' stands twice"),  # both are outputs of a prefill
    (put("kinds.0.state.1.name", "keys"), "kinds: block: state: 'keys' stands twice"),
    (put("kinds.0.state.1.name", "h_next"), "kinds: block: state: 'h_next' stands twice"),
    (put("kinds.0.state.1.name", "d_keys"), f"kinds: block: {PREFIXES} 'd_keys'"),
    (put("kinds.0.reads.0", "kept.0"), f"kinds: block: {PREFIXES} 'kept.0'"),
    (put("kinds.0.takes", ["past_keys"]), f"kinds: block: {PREFIXES} 'past_keys'"),
    (put("kinds.0.gives", ["d_adapter"]), f"kinds: block: {PREFIXES} 'd_adapter'"),
    (put("kinds.0.state.0.shape.0", 33), "kinds: block: state 'keys': expected 32 places, found 33"),
    (put("kinds.0.size", 3071), "kinds: block: size: expected 3072, where the last of 14 matrices ends, found 3071"),
    (put("kinds.0.matrices.1.offset", 191), "kinds: block: matrices: expected a lora_B of rank 4 at 192, found AdapterMatrix("),
    (put("kinds.0.matrices.0.shape", [5, 48]), "kinds: block: matrices: expected a lora_A of rank 4 at 0"),
    (put("lora.rank", 5), "kinds: block: matrices: expected a lora_A of rank 5 at 0"),
    (swap("kinds.0.matrices", 0, 1), "kinds: block: matrices: expected a lora_A of rank 4 at 0"),
    (put("kinds.0.matrices.1.name", "x.lora_B"), "expected both of one projection, found 'self_attn.q_proj.lora_A' and 'x.lora_B'"),
    (lambda manifest: manifest["kinds"][0]["matrices"].pop(), "where the last of 13 matrices ends"),
    (put("kinds.0.matrices", []), "kinds: block: size: expected 0, where the last of 0 matrices ends, found 3072"),
    (repeat("kinds.0.matrices"), "kinds: block: matrices: 'self_attn.q_proj.lora_A' stands twice"),
    (put("layers.1.kind", "other"), "layers: layer 1: expected a kind of block, found 'other'"),
    (put("layers.1.number", 0), "layers: layer 1: expected number 1 at offset 3072, found 0 at 3072"),
    (put("layers.2.number", 3), "layers: layer 2: expected number 2 at offset 6144, found 3 at 6144"),
    (put("layers.1.offset", 0), "layers: layer 1: expected number 1 at offset 3072, found 1 at 0"),
    (put("layers.1.offset", 3073), "layers: layer 1: expected number 1 at offset 3072, found 1 at 3073"),
    (swap("layers", 0, 2), "layers: layer 0: expected number 0 at offset 0, found 2 at 6144"),
    (lambda manifest: manifest["layers"][2]["reads"].pop("sin"), "layers: layer 2: reads: expected cos, sin, mask, found cos, mask"),
    (put("layers.0.reads.taps", "taps"), "layers: layer 0: reads: expected cos, sin, mask, found cos, sin, mask, taps"),
    (put("layers.0.takes.keys", "keys"), "layers: layer 0: takes: expected none, found keys"),
    (put("layers.1.gives.keys", "keys"), "layers: layer 1: gives: expected of none, found keys"),
    (
        together(put("kinds.0.takes", ["more"]), for_layers("takes", {"more": "x"})),
        "layers: layer 0: takes x, which no layer before it gives; layers: layer 1: takes x, which no layer before it gives",
    ),
    (
        together(put("kinds.0.takes", ["in"]), put("kinds.0.gives", ["out"]), for_layers("takes.in", "x"), for_layers("gives.out", "x")),
        "layers: layer 0: takes x, which no layer before it gives; layers: layer 1: gives: 'x' stands twice",
    ),
    (
        together(put("kinds.0.gives", ["a", "b"]), put("layers.0.gives", {"a": "x", "b": "x"})),
        "layers: layer 0: gives: 'x' stands twice",
    ),
    (repeat("weights"), "weights: 'embed_tokens.weight.packed' stands twice"),
    (put("weights.0.offset", 1 << 40), "weights: the tensors end at byte 1099511634064 of weights.bin, which has 107136"),
    (put("files/weights.bin/size", 107071), "weights: the tensors end at byte 107072 of weights.bin, which has 107071"),
    (put("weights.1.dtype", "float32"), "'embed_tokens.weight.scale': expected float16 [131, 6], found float32 [131, 6]"),  # all or none
    (put("weights.1.offset", 0), "weights: 'embed_tokens.weight.packed' and 'embed_tokens.weight.scale' overlap"),
    (put("weights.0.shape.0", 130), "weights: 'embed_tokens.weight.packed': expected int8 [131, 6, 8], found int8 [130, 6, 8]"),
    (put("weights.1.dtype", "float32"), "weights: 'embed_tokens.weight.scale': expected float16 [131, 6], found float32 [131, 6]"),
    (put("weights.2.name", "norm"), "weights: 'norm.weight': expected float32 [48], found none"),
    (put("weights.3.shape.0", 31), "weights: 'rope.full_attention.cos': expected float32 [32, 12], found float32 [31, 12]"),
    (put("model.rotary_dim", 10), "weights: 'rope.full_attention.cos': expected float32 [32, 10], found float32 [32, 12]"),
    (put("weights.4.name", "rope.sin"), "weights: 'rope.full_attention.sin': expected float32 [32, 12], found none"),
    (
        put("weights.5.shape.0", 2),
        "weights: 'layers.block.self_attn.q_proj.weight.packed': expected uint8 [3, 72, 6, 4], found uint8 [2, 72, 6, 4]",
    ),
    (put("weights.5.dtype", "int8"), "weights: 'layers.block.self_attn.q_proj.weight.packed': expected uint8"),
    (put("weights.20.shape.0", 1), "weights: 'layers.block.post_attention_layernorm.weight': expected 3 layers, found 1"),
    (put("weights.20.name", "layers.other.x"), "weights: 'layers.other.x': expected 0 layers, found 3"),
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
        put("graphs.embed.inputs.3.weight", "rope.full_attention.cos"),
        "graphs.embed: 'rope.full_attention.cos' as: 'embed_tokens.weight.packed': expected float32 [32, 12]",
    ),
    (put("graphs.embed.inputs.3.weight", "absent"), "graphs.embed: 'absent' as: 'embed_tokens.weight.packed': expected nothing []"),
    (put("graphs.embed.inputs.0.weight", "norm.weight"), "graphs.embed: inputs: 'input_ids': expected int64 [32], found none"),
    (put("graphs.embed.outputs.0.weight", "norm.weight"), "graphs.embed: the output 'h' cannot be a weight"),
    (put("graphs.block_forward.inputs.5.shape", [3, 72, 6, 4]), "expected uint8 [72, 6, 4], found uint8 [3, 72, 6, 4]"),
    (put("graphs.block_decode.inputs.4.shape.0", 33), "graphs.block_decode: inputs: 'past_keys': expected float32 [32, 2, 12]"),
    (put("graphs.block_prefill.outputs.1.name", "key"), "graphs.block_prefill: outputs: 'keys': expected float32 [32, 2, 12], found none"),
    (put("graphs.logits.outputs.0.shape.0", 132), "graphs.logits: outputs: 'logits': expected float32 [131], found float32 [132]"),
    (put("graphs.adamw.inputs.0.shape.0", 3072), "graphs.adamw: inputs: 'parameters': expected float32 [-1], found float32 [3072]"),
    (put("graphs.adamw.outputs.0.shape.0", 1), "graphs.adamw: outputs: 'parameters_next': expected float32 [-1], found float32 [1]"),
    (
        put("graphs.block_forward_keep.outputs.1.shape.0", 9),
        "graphs.block_forward_keep: what block_backward_kept reads: 'kept.0': expected",
    ),
    (
        lambda manifest: manifest["graphs"]["block_forward_keep"]["outputs"].pop(),
        "graphs.block_forward_keep: what block_backward_kept reads: 'kept.5': expected float16 [32, 80], found none",
    ),
    (
        put("graphs.block_forward.outputs.0.name", "kept.0"),
        "graphs.block_forward: outputs: 'h_next': expected float32 [32, 48], found none",
    ),
    (put("graphs.head.inputs.0.name", "kept.0"), "graphs.head: inputs: 'h': expected float32 [32, 48], found none"),
    (
        lambda manifest: manifest["graphs"]["head"]["initializers"].append(manifest["graphs"]["head"]["inputs"].pop()),
        "graphs.head: 'norm.weight': expected the layers' weight that it is",
    ),
]

# Of two kinds of layers, `full` and `shared`, in turn: layers 0 and 2 give keys and values, which 1 and 5, and 3 take.
CROSSING = [
    (put("kinds.1.name", "full"), "kinds: 'full' stands twice"),
    (put("layers.1.kind", "full"), "layers: layer 1: expected number 1 at offset 3072, found 0 at 3072"),
    (put("layers.2.number", 2), "layers: layer 2: expected number 1 at offset 5568, found 2 at 5568"),
    (swap("layers", 0, 1), "layers: layer 0: expected number 0 at offset 0, found 0 at 3072"),
    (put("layers.5.takes.keys", "nobody"), "layers: layer 5: takes nobody, which no layer before it gives"),
    (put("layers.1.takes.keys", "keys.2"), "layers: layer 1: takes keys.2, which no layer before it gives"),  # its giver is above it
    (put("layers.1.takes", {"keys": "keys.0"}), "layers: layer 1: takes: expected keys, values, found keys"),
    (put("layers.2.gives.all_keys", "keys.0"), "layers: layer 2: gives: 'keys.0' stands twice"),
    (put("layers.2.gives.all_keys", "values.2"), "layers: layer 2: gives: 'values.2' stands twice"),
    (put("layers.2.gives.more", "more"), "layers: layer 2: gives: expected of all_keys, all_values, found more"),
    (put("layers.2.gives", {}), "layers: layer 3: takes keys.2, values.2, which no layer before it gives"),
    (
        append("kinds.0.gives", "more"),
        "graphs.full_forward: outputs: expected what layers of its kind give, found no more; graphs.full_prefill: outputs: expected",
    ),
    (put("kinds.0.gives.0", "keys"), "kinds: full: state: 'keys' stands twice"),
    (
        drop("graphs.full_prefill.outputs", "all_keys"),
        "graphs.full_prefill: outputs: expected what layers of its kind give, found no all_keys",
    ),
    (
        drop("graphs.full_decode.outputs", "all_keys"),
        "graphs.full_decode: outputs: expected what layers of its kind give, found no all_keys",
    ),
    (
        drop("graphs.full_forward_keep.outputs", "all_keys"),
        "graphs.full_forward_keep: outputs: 'all_keys': expected float32 [32, 2, 12], found none",
    ),
    (
        drop("graphs.full_backward.inputs", "d_all_keys"),
        "graphs.full_backward: inputs: 'd_all_keys': expected float32 [32, 2, 12], found none",
    ),
    (
        drop("graphs.full_backward_kept.inputs", "d_all_values"),
        "graphs.full_backward_kept: inputs: 'd_all_values': expected float32 [32, 2, 12], found none",
    ),
    (
        drop("graphs.shared_backward.outputs", "d_keys"),
        "graphs.shared_backward: outputs: 'd_keys': expected float32 [32, 2, 12], found none",
    ),
    (
        drop("graphs.shared_backward_kept.outputs", "d_keys"),
        "graphs.shared_backward_kept: outputs: 'd_keys': expected float32 [32, 2, 12], found none",
    ),
    (put("graphs.full_forward.outputs.1.dtype", "float16"), "graphs.full_forward: outputs: 'all_keys': expected float32 [32, 2, 12]"),
    (
        put("graphs.full_forward.outputs.1.shape", [32, 24]),
        "graphs.shared_forward: inputs: 'keys': expected float32 [32, 24], found float32 [32, 2, 12]",
    ),
    (
        put("graphs.full_decode.outputs.1.shape", [33, 24]),
        "graphs.shared_decode: inputs: 'keys': expected float32 [33, 24], found float32 [33, 2, 12]",
    ),
    (
        put("graphs.full_prefill.outputs.1.shape", [32, 24]),
        "graphs.shared_prefill: inputs: 'keys': expected float32 [32, 24], found float32 [32, 2, 12]",
    ),
    (put("layers.0.reads.cos", "nothing"), "graphs.full_forward: inputs: 'cos': expected none, found float32 [32, 12]"),
    (for_layers("reads.cos", "nothing"), "graphs.embed: outputs: 'cos.full_attention': expected none, found float32 [32, 12]"),
    (put("layers.2.reads.cos", "nothing"), "layers: layer 2: cos is bound to 'nothing' of embed, another shape than in the first full"),
    (
        put("layers.3.reads.mask", "cos.full_attention"),
        "layers: layer 3: mask is bound to 'cos.full_attention' of embed, another shape than in the first shared",
    ),
    (
        put("graphs.decode_embed.outputs.1.name", "table"),
        "graphs.full_decode: inputs: 'cos': expected none, found float32 [1, 12]",
    ),
    (
        together(for_layers("reads.cos", "h"), put("graphs.embed.outputs.0.shape", [32, 12])),
        "graphs.embed: outputs: 'h': expected float32 [32, 48], found float32 [32, 12]",
    ),
    (
        put("graphs.full_forward.inputs.5.weight", "layers.shared.self_attn.q_proj.weight.packed"),
        "graphs.full_forward: 'self_attn.q_proj.weight.packed': expected a weight of layers.full.…, found 'layers.shared.self_attn",
    ),
    (
        append("graphs.full_forward.inputs", {"name": "x", "dtype": "float32", "shape": [48], "meaning": "", "weight": "norm.weight"}),
        "graphs.full_forward: 'x': expected a weight of layers.full.…, found 'norm.weight'",
    ),
    (
        put("graphs.head.inputs.4.weight", "layers.full.norm.weight"),
        "graphs.head: 'norm.weight': expected a weight of no layer, found 'layers.full.norm.weight'",
    ),
    (
        append(
            "graphs.logits.initializers",
            {"name": "x", "dtype": "float32", "shape": [48], "meaning": "", "weight": "layers.full.norm.weight"},
        ),
        "graphs.logits: 'x': expected a weight of no layer, found 'layers.full.norm.weight'",
    ),
    (
        together(put("target", "onnxruntime-training"), put("graphs", {})),
        "kinds: expected one for target onnxruntime-training, found full, shared",
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


@pytest.mark.parametrize(("change", "expected"), CROSSING, ids=[expected for _, expected in CROSSING])
def test_of_layers_of_several_kinds(crossing_bundle: Path, change: Change, expected: str) -> None:
    edit(crossing_bundle, change)
    assert expected in refusal(crossing_bundle)


def test_takes_of_another_shape(crossing_bundle: Path) -> None:
    """Layers of a kind share its programs: what the first of them takes is what all of them take. A third kind gives something else."""

    def change(manifest: Json) -> None:
        manifest["kinds"].append(manifest["kinds"][0] | {"name": "other"})
        manifest["layers"][2] |= {"kind": "other", "number": 0}
        manifest["layers"][4] |= {"number": 1}
        for weight in [w for w in manifest["weights"] if w["name"].startswith("layers.full.")]:
            end = max(w["offset"] for w in manifest["weights"]) + 64 * PAGE
            weight["shape"][0] = 2
            other = weight | {"name": weight["name"].replace(".full.", ".other."), "offset": end, "shape": [1, *weight["shape"][1:]]}
            manifest["weights"].append(other)
        manifest["files"]["weights.bin"]["size"] = end + 64 * PAGE
        for name, graph in [x for x in manifest["graphs"].items() if x[0].startswith("full_")]:
            text = (
                json.dumps(graph).replace("layers.full.", "layers.other.").replace(f"{name}.onnx", f"{name.replace('full', 'other')}.onnx")
            )
            manifest["graphs"][name.replace("full", "other")] = json.loads(text)

    raw = json.loads((crossing_bundle / MANIFEST_FILE).read_bytes())
    change(raw)
    check_manifest(msgspec.convert(raw, Manifest), crossing_bundle)  # three kinds that agree
    for role, backward in (("forward", ("forward_keep",)), ("prefill", ()), ("decode", ())):
        changed = copy.deepcopy(raw)
        for program in (f"other_{name}" for name in (role, *backward)):
            changed["graphs"][program]["outputs"][1]["shape"] = [32, 24]
        for program in ("other_backward", "other_backward_kept") if role == "forward" else ():
            next(x for x in changed["graphs"][program]["inputs"] if x["name"] == "d_all_keys")["shape"] = [32, 24]
        expected = (
            f"malformed manifest: layers: layer 3: keys is bound to 'keys.2' of {role}, another shape than in the first shared; export"
        )
        with pytest.raises(BundleError, match=re.escape(expected)):
            check_manifest(msgspec.convert(changed, Manifest), crossing_bundle)


@pytest.mark.training_api
@pytest.mark.parametrize(("change", "expected"), SHARED + TRAINING, ids=[expected for _, expected in SHARED + TRAINING])
def test_of_target_onnxruntime_training(training_bundle: Path, change: Change, expected: str) -> None:
    edit(training_bundle, change)
    assert expected in refusal(training_bundle)


@pytest.mark.parametrize("which", ["bundle", "crossing_bundle", pytest.param("training_bundle", marks=pytest.mark.training_api)])
def test_every_tensor_that_a_runner_makes(request: pytest.FixtureRequest, which: str) -> None:
    """Whichever input or output of whichever program is of another type: it is refused, and named. Only the optimizer's are not ours."""
    path: Path = request.getfixturevalue(which)
    manifest = json.loads((path / MANIFEST_FILE).read_bytes())
    for name, graph in manifest["graphs"].items():
        for tensor in (*graph["inputs"], *graph["outputs"]) if name != "optimizer_model" else ():
            kept, tensor["dtype"] = tensor["dtype"], "uint8" if tensor["dtype"] != "uint8" else "int8"
            with pytest.raises(BundleError, match=f"graphs.({name}|[a-z]+_forward_keep): .*{re.escape(repr(tensor['name']))}: expected"):
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
    edit(bundle, put("model.hidden_size", 96))
    message = refusal(bundle)
    assert message.count("expected") == 8 and " more); export the bundle again" in message


def test_other_targets_have_other_programs(bundle: Path) -> None:
    edit(bundle, put("target", "coreai"))
    message = refusal(bundle)
    assert "graphs: " in message and "head_chunk" in message
    edit(bundle, put("target", "tflite"))
    assert "Invalid enum value 'tflite'" in refusal(bundle)
