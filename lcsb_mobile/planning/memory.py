"""Peak anonymous memory of a run, by what holds it: of its steps, by target, and of what comes before, between and after them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np

from lcsb_mobile.bundle.manifest import GraphTensor, Manifest
from lcsb_mobile.bundle.programs import CHUNK_WEIGHTS, KEPT, UPDATE, Role, program_name, update_program
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import head_rows, tile_rows
from lcsb_mobile.formatting import MEGABYTE
from lcsb_mobile.planning.cost import FLOAT, backward_layers, block_bytes
from lcsb_mobile.targets import TARGETS

ROLES: tuple[Role, ...] = get_args(Role)


def predicted_peak(
    manifest: Manifest, subsets: Sequence[Subset], keep: int, base: int, accumulation: int = 1, samples: bool = False
) -> int:
    """Peak anonymous bytes of a run of these steps, from its start-up to its end. `base`, `accumulation` and `samples` as in `plan_run`."""
    return base + sum(run_terms(manifest, subsets, keep, accumulation, samples).values())


def run_terms(manifest: Manifest, subsets: Sequence[Subset], keep: int, accumulation: int = 1, samples: bool = False) -> dict[str, int]:
    """Anonymous bytes of a run beyond its base, by what holds them: of its steps and evaluations, beside them, and a margin: what the fit
    to other runs leaves, so that it is never too little."""
    row = TARGETS[manifest.target]
    if not row.keeps_activations:
        terms = training_peak_terms(manifest)
    elif row.shared_file is None:
        terms = peak_terms(manifest, subsets, keep, accumulation)
    elif manifest.target == "coreai":
        terms = function_peak_terms(manifest, subsets, keep, accumulation)
    else:
        terms = method_peak_terms(manifest, subsets, keep, accumulation)
    writing = 0
    if samples:
        writing = _writing_bytes(manifest) if row.keeps_activations else SESSION_BYTES // 2
        writing += LOGITS_HELD * manifest.model.vocab_size * FLOAT
    terms["beside the steps"] = max(CHECKED_VECTORS * max(kind.size for kind in manifest.kinds) * FLOAT, writing)
    return terms | {"margin": max(MARGIN_BYTES, round(MARGIN_SHARE * sum(terms.values())))}


# Beside the steps ---------------------------------------------------------------------------------------------------------------

# What is admitted is to run to its end. The terms of steps say up to 4 % too little of the shapes that they were fitted to, and up to
# 6.7 MB of models so small that the runtime is most of it.
MARGIN_BYTES, MARGIN_SHARE = 8 * MEGABYTE, 0.06
# At start-up, of the longest layer's vectors: two states, a gradient and what comparing them takes, when AdamW's constants are checked.
CHECKED_VECTORS = 10
LOGITS_HELD = 5  # float32 and float64 [V] while a token is chosen
SAMPLING: tuple[Role, ...] = ("prefill", "decode")


def _writing_bytes(manifest: Manifest) -> int:
    """The sessions of what writes a text, which stay, and what each layer remembers of it; results of two layers in turns."""
    kinds = manifest.kinds_of_layers()
    programs = [program_name(kind.name, role) for kind in manifest.kinds for role in SAMPLING]
    names = [name for name in (*programs, "decode_embed", "logits", "logits_start", "logits_chunk") if name in manifest.graphs]
    if TARGETS[manifest.target].shared_file is None:
        sessions = sum(_session_bytes(manifest, name) for name in names)
    else:  # those of one file share an arena, but for Core AI's functions
        sessions = sum(_function_bytes(manifest, name) for name in names) if manifest.target == "coreai" else 0
    state = sum(math.prod(x.shape) for kind in kinds for x in kind.state) * FLOAT
    results = sum(2 * _tensor_bytes(manifest.graphs[name].outputs) for name in names)
    return sessions + state + results


# Target onnxruntime -----------------------------------------------------------------------------------------------------------

# Fitted to runs of the shapes below: the runtime's own, and the parsed graphs and kernels of a block program's session by its file's size.
RUNTIME_BYTES = 5_500_000
SESSION_SHARE = 45
UPDATE_OUTPUTS = 3  # of AdamW: parameters and moments
HEADS = ("head", "head_eval")
# Of what a chunk of the head holds: the arena's blocks that were split badly. It needs more than the holes of `export/working_set.py`.
HEAD_HOLES = 2.9


def peak_terms(manifest: Manifest, subsets: Sequence[Subset], keep: int, accumulation: int = 1) -> dict[str, int]:
    """Anonymous bytes of a run on target onnxruntime beyond its base, by what holds them. Adapter and moments are in a mapped file.

    Buffers are exact. Runtime, sessions and working set were fitted to runs on ONNX Runtime 1.32 with one thread: the shapes of
    SmolLM2-135M (6 and 30 layers; 64, 128 and 256 tokens; rank 8 and 16) and Qwen2.5-0.5B (4 layers, 256 tokens), nothing, some and all
    kept. Of what lies beyond the base it says between 4 % too little and 7 % too much; of Gemma-3-270M's shape (4 layers, 128 tokens),
    which was not fitted, up to 3 % too little. benchmarks/memory_model.py compares others.
    """
    backward = [backward_layers(manifest, subset, keep) for subset in subsets]
    kinds = [layer.kind for layer in manifest.layers]
    recomputed = {kinds[layer] for layers, _ in backward for layer in layers}
    kept = {layer for _, layers in backward for layer in layers}
    programs = [program_name(kind, "forward") for kind in dict.fromkeys(kinds)]  # of the evaluation, if nothing else
    programs += [program_name(kind, "backward") for kind in recomputed]
    for kind in {kinds[layer] for layer in kept}:
        programs += [program_name(kind, "forward_keep"), program_name(kind, "backward_kept")]
    unrolled = [name for name in HEADS if manifest.graphs[name].working_bytes is not None]  # as programs for a GPU have it
    sets = [manifest.graphs[name].working_bytes or 0 for name in (*programs, *unrolled, "embed", UPDATE)]
    return {
        "runtime": RUNTIME_BYTES,
        "sessions": sum(_session_bytes(manifest, name) for name in (*programs, *unrolled)),
        **buffer_terms(manifest, subsets, keep, accumulation),
        "working set": max(*sets, 0 if unrolled else _head_set(manifest)),
    }


def buffer_terms(manifest: Manifest, subsets: Sequence[Subset], keep: int, accumulation: int) -> dict[str, int]:
    """Of the loop over the layers, exactly."""
    backward = [backward_layers(manifest, subset, keep) for subset in subsets]
    kept = {layer for _, layers in backward for layer in layers}
    return {
        "saved layer inputs": max(len(layers) + len(others) for layers, others in backward) * _hidden_bytes(manifest),
        "kept activations": sum(kept_bytes(manifest, manifest.layers[layer].kind) for layer in kept),
        "crossing values": _crossing_bytes(manifest),
        "gradients": _gradient_bytes(manifest, subsets, accumulation),
        "other buffers": _fixed_buffers(manifest),
    }


def kept_bytes(manifest: Manifest, kind: str) -> int:
    """What the forward of a layer of the kind keeps for its backward."""
    return _tensor_bytes([x for x in manifest.graphs[program_name(kind, "forward_keep")].outputs if x.name.startswith(KEPT)])


def _crossing_bytes(manifest: Manifest) -> int:
    """What layers give to others, with its gradients, and what they give to none."""
    total = 0
    for layer in manifest.layers:
        given = [x for x in manifest.graphs[program_name(layer.kind, "forward")].outputs if x.name in layer.gives]
        total += 2 * _tensor_bytes(given)
    scratch = [x for kind in manifest.kinds for x in manifest.graphs[program_name(kind.name, "forward")].outputs if x.name in kind.gives]
    return total + 2 * _tensor_bytes(scratch)


def _gradient_bytes(manifest: Manifest, subsets: Sequence[Subset], accumulation: int) -> int:
    """The runner's buffers, of each size as many as a step needs at most: a trained layer has its own, and so have the untrained ones of a
    size that no trained layer below them has, one for all. What is accumulated is a copy."""
    sizes = manifest.adapter.sizes
    needed = Counter[int]()
    for subset in subsets:
        count = Counter(sizes[layer] for layer in subset.train)
        untrained = [layer for layer in subset.propagate if layer > subset.train[0] and layer not in subset.train]
        count.update({sizes[layer] for layer in untrained if sizes[layer] not in (sizes[t] for t in subset.train if t < layer)})
        needed |= count
    copies = max(sum(sizes[layer] for layer in subset.train) for subset in subsets) if accumulation > 1 else 0
    return (sum(size * most for size, most in needed.items()) + copies) * FLOAT


def _session_bytes(manifest: Manifest, name: str) -> int:
    """Of a program's session; of one whose weights are constants, a session a layer, with its packed copy of them (MatMulNBits with
    int8 activations: the values, and for each scale two more float32 of sums beside it)."""
    graph = manifest.graphs[name]
    session = SESSION_SHARE * manifest.files[graph.file].size
    if not graph.initializers:
        return session
    values = _tensor_bytes([x for x in graph.initializers if x.name.endswith(".packed")])
    scales = _tensor_bytes([x for x in graph.initializers if x.name.endswith(".scale")])
    layers = sum(name in [program_name(layer.kind, role) for role in ROLES] for layer in manifest.layers)
    return layers * (session + values + 6 * scales)


def _fixed_buffers(manifest: Manifest) -> int:
    """Two results that layers take in turns, the gradient, what `embed` and the update of each kind return, and gradients of zero."""
    updates = sum({kind.size for kind in manifest.kinds}) * FLOAT
    zero = max(kind.size for kind in manifest.kinds) * FLOAT
    return 3 * _hidden_bytes(manifest) + _tensor_bytes(manifest.graphs["embed"].outputs) + UPDATE_OUTPUTS * updates + zero


def _head_set(manifest: Manifest) -> int:
    """A chunk of the head's rows in float, its logits and their exponentials, and five [T, D]."""
    hidden, rows = manifest.model.hidden_size, min(head_rows(manifest.model.hidden_size), manifest.model.vocab_size)
    held = rows * hidden * FLOAT + 2 * _activations(manifest, rows) + 5 * _hidden_bytes(manifest)
    return round(HEAD_HOLES * held)


def _tensor_bytes(tensors: Sequence[GraphTensor]) -> int:
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in tensors)


def _hidden_bytes(manifest: Manifest) -> int:
    return _activations(manifest, manifest.model.hidden_size)


def _activations(manifest: Manifest, width: int) -> int:
    """Bytes of float32 [T, width]."""
    return manifest.seq_len * width * FLOAT


# Target executorch ------------------------------------------------------------------------------------------------------------


def method_peak_terms(manifest: Manifest, subsets: Sequence[Subset], keep: int, accumulation: int = 1) -> dict[str, int]:
    """Anonymous bytes of a run on target executorch beyond its base. The wheel's binding makes one arena for all methods of a file, of the
    largest one's size; XNNPACK's own memory, shared too, is that of a chunk of the head.

    Compared with runs on ExecuTorch 1.5.1 with one thread: Qwen2.5-0.5B's shape (24 layers, 256 tokens) and `tiny`, nothing, some and all
    kept. It says between 2.6 MB too little and 17 MB too much, of 14 to 269 MB.
    """
    return {
        **buffer_terms(manifest, subsets, keep, accumulation),
        "arena": max(graph.working_bytes or 0 for graph in manifest.graphs.values()),
        "working set": _head_set(manifest),
    }


# Target coreai ----------------------------------------------------------------------------------------------------------------

KEEPING: tuple[Role, ...] = ("forward_keep", "backward_kept")
ASSET_BYTES = 75_000_000  # what lowering the asset leaves behind; fitted to the shape below


def function_peak_terms(manifest: Manifest, subsets: Sequence[Subset], keep: int, accumulation: int = 1) -> dict[str, int]:
    """Anonymous bytes of a run on the desktop's build of Core AI beyond its base. Every function that has run holds on to its memory, its
    copies of what it was fed among it, but for the whole tables of embedding and head, which are given back. It is no phone's memory:
    there, inputs are not copied.

    Compared with full steps of Qwen2.5-0.5B's shape (4 layers, 256 tokens), nothing and all kept, of 335 and 372 MB.
    """
    backward = [backward_layers(manifest, subset, keep) for subset in subsets]
    kinds = [layer.kind for layer in manifest.layers]
    recomputed = {kinds[layer] for layers, _ in backward for layer in layers}
    kept = {kinds[layer] for _, layers in backward for layer in layers}
    programs = ["embed", "head_start", "head_chunk", "head_end", "eval_chunk", "eval_end"]
    programs += [program_name(kind, "forward") for kind in dict.fromkeys(kinds)]
    programs += [program_name(kind, "backward") for kind in recomputed]
    programs += [program_name(kind, role) for kind in kept for role in KEEPING]
    programs += [update_program(kind.name) for kind in manifest.kinds]
    tables = [[x for x in manifest.graphs[name].inputs if x.name in CHUNK_WEIGHTS] for name in ("embed", "head_start")]
    return {
        **buffer_terms(manifest, subsets, keep, accumulation),
        "asset": ASSET_BYTES,
        "functions": sum(_function_bytes(manifest, name) for name in programs),
        "copies of tables": max(map(_tensor_bytes, tables)),
    }


def _function_bytes(manifest: Manifest, name: str) -> int:
    """What a function that has run holds on to."""
    graph = manifest.graphs[name]
    whole = CHUNK_WEIGHTS if name in ("embed", "decode_embed", "head_start") else ()
    return (graph.working_bytes or 0) + _tensor_bytes([*(x for x in graph.inputs if x.name not in whole), *graph.outputs])


# Target onnxruntime-training --------------------------------------------------------------------------------------------------

SESSION_BYTES = 10 * MEGABYTE  # training and evaluation session: parsed graphs, kernels, the loops' plans
WIDE_ACTIVATIONS, TILES = 5, 3  # float32 [T, intermediate_size], and [T, rows of a tile of it], alive at once in a block's backward
NARROW_ACTIVATIONS = 12  # float32 [T, hidden_size]
SCORES = 4  # float32 [heads, T, T]: scores, weights, and their gradients
LOGITS = 3  # float32 [T, head_rows]: logits, exponentials, and one between
CHUNK_COPIES = 2.5  # of a head chunk in float32: itself, the groups before their reshape, the packed slice
GRADIENT_COPIES = 3  # of [L, n] at once: the loop's parts and their stack, concatenated, reordered, copied out
# Freed memory that glibc's allocator keeps, and holes between blocks. Fitted, not derived.
HEAP_SLACK_LIMIT = 11 * MEGABYTE
HEAP_SLACK_SHARE = 2.8  # of the step's working set and saved inputs, where that is less


def training_peak_terms(manifest: Manifest) -> dict[str, int]:
    """The same on target onnxruntime-training, whose one graph takes any subset: an estimate for a process on glibc.

    Fitted to full steps of the shapes of SmolLM2-135M (30 layers, 64 tokens, rank 8; 6 layers, 256 tokens, rank 16) and Qwen2.5-0.5B
    (4 layers, 256 tokens), on which it says 1 % too little, 13 % and 5 % too much.
    """
    model = manifest.model
    adapter = manifest.adapter.size * FLOAT
    saved = model.num_hidden_layers * _hidden_bytes(manifest)
    rows = min(head_rows(model.hidden_size), model.vocab_size)
    packed = sum(tensor.nbytes for tensor in manifest.weights if tensor.per_layer) // model.num_hidden_layers
    tile = tile_rows(model.hidden_size, model.intermediate_size, manifest.quantization.group_size) or model.intermediate_size
    untiled = 3 * (model.intermediate_size - tile) * model.hidden_size * FLOAT  # of gate, up and down, one tile of each is there in float
    phases = {
        "end of the forward": saved,  # a second time: a Loop's scan output is stacked from its parts
        "head": round(CHUNK_COPIES * rows * model.hidden_size * FLOAT)
        + LOGITS * _activations(manifest, rows)
        + 4 * _hidden_bytes(manifest),
        # Matrices in float, and the layer's packed weights, which the loop gathers from their stack.
        "backward": block_bytes(manifest)
        - untiled
        + packed
        + WIDE_ACTIVATIONS * _activations(manifest, model.intermediate_size)
        + TILES * _activations(manifest, tile)
        + NARROW_ACTIVATIONS * _hidden_bytes(manifest)
        + SCORES * _activations(manifest, model.num_attention_heads * manifest.seq_len)
        + GRADIENT_COPIES * adapter,
    }
    working_set = max(phases.values())
    return {
        "sessions": SESSION_BYTES,
        "adapter and gradient": 2 * adapter,
        "saved layer inputs": saved,
        "working set": working_set,
        "kept by the allocator": min(HEAP_SLACK_LIMIT, round(HEAP_SLACK_SHARE * (working_set + saved))),
    }
