"""What a run occupies, and what it keeps: peak memory by steps and kept layers, and the choice that a budget allows. Nothing is run."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lcsb_mobile.bundle.manifest import GraphTensor, Manifest
from lcsb_mobile.bundle.programs import CHUNK_WEIGHTS, KEPT, UPDATE, Role, program_name, update_program
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import head_rows, tile_rows
from lcsb_mobile.config import Record
from lcsb_mobile.errors import MemoryBudgetError, OptionError
from lcsb_mobile.formatting import MEGABYTE, megabytes
from lcsb_mobile.planning.cost import FLOAT, backward_layers, block_bytes
from lcsb_mobile.ranges import RANGES
from lcsb_mobile.targets import TARGETS, targets_of

ALL = 10**6  # more layers than any model has


class Plan(Record, frozen=True):
    """`keep`: that many of the top layers keep their activations. Bytes of anonymous memory; `least_bytes`: the least that the run can
    do with, which is with nothing kept or, in a shallow model, with everything: then no program that recomputes is needed."""

    keep: int
    predicted_peak_bytes: int
    least_bytes: int


def plan_run(
    manifest: Manifest,
    subsets: Sequence[Subset],
    base: int,
    budget: int | None,
    keep: int | None,
    accumulation: int = 1,
    estimated: bool = False,
) -> Plan:
    """What a run of these steps keeps. `base`: anonymous bytes of the process with its runtime imported, measured or `estimated`; `budget`:
    the most bytes allowed, None for no limit; `keep` None: as many layers as the budget allows, none without one; `accumulation`:
    sequences a step.

    Raises MemoryBudgetError when the run cannot fit, OptionError for a target that cannot keep or whose memory is not known.
    """
    layers = manifest.model.num_hidden_layers
    keeping = TARGETS[manifest.target].keeps_activations
    if keep and not keeping:
        others = " or ".join(targets_of("block programs"))
        raise OptionError(f"keep: target {manifest.target} recomputes every layer; expected none, or a bundle of target {others}")
    if keep is not None and keep < 0:
        raise OptionError(f"keep: expected 0 or more layers, found {keep}")
    choices = range(layers + 1 if keeping else 1)
    peaks = [predicted_peak(manifest, subsets, count, base, accumulation) for count in choices]
    least = min(peaks)
    process = f"{megabytes(base)} of it this process{', by an estimate' if estimated else ' as it is now'}"
    if budget is not None and least > budget:
        raise MemoryBudgetError(
            f"the run is predicted to need at least {megabytes(least)}, {process}; more than the "
            f"{megabytes(budget)} allowed; nothing was run; allow more, or export with a --seq-len shorter than {manifest.seq_len} or a "
            f"--rank below {manifest.lora.rank}"
        )
    fitting = max(count for count, peak in enumerate(peaks) if budget is None or peak <= budget)
    chosen = (0 if budget is None else fitting) if keep is None else min(keep, layers)
    if budget is not None and peaks[chosen] > budget:
        raise MemoryBudgetError(
            f"keeping {chosen} layers is predicted to take {megabytes(peaks[chosen])}, {process}; "
            f"more than the {megabytes(budget)} allowed; nothing was run; keeping {fitting} fits, and the least for this run is "
            f"{megabytes(least)}; allow more, or keep that many"
        )
    return Plan(chosen, peaks[chosen], least)


def predicted_peak(manifest: Manifest, subsets: Sequence[Subset], keep: int, base: int, accumulation: int = 1) -> int:
    """Peak anonymous bytes of a run of these steps, evaluation included, text samples not. `base` and `accumulation` as in `plan_run`."""
    keeping = TARGETS[manifest.target].keeps_activations
    if not keeping:
        terms = training_peak_terms(manifest)
    elif TARGETS[manifest.target].shared_file is None:
        terms = peak_terms(manifest, subsets, keep, accumulation)
    elif manifest.target == "coreai":
        terms = function_peak_terms(manifest, subsets, keep, accumulation)
    else:
        terms = method_peak_terms(manifest, subsets, keep, accumulation)
    return base + sum(terms.values())


# Target onnxruntime -----------------------------------------------------------------------------------------------------------

# Fitted to runs of the shapes below: the runtime's own, and the parsed graphs and kernels of a block program's session by its file's size.
RUNTIME_BYTES = 5_500_000
SESSION_SHARE = 45
UPDATE_OUTPUTS = 3  # of AdamW: parameters and moments
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
    return {
        "runtime": RUNTIME_BYTES,
        "sessions": sum(_session_bytes(manifest, name) for name in programs),
        **buffer_terms(manifest, subsets, keep, accumulation),
        "working set": max(_head_set(manifest), *(manifest.graphs[name].working_bytes or 0 for name in (*programs, "embed", UPDATE))),
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
    layers = sum(program_name(layer.kind, "forward") == name for layer in manifest.layers)
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
    tables = {name: [x for x in manifest.graphs[name].inputs if x.name in CHUNK_WEIGHTS] for name in ("embed", "head_start")}

    def held(name: str) -> int:
        graph = manifest.graphs[name]
        fed = [x for x in graph.inputs if x not in tables.get(name, [])]
        return (graph.working_bytes or 0) + _tensor_bytes([*fed, *graph.outputs])

    return {
        **buffer_terms(manifest, subsets, keep, accumulation),
        "asset": ASSET_BYTES,
        "functions": sum(map(held, programs)),
        "copies of tables": max(map(_tensor_bytes, tables.values())),
    }


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


# Options ----------------------------------------------------------------------------------------------------------------------

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
COUNT = re.compile(r"\d{1,6}", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of "512MB" (10^6), "512MiB" (2^20), "2GB", "1.5GiB", "64kB" or plain "512000000". Raises OptionError."""
    match = SIZE.fullmatch(text)
    unit = UNITS.get(match[2].lower()) if match else None
    most = RANGES["memory-budget"].most
    count = math.floor(min(float(match[1]) * unit, 2 * most)) if match and unit else 0
    if not 1 <= count <= most:
        raise OptionError(f"expected a size such as 512MB, 512MiB, 2GB, 2GiB or a number of bytes, found {text!r}")
    return count


def parse_keep(text: str) -> int:
    """Layers of "none", "all" (ALL, which `plan_run` cuts to the model's) or a number. Raises OptionError."""
    if text == "none":
        return 0
    if text == "all":
        return ALL
    if not COUNT.fullmatch(text):
        raise OptionError(f"keep: expected none, all or a number of layers, found {text!r}")
    return int(text)
