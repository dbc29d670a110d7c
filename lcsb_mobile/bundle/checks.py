"""What a manifest must hold before anything of its bundle is read, however it came here: each value in its range, no key twice, and what
`manifest_relations` says of values in relation. Specification: docs/hostile_input.md.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lcsb_mobile.bundle.manifest import SESSION_CONFIG, Graph, Manifest
from lcsb_mobile.bundle.programs import ANY, PRODUCTS, UPDATE
from lcsb_mobile.bundle.relations import relation_faults
from lcsb_mobile.bundle.weights import PAGE
from lcsb_mobile.config import AttentionKind
from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.bounded import one_line, some

BUFFER_BYTES = 2**30  # of one tensor that a runner makes a buffer for; a mask [T, T] has them at 16,384 tokens
MOST_DIMENSIONS, MOST_INTEGER = 8, 2**53  # the latter: what every reader of JSON has exactly
MOST_FAULTS = 1000  # that are looked for
MOST_KINDS = 64  # of layers, and of attention; a model has one to four
DTYPES = ("bool", "int32", "int64", "uint8", "int8", "float16", "float32")
FLOAT = 4
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
KIND_NAME = re.compile(r"[a-z][a-z0-9]{0,30}", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters with which a text could change what a terminal shows

# Field, least, most. Far above any model: what is allocated is bounded by BUFFER_BYTES and by the sizes of the files.
RANGES: tuple[tuple[str, float, float], ...] = (
    ("seq_len", 1, 2**20),
    ("seed", 0, MOST_INTEGER),
    ("model.vocab_size", 1, 2**24),
    ("model.hidden_size", 1, 2**18),
    ("model.intermediate_size", 1, 2**20),
    ("model.num_hidden_layers", 1, 2**12),
    ("model.num_attention_heads", 1, 2**12),
    ("model.num_key_value_heads", 1, 2**12),
    ("model.head_dim", 1, 2**12),
    ("model.rotary_dim", 2, 2**12),
    ("model.conv_kernel", 0, 2**8),
    ("model.rms_norm_eps", 0, 1),
    ("model.query_scale", 1e-9, 1e9),
    ("model.embedding_scale", 1e-9, 1e9),
    ("model.residual_multiplier", 1e-9, 1e9),
    ("model.logits_scaling", 1e-9, 1e9),
    ("lora.rank", 1, 2**16),
    ("lora.alpha", 1e-9, 1e9),
    ("quantization.group_size", 2, 2**16),
    ("schedule_config.subsets", 1, 2**12),
    ("optimizer.eps", 0, 1),
    ("optimizer.weight_decay", 0, 1e3),
    ("optimizer.clip_norm", 1e-30, 1e30),
    ("runtime.arena.initial_bytes", 0, 2**36),
)


def check_manifest(manifest: Manifest, path: Path) -> None:
    """Raises BundleError with all that is wrong. What relates two values is looked at once each is in its range."""
    faults = list(islice(_value_faults(manifest), MOST_FAULTS)) or list(islice(relation_faults(manifest), MOST_FAULTS))
    if faults:
        raise BundleError(f"{path}: malformed manifest: {some(faults)}; export the bundle again")


def check_keys(raw: bytes, path: Path) -> None:
    """Raises BundleError where an object has a key twice: one reader would take the first, another the last. `raw` is known to be JSON,
    no deeper than a manifest."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
            raise BundleError(f"{path}: malformed manifest: the key {one_line(twice[0])!r} stands twice in an object")
        return dict(pairs)

    json.loads(raw, object_pairs_hook=unique)


def _value_faults(manifest: Manifest) -> Iterator[str]:
    for field, least, most in RANGES:
        if not least <= (value := attrgetter(field)(manifest)) <= most:
            yield f"{field}: expected {least:.16g} to {most:.16g}, found {value}"
    if not all(0 <= beta < 1 for beta in manifest.optimizer.betas):
        yield f"optimizer.betas: expected 0 to less than 1, found {list(manifest.optimizer.betas)}"
    if len(manifest.model.attention_kinds) > MOST_KINDS:
        yield f"model.attention_kinds: expected at most {MOST_KINDS}, found {len(manifest.model.attention_kinds)}"
    for attention in manifest.model.attention_kinds.values():
        if not all(0 < value <= 1e12 for value in _numbers(attention)):
            yield f"model.attention_kinds: expected positive numbers, found {attention}"
    for field in ("attn_logit_softcapping", "final_logit_softcapping"):
        cap = getattr(manifest.model, field)
        if cap is not None and not 1e-9 <= cap <= 1e9:
            yield f"model.{field}: expected 1e-09 to 1000000000, found {cap}"
    heads = manifest.model.linear_attention
    if heads is not None and not all(1 <= value <= 2**12 for value in msgspec.structs.astuple(heads)):
        yield f"model.linear_attention: expected 1 to 4096, found {heads}"
    yield from _kind_faults(manifest)
    for field in ("identity", "base", "digest"):
        if (value := getattr(manifest, field)) is not None and not DIGEST.fullmatch(value):
            yield f"{field}: expected a SHA-256, found {value[:80]!r}"
    for key, value in manifest.runtime.session_config.items():
        if key not in SESSION_CONFIG or value not in ("0", "1"):
            yield f"runtime.session_config: {key!r} = {value[:80]!r} is none of the entries that an export writes"
    yield from _leaf_faults(manifest)
    yield from _table_faults(manifest)
    for name, graph in manifest.graphs.items():
        yield from (f"graphs.{name}: {fault}" for fault in _graph_faults(name, graph))


def _kind_faults(manifest: Manifest) -> Iterator[str]:
    if not 1 <= len(manifest.kinds) <= MOST_KINDS:
        yield f"kinds: expected 1 to {MOST_KINDS}, found {len(manifest.kinds)}"
    for kind in manifest.kinds:
        where = f"kinds: {kind.name[:40]!r}"
        if not KIND_NAME.fullmatch(kind.name):
            yield f"{where}: expected a name of small letters and digits"
        if not (1 <= kind.size <= 2**31 and 0 <= kind.attention_width <= 2**24):
            yield f"{where}: expected a size of 1 to 2^31 and an attention_width of 0 to 2^24, found {kind.size} and {kind.attention_width}"
        for matrix in kind.matrices:
            if min(*matrix.shape, matrix.offset + 1) < 1:
                yield f"{where}: {matrix.name!r}: expected positive dimensions, found {list(matrix.shape)} at {matrix.offset}"
        for state in kind.state:
            if not 1 <= len(state.shape) <= MOST_DIMENSIONS or min(state.shape) < 1 or math.prod(state.shape) * FLOAT > BUFFER_BYTES:
                expected = f"positive dimensions of at most {BUFFER_BYTES} bytes"
                yield f"{where}: state {state.name!r}: expected {expected}, found {list(state.shape)}"
        for field in ("flops", "decompressed_bytes"):
            if min(msgspec.structs.astuple(getattr(kind, field))) < 0:
                yield f"{where}: {field}: expected 0 or more, found {getattr(kind, field)}"
    for number, layer in enumerate(manifest.layers):
        if min(layer.number, layer.offset) < 0:
            yield f"layers: layer {number}: expected 0 or more, found number {layer.number}, offset {layer.offset}"


def _numbers(kind: AttentionKind) -> list[float]:
    scaling = kind.rope_scaling
    numbers = [kind.rope_theta, *([] if kind.window is None else [kind.window])]
    return numbers if scaling is None else [*numbers, *scaling.numbers]


def _leaf_faults(manifest: Manifest) -> Iterator[str]:
    """Of every text, keys too, and every number."""
    for where, value in _leaves("manifest", msgspec.to_builtins(manifest)):
        if isinstance(value, str) and CONTROL.search(value):
            yield f"{where}: expected a text without control characters, found {value[:80]!r}"
        elif isinstance(value, int) and not -MOST_INTEGER <= value <= MOST_INTEGER:
            yield f"{where}: expected a number of at most 2^53, found {value}"


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What holds nothing else, with the key that it stands under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where, key
            yield from _leaves(key, inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(where, inner)
    else:
        yield where, value


def _table_faults(manifest: Manifest) -> Iterator[str]:
    for tensor in manifest.weights:
        if not 1 <= len(tensor.shape) <= MOST_DIMENSIONS or min(tensor.shape) < 1 or tensor.offset < 0 or tensor.offset % PAGE:
            yield (
                f"weights: {tensor.name!r}: expected positive dimensions at a multiple of {PAGE} bytes, found {list(tensor.shape)} at byte "
                f"{tensor.offset}"
            )


def _graph_faults(name: str, graph: Graph) -> Iterator[str]:
    least = ANY if name in (*PRODUCTS, UPDATE) else 1
    for x in (*graph.inputs, *graph.initializers, *graph.outputs):
        if x.dtype not in DTYPES or len(x.shape) > MOST_DIMENSIONS or any(size == 0 or size < least for size in x.shape):
            yield f"{x.name!r}: expected a dtype and positive dimensions, found {x.dtype[:20]!r} {list(x.shape)}"
        elif x.weight is None and math.prod(x.shape) * np.dtype(x.dtype).itemsize > BUFFER_BYTES:
            yield f"{x.name!r}: expected at most {BUFFER_BYTES} bytes, found {x.dtype} {list(x.shape)}; export with a shorter --seq-len"
    if graph.working_bytes is not None and graph.working_bytes < 0:
        yield f"working_bytes: expected 0 or more, found {graph.working_bytes}"
