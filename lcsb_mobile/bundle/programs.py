"""What a target's programs take and return besides weights, which a runner makes its buffers by. Specification: docs/onnxruntime.md."""

from __future__ import annotations

from collections.abc import Iterator

from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.targets import TARGETS

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name -> dtype, shape
KEPT = "kept."  # what the names of the tensors begin with that a forward keeps for the backward: which they are is the exporter's choice
ANY = -1  # a free dimension
TOKENS = ("input_ids", "position_ids", "segment_ids")
PRODUCTS = ("gemm", "gemm_backward")  # the programs that have some


def signatures(manifest: Manifest) -> dict[str, tuple[Tensors, Tensors]]:
    """Program -> its inputs and outputs, for those that every bundle of the target has. No other target's programs are known here."""
    free = (ANY, ANY)
    products = dict.fromkeys(PRODUCTS, (_floats(a=free, b=free), _floats(y=free)))
    if manifest.target not in TARGETS:
        return {}
    if TARGETS[manifest.target].form == "block programs":
        return _block_programs(manifest) | _decoding_programs(manifest) | products
    return _training_programs(manifest) | products


def differences(where: str, expected: Tensors, found: Tensors) -> Iterator[str]:
    """What is wrong, tensor by tensor, as sentences."""
    for name in dict.fromkeys((*expected, *found)):
        if expected.get(name) != found.get(name):
            yield f"{where}: {name!r}: expected {_text(expected.get(name))}, found {_text(found.get(name))}"


def _text(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "none" if tensor is None else f"{tensor[0]} {list(tensor[1])}"


def _block_programs(manifest: Manifest) -> dict[str, tuple[Tensors, Tensors]]:
    t, n = manifest.seq_len, manifest.adapter.size
    hidden = (t, manifest.model.hidden_size)
    loss, h = _floats(loss=()), _floats(h=hidden)
    forward = h | _attention(manifest, t, t) | _floats(adapter=(n,))
    backward, gradients = forward | _floats(g=hidden), _floats(g_next=hidden, d_adapter=(n,))
    moments = ("parameters", "first_moment", "second_moment")
    vectors, scalars = _floats(**dict.fromkeys((*moments, "gradient"), (n,))), _floats(decay=(), rate=(), root=())
    h_next = _floats(h_next=hidden)
    return {
        "embed": (_integers(t, *TOKENS), h | _by_kind(manifest, _attention(manifest, t, t))),
        "block_forward": (forward, h_next),
        "block_backward": (backward, gradients),
        "block_forward_keep": (forward, h_next),
        "block_backward_kept": (backward, gradients),
        "head": (h | _integers(t, "labels"), loss | _floats(g=hidden)),
        "head_eval": (h | _integers(t, "labels"), loss),
        "adamw": (vectors | scalars, _floats(**{f"{name}_next": (n,) for name in moments})),
    }


def _decoding_programs(manifest: Manifest) -> dict[str, tuple[Tensors, Tensors]]:
    model, t = manifest.model, manifest.seq_len
    adapter, one = _floats(adapter=(manifest.adapter.size,)), (1, model.hidden_size)
    places, place = ((rows, model.num_key_value_heads, model.head_dim) for rows in (t, 1))
    token = _integers(1, "input_ids", "position_ids")
    prompt = _floats(h=(t, model.hidden_size)) | _attention(manifest, t, t) | adapter
    step = _floats(h=one, past_keys=places, past_values=places) | _attention(manifest, 1, t + 1) | adapter
    return {
        "block_prefill": (prompt, _floats(h_next=(t, model.hidden_size), keys=places, values=places)),
        "decode_embed": (token, _floats(h=one) | _by_kind(manifest, _attention(manifest, 1, t + 1))),
        "block_decode": (step, _floats(h_next=one, keys=place, values=place)),
        "logits": (_floats(h=one), _floats(logits=(model.vocab_size,))),
    }


def _training_programs(manifest: Manifest) -> dict[str, tuple[Tensors, Tensors]]:
    t, layers = manifest.seq_len, manifest.adapter.num_layers
    adapter = _floats(adapter=(layers, manifest.adapter.size))
    chosen: Tensors = dict.fromkeys(("train", "propagate"), ("bool", (layers,)))
    buffer: Tensors = {"adapter_grad.accumulation.buffer": adapter["adapter"], "lazy_reset_grad": ("bool", (1,))}
    done: Tensors = {"adapter_grad.accumulation.out": ("bool", (1,))}
    return {
        "training_model": (_integers(t, *TOKENS) | _integers(t, "labels") | chosen | adapter | buffer, _floats(loss=()) | done),
        "eval_model": (_integers(t, *TOKENS) | _integers(t, "labels") | adapter, _floats(loss=())),
        "logits_model": (_integers(t, *TOKENS) | _integers(1, "position") | adapter, _floats(logits=(manifest.model.vocab_size,))),
    }


def _floats(**shapes: tuple[int, ...]) -> Tensors:
    return {name: ("float32", shape) for name, shape in shapes.items()}


def _integers(count: int, *names: str) -> Tensors:
    tensor: tuple[str, tuple[int, ...]] = ("int64", (count,))
    return dict.fromkeys(names, tensor)


def _attention(manifest: Manifest, rows: int, columns: int) -> Tensors:
    rotary = (rows, manifest.model.head_dim)
    return _floats(cos=rotary, sin=rotary, mask=(rows, columns))


def _by_kind(manifest: Manifest, tensors: Tensors) -> Tensors:
    return {f"{name}.{kind}": x for name, x in tensors.items() for kind in range(len(manifest.model.attention_kinds))}
