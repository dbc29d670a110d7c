"""How a manifest's tables must agree with each other. Every number is in its range already (`manifest_check`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import get_args

from lcsb_mobile.bundle.layers import Kind
from lcsb_mobile.bundle.manifest import Graph, Manifest
from lcsb_mobile.bundle.programs import (
    CHUNK_WEIGHTS,
    GRADIENT,
    HEAD_CHUNKS,
    KEPT,
    PAST,
    PRODUCTS,
    UPDATE,
    Role,
    Signature,
    Tensors,
    chunk_rows,
    described,
    differences,
    program_name,
    signatures,
    update_program,
)
from lcsb_mobile.bundle.weights import BYTES, LAYERS, SCALES, WEIGHTS_FILE, layer_tensor, stored_for
from lcsb_mobile.errors import OptionError
from lcsb_mobile.targets import TARGETS

ROLES_THAT_GIVE: tuple[Role, ...] = ("forward", "prefill", "decode")  # whose outputs later layers take
# What is no kind's, of any target.
ENDS = ("embed", "head", "head_eval", "head_start", "head_end", "eval_end", "decode_embed", "logits", "logits_start")
OTHER_PROGRAMS = (*ENDS, *HEAD_CHUNKS, UPDATE, *PRODUCTS)
TAKEN_NAMES = ("h", "g", "adapter", "h_next", "g_next")  # of a program's own inputs and outputs


def relation_faults(manifest: Manifest) -> Iterator[str]:
    """What is wrong, as sentences. What is said of programs rests on layers that are of known kinds."""
    yield from _model_faults(manifest)
    layer_faults = [*_kind_faults(manifest), *_layer_faults(manifest)]
    yield from layer_faults
    if layer_faults:
        return
    yield from _weight_faults(manifest)
    yield from _program_faults(manifest, signatures(manifest))


def _model_faults(manifest: Manifest) -> Iterator[str]:
    model, layers = manifest.model, manifest.model.num_hidden_layers
    for name, found in (("model.layer_types", model.layer_types), ("layers", manifest.layers)):
        if len(found) != layers:
            yield f"{name}: expected {layers} layers, found {len(found)}"
    if unknown := sorted(model.attention_kinds.keys() - set(model.layer_types)):
        yield f"model.attention_kinds: no layer is of type {', '.join(unknown)}"
    if model.num_attention_heads % model.num_key_value_heads:
        yield f"model: {model.num_attention_heads} heads are no multiple of {model.num_key_value_heads} key-value heads"
    if model.rotary_dim % 2 or model.rotary_dim > model.head_dim:
        yield f"model.rotary_dim: expected an even number of at most {model.head_dim}, found {model.rotary_dim}"
    if model.linear_attention is not None and manifest.seq_len % model.linear_attention.chunk:
        yield f"seq_len: expected a multiple of {model.linear_attention.chunk}, found {manifest.seq_len}"
    for kind in model.attention_kinds.values():
        longest = None if kind.rope_scaling is None else kind.rope_scaling.longest
        if longest is not None and manifest.seq_len > longest:
            yield f"seq_len: expected at most {longest}, as the model's RoPE has it, found {manifest.seq_len}"
    if not manifest.schedule:
        yield "schedule: expected at least one step, found none"
    for number, subset in enumerate(manifest.schedule, 1):
        try:
            subset.check(layers)
        except OptionError as error:
            yield f"schedule: step {number}: {error}"


def _kind_faults(manifest: Manifest) -> Iterator[str]:
    yield from _repeated("kinds", (kind.name for kind in manifest.kinds))
    programs = [program_name(kind.name, role) for kind in manifest.kinds for role in get_args(Role)]
    programs += [update_program(kind.name) for kind in manifest.kinds]
    yield from _repeated("graphs", (*programs, *OTHER_PROGRAMS))
    if unused := sorted({kind.name for kind in manifest.kinds} - {layer.kind for layer in manifest.layers}):
        yield f"kinds: no layer is of kind {', '.join(unused)}"
    if TARGETS[manifest.target].form != "block programs" and len(manifest.kinds) > 1:
        yield f"kinds: expected one for target {manifest.target}, found {', '.join(kind.name for kind in manifest.kinds)}"
    for kind in manifest.kinds:
        yield from (f"kinds: {kind.name}: {fault}" for fault in (*_name_faults(kind), *_matrix_faults(kind, manifest.lora.rank)))
        for state in kind.state:
            if state.by_position and state.shape[0] != manifest.seq_len:
                yield f"kinds: {kind.name}: state {state.name!r}: expected {manifest.seq_len} places, found {state.shape[0]}"


def _name_faults(kind: Kind) -> Iterator[str]:
    """Inputs and outputs of a program are told apart by name."""
    names = (*kind.reads, *kind.takes, *kind.gives)
    yield from _repeated("names", (*names, *TAKEN_NAMES))
    # What a program gives and what it remembers stand beside each other among its outputs.
    yield from _repeated("state", (*(state.name for state in kind.state), *kind.gives, "h_next"))
    for name in (*names, *(state.name for state in kind.state)):
        if name.startswith((KEPT, GRADIENT, PAST)):
            yield f"expected no name that begins with {KEPT}, {GRADIENT} or {PAST}, found {name!r}"


def _matrix_faults(kind: Kind, rank: int) -> Iterator[str]:
    """The matrices lie one after the other, A and B of a projection in turn, and fill a layer's vector."""
    yield from _repeated("matrices", (matrix.name for matrix in kind.matrices))
    end = 0
    for number, matrix in enumerate(kind.matrices):
        part, found = ("lora_A", matrix.shape[0]) if number % 2 == 0 else ("lora_B", matrix.shape[1])
        if not matrix.name.endswith(f".{part}") or found != rank or matrix.offset != end:
            yield f"matrices: expected a {part} of rank {rank} at {end}, found {matrix}"
        end = matrix.offset + matrix.size
    for a, b in zip(kind.matrices[::2], kind.matrices[1::2]):
        if a.name.removesuffix(".lora_A") != b.name.removesuffix(".lora_B"):
            yield f"matrices: expected both of one projection, found {a.name!r} and {b.name!r}"
    if end != kind.size or len(kind.matrices) % 2:
        yield f"size: expected {end}, where the last of {len(kind.matrices)} matrices ends, found {kind.size}"


def _layer_faults(manifest: Manifest) -> Iterator[str]:
    """Layers are numbered within their kind, their vectors lie one after the other, and what they take was given once, before them."""
    kinds = {kind.name: kind for kind in manifest.kinds}
    count = Counter[str]()
    given: set[str] = set()
    offset = 0
    for number, layer in enumerate(manifest.layers):
        where = f"layers: layer {number}"
        if layer.kind not in kinds:
            yield f"{where}: expected a kind of {', '.join(kinds)}, found {layer.kind!r}"
            return
        kind = kinds[layer.kind]
        if (layer.number, layer.offset) != (count[layer.kind], offset):
            yield f"{where}: expected number {count[layer.kind]} at offset {offset}, found {layer.number} at {layer.offset}"
        count[layer.kind] += 1
        offset += kind.size
        for name, bound, declared in (("reads", layer.reads, kind.reads), ("takes", layer.takes, kind.takes)):
            if sorted(bound) != sorted(declared):
                yield f"{where}: {name}: expected {', '.join(declared) or 'none'}, found {', '.join(bound) or 'none'}"
        if unknown := sorted(layer.gives.keys() - set(kind.gives)):
            yield f"{where}: gives: expected of {', '.join(kind.gives) or 'none'}, found {', '.join(unknown)}"
        if missing := sorted(set(layer.takes.values()) - given):
            yield f"{where}: takes {', '.join(missing)}, which no layer before it gives"
        yield from _repeated(f"{where}: gives", (*layer.gives.values(), *sorted(given & {*layer.gives.values()})))
        given.update(layer.gives.values())


def _weight_faults(manifest: Manifest) -> Iterator[str]:
    yield from _repeated("weights", (tensor.name for tensor in manifest.weights))
    try:
        expected = _expected_weights(manifest)
    except OptionError as error:
        yield str(error)
    else:
        yield from differences("weights", expected, {name: x for name, x in _table(manifest).items() if name in expected})
    count = Counter(layer.kind for layer in manifest.layers)
    for tensor in manifest.weights:
        kind = tensor.name.removeprefix(LAYERS).partition(".")[0]
        if tensor.per_layer and tensor.shape[0] != count[kind]:
            yield f"weights: {tensor.name!r}: expected {count[kind]} layers, found {tensor.shape[0]}"
    for before, after in pairwise(sorted(manifest.weights, key=lambda tensor: tensor.offset)):
        if before.offset + before.nbytes > after.offset:
            yield f"weights: {before.name!r} and {after.name!r} overlap"
    end = max((tensor.offset + tensor.nbytes for tensor in manifest.weights), default=0)
    size = manifest.files[WEIGHTS_FILE].size if WEIGHTS_FILE in manifest.files else 0
    if end > size and not holds_weights(manifest):
        yield f"weights: the tensors end at byte {end} of {WEIGHTS_FILE}, which has {size}"


def holds_weights(manifest: Manifest) -> bool:
    """Whether the programs hold the weights."""
    return TARGETS[manifest.target].holds_weights


def _table(manifest: Manifest) -> Tensors:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.weights}


def _expected_weights(manifest: Manifest) -> Tensors:
    """Those that are known without knowing the architecture. Raises OptionError where the group size does not divide a row."""
    model, group = manifest.model, manifest.quantization.group_size
    programs = stored_for(manifest.weights)

    def matrix(name: str, stack: tuple[int, ...], rows: int, columns: int, bits: int) -> Tensors:
        if columns % group or group % 2:
            raise OptionError(f"quantization.group_size: expected an even divisor of the {columns} columns of {name!r}, found {group}")
        shape = (*stack, rows, columns // group)
        packed = ("uint8", (*shape, group // 2)) if bits == 4 else (BYTES[programs], (*shape, group))
        return {f"{name}.packed": packed, f"{name}.scale": (SCALES[programs], shape)}

    tensors: Tensors = {"norm.weight": ("float32", (model.hidden_size,))}
    for name in model.attention_kinds:
        tensors |= {f"rope.{name}.{part}": ("float32", (manifest.seq_len, model.rotary_dim)) for part in ("cos", "sin")}
    for name in ("embed_tokens.weight",) if model.tie_word_embeddings else ("embed_tokens.weight", "lm_head.weight"):
        tensors |= matrix(name, (), model.vocab_size, model.hidden_size, manifest.quantization.embedding_bits)
    count = Counter(layer.kind for layer in manifest.layers)
    for kind in manifest.kinds:
        for a, b in zip(kind.matrices[::2], kind.matrices[1::2]):
            name = layer_tensor(kind.name, f"{a.name.removesuffix('.lora_A')}.weight")
            tensors |= matrix(name, (count[kind.name],), b.shape[0], a.shape[1], manifest.quantization.bits)
    return tensors


def _program_faults(manifest: Manifest, known: Mapping[str, Signature]) -> Iterator[str]:
    graphs, table = manifest.graphs, _table(manifest)
    row = TARGETS[manifest.target]
    needed = {*known, *row.programs}
    if missing := sorted(needed - graphs.keys()):
        yield f"graphs: {', '.join(missing)} missing"
    for name, graph in graphs.items():
        file = row.program_file(name)
        faults = [] if graph.file == file else [f"expected the file {file}, found {graph.file!r}"]
        faults += [*_repeated("inputs", (x.name for x in (*graph.inputs, *graph.initializers)))]
        faults += [*_repeated("outputs", (x.name for x in graph.outputs)), *_weights_of_program(manifest, name, graph, table)]
        if name in known:
            expected = known[name]
            faults += differences("inputs", expected.inputs, _chosen(name, "backward_kept", described(graph.inputs)), expected.optional)
            faults += differences("outputs", expected.outputs, _chosen(name, "forward_keep", described(graph.outputs)))
        yield from (f"graphs.{name}: {fault}" for fault in faults)
    for kind in manifest.kinds:
        keeps, reads = program_name(kind.name, "forward_keep"), program_name(kind.name, "backward_kept")
        if keeps in graphs and reads in graphs:
            written, read = (
                {k: x for k, x in described(part).items() if k.startswith(KEPT)} for part in (graphs[keeps].outputs, graphs[reads].inputs)
            )
            yield from differences(f"graphs.{keeps}: what {reads} reads", read, written)
        for role in ROLES_THAT_GIVE:
            outputs = {x.name for x in graphs[name].outputs} if (name := program_name(kind.name, role)) in graphs else {*kind.gives}
            if missing := sorted({*kind.gives} - outputs):
                yield f"graphs.{name}: outputs: expected what layers of its kind give, found no {', '.join(missing)}"
    yield from _binding_faults(manifest)


def _chosen(name: str, role: str, tensors: Tensors) -> Tensors:
    """Without what is kept, in the one program of a pair that may have any."""
    return {key: x for key, x in tensors.items() if not (name.endswith(f"_{role}") and key.startswith(KEPT))}


def _binding_faults(manifest: Manifest) -> Iterator[str]:
    """Layers of a kind share its programs, so what they bind has one shape."""
    outputs = {name: described(graph.outputs) for name, graph in manifest.graphs.items()}
    for program in ("embed", "decode_embed"):
        bound = ((number, layer.reads, outputs.get(program, {})) for number, layer in enumerate(manifest.layers))
        yield from _shape_faults(manifest, program, bound)
    for role in ROLES_THAT_GIVE:
        yield from _shape_faults(manifest, role, _taken(manifest, role, outputs))


def _taken(manifest: Manifest, role: Role, outputs: Mapping[str, Tensors]) -> Iterator[tuple[int, Mapping[str, str], Tensors]]:
    given: Tensors = {}
    for number, layer in enumerate(manifest.layers):
        yield number, layer.takes, given
        own = outputs.get(program_name(layer.kind, role), {})
        given |= {value: own[name] for name, value in layer.gives.items() if name in own}


def _shape_faults(manifest: Manifest, where: str, bound: Iterable[tuple[int, Mapping[str, str], Tensors]]) -> Iterator[str]:
    """`bound`: of each layer the names that it binds to what, and what there is."""
    first: dict[tuple[str, str], tuple[str, tuple[int, ...]] | None] = {}
    for number, names, there in bound:
        kind = manifest.layers[number].kind
        for name, value in names.items():
            if first.setdefault((kind, name), there.get(value)) != there.get(value):
                yield f"layers: layer {number}: {name} is bound to {value!r} of {where}, another shape than in the first {kind}"


def _weights_of_program(manifest: Manifest, name: str, graph: Graph, table: Tensors) -> list[str]:
    """What a program is fed of `weights.bin` is there, of the dtype and shape that the program takes, and of layers of its kind."""
    held = holds_weights(manifest)
    prefix = "" if held else LAYERS
    faults = [f"{x.name!r}: expected the layers' weight that it is" for x in graph.initializers if not (x.weight or "").startswith(prefix)]
    faults += [f"{x.name!r}: expected no weight, which the programs hold" for x in graph.inputs if held and x.weight is not None]
    faults += [f"the output {x.name!r} cannot be a weight" for x in graph.outputs if x.weight is not None]
    own = {program_name(kind.name, role): kind.name for kind in manifest.kinds for role in get_args(Role)}.get(name)
    for x in (*graph.inputs, *graph.initializers):
        if x.weight is not None:
            dtype, shape = table.get(x.weight, ("nothing", ()))
            stacked = x.weight.startswith(LAYERS)
            if own is not None and not x.weight.startswith(layer_tensor(own, "")):
                faults.append(f"{x.name!r}: expected a weight of {layer_tensor(own, '')}…, found {x.weight!r}")
            if own is None and stacked:
                faults.append(f"{x.name!r}: expected a weight of no layer, found {x.weight!r}")
            rows = chunk_rows(manifest.model.vocab_size, manifest.model.hidden_size)
            chunk = name in HEAD_CHUNKS and x.name in CHUNK_WEIGHTS and not held
            fed = {x.name: (dtype, shape[1:] if stacked else (rows, *shape[1:]) if chunk else shape)}
            faults += differences(f"{x.weight!r} as", fed, {x.name: (x.dtype, x.shape)})
    return faults


def _repeated(where: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{where}: {name!r} stands twice" for name, count in Counter(names).items() if count > 1)
