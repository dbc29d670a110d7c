"""How a manifest's tables must agree with each other. Every number is in its range already (`manifest_check`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from lcsb_mobile.bundle.manifest import Graph, GraphTensor, Manifest
from lcsb_mobile.bundle.programs import KEPT, Tensors, differences, signatures
from lcsb_mobile.bundle.weights import LAYERS, WEIGHTS_FILE
from lcsb_mobile.errors import OptionError
from lcsb_mobile.targets import TARGETS

KEEPS, READS_KEPT = "block_forward_keep", "block_backward_kept"


def relation_faults(manifest: Manifest) -> Iterator[str]:
    """What is wrong, as sentences."""
    yield from _model_faults(manifest)
    yield from _adapter_faults(manifest)
    yield from _weight_faults(manifest)
    if known := signatures(manifest):
        yield from _program_faults(manifest, known)


def _model_faults(manifest: Manifest) -> Iterator[str]:
    model = manifest.model
    layers, kinds = model.num_hidden_layers, len(model.attention_kinds)
    if len(model.layer_kinds) != layers or not all(0 <= kind < kinds for kind in model.layer_kinds):
        yield f"model.layer_kinds: expected one of {kinds} kinds for each of {layers} layers, found {list(model.layer_kinds[: layers + 1])}"
    if model.num_attention_heads % model.num_key_value_heads:
        yield f"model: {model.num_attention_heads} heads are no multiple of {model.num_key_value_heads} key-value heads"
    if not manifest.schedule:
        yield "schedule: expected at least one step, found none"
    for number, subset in enumerate(manifest.schedule, 1):
        try:
            subset.check(layers)
        except OptionError as error:
            yield f"schedule: step {number}: {error}"


def _adapter_faults(manifest: Manifest) -> Iterator[str]:
    """The matrices lie one after the other, A and B of a projection in turn, and fill a layer's vector."""
    layout, rank = manifest.adapter, manifest.adapter.lora.rank
    if layout.num_layers != manifest.model.num_hidden_layers:
        yield f"adapter.num_layers: expected {manifest.model.num_hidden_layers}, found {layout.num_layers}"
    yield from _repeated("adapter.matrices", (matrix.name for matrix in layout.matrices))
    end = 0
    for number, matrix in enumerate(layout.matrices):
        part, found = ("lora_A", matrix.shape[0]) if number % 2 == 0 else ("lora_B", matrix.shape[1])
        if not matrix.name.endswith(f".{part}") or found != rank or matrix.offset != end:
            yield f"adapter.matrices: expected a {part} of rank {rank} at {end}, found {matrix}"
        end = matrix.offset + matrix.size
    for a, b in zip(layout.matrices[::2], layout.matrices[1::2]):
        if a.name.removesuffix(".lora_A") != b.name.removesuffix(".lora_B"):
            yield f"adapter.matrices: expected both of one projection, found {a.name!r} and {b.name!r}"
    if end != layout.size or len(layout.matrices) % 2:
        yield f"adapter.size: expected {end}, where the last of {len(layout.matrices)} matrices ends, found {layout.size}"


def _weight_faults(manifest: Manifest) -> Iterator[str]:
    yield from _repeated("weights", (tensor.name for tensor in manifest.weights))
    try:
        expected = _expected_weights(manifest)
    except OptionError as error:
        yield str(error)
    else:
        yield from differences("weights", expected, {name: x for name, x in _table(manifest).items() if name in expected})
    for tensor in manifest.weights:
        if tensor.per_layer and tensor.shape[0] != manifest.model.num_hidden_layers:
            yield f"weights: {tensor.name!r}: expected {manifest.model.num_hidden_layers} layers, found {tensor.shape[0]}"
    for before, after in pairwise(sorted(manifest.weights, key=lambda tensor: tensor.offset)):
        if before.offset + before.nbytes > after.offset:
            yield f"weights: {before.name!r} and {after.name!r} overlap"
    end = max((tensor.offset + tensor.nbytes for tensor in manifest.weights), default=0)
    size = manifest.files[WEIGHTS_FILE].size if WEIGHTS_FILE in manifest.files else 0
    if end > size:
        yield f"weights: the tensors end at byte {end} of {WEIGHTS_FILE}, which has {size}"


def _table(manifest: Manifest) -> Tensors:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.weights}


def _expected_weights(manifest: Manifest) -> Tensors:
    """Those that are known without knowing the architecture. Raises OptionError where the group size does not divide a row."""
    model, group = manifest.model, manifest.quantization.group_size

    def matrix(name: str, stack: tuple[int, ...], rows: int, columns: int, bits: int) -> Tensors:
        if columns % group or group % 2:
            raise OptionError(f"quantization.group_size: expected an even divisor of the {columns} columns of {name!r}, found {group}")
        shape = (*stack, rows, columns // group)
        packed = ("uint8", (*shape, group // 2)) if bits == 4 else ("int8", (*shape, group))
        return {f"{name}.packed": packed, f"{name}.scale": ("float16", shape)}

    rope = ("float32", (len(model.attention_kinds), manifest.seq_len, model.head_dim))
    tensors: Tensors = {"norm.weight": ("float32", (model.hidden_size,)), "rope.cos": rope, "rope.sin": rope}
    for name in ("embed_tokens.weight",) if model.tie_word_embeddings else ("embed_tokens.weight", "lm_head.weight"):
        tensors |= matrix(name, (), model.vocab_size, model.hidden_size, manifest.quantization.embedding_bits)
    for a, b in zip(manifest.adapter.matrices[::2], manifest.adapter.matrices[1::2]):
        name = f"{LAYERS}{a.name.removesuffix('.lora_A')}.weight"
        tensors |= matrix(name, (manifest.adapter.num_layers,), b.shape[0], a.shape[1], manifest.quantization.bits)
    return tensors


def _program_faults(manifest: Manifest, known: Mapping[str, tuple[Tensors, Tensors]]) -> Iterator[str]:
    graphs, table = manifest.graphs, _table(manifest)
    needed = {*known, *(TARGETS[manifest.target].programs if manifest.target in TARGETS else ())}
    if missing := sorted(needed - graphs.keys()):
        yield f"graphs: {', '.join(missing)} missing"
    for name, graph in graphs.items():
        faults = [] if graph.file == f"{name}.onnx" else [f"expected the file {name}.onnx, found {graph.file!r}"]
        faults += [*_repeated("inputs", (x.name for x in (*graph.inputs, *graph.initializers)))]
        faults += [*_repeated("outputs", (x.name for x in graph.outputs)), *_weights_of_program(graph, table)]
        if name in known:
            inputs, outputs = _described(graph.inputs), _described(graph.outputs)
            kept = inputs if name == READS_KEPT else outputs if name == KEEPS else {}
            for key in [key for key in kept if key.startswith(KEPT)]:
                del kept[key]
            faults += [*differences("inputs", known[name][0], inputs), *differences("outputs", known[name][1], outputs)]
        yield from (f"graphs.{name}: {fault}" for fault in faults)
    if KEEPS in graphs and READS_KEPT in graphs:
        written, read = graphs[KEEPS].outputs[1:], [x for x in graphs[READS_KEPT].inputs if x.name.startswith(KEPT)]
        yield from differences(f"graphs.{KEEPS}: what {READS_KEPT} reads", _described(read), _described(written))


def _described(tensors: Sequence[GraphTensor]) -> Tensors:
    return {x.name: (x.dtype, x.shape) for x in tensors if x.weight is None}


def _weights_of_program(graph: Graph, table: Tensors) -> list[str]:
    """What a program is fed of `weights.bin` is there, and of the dtype and shape that the program takes."""
    faults = [f"{x.name!r}: expected the layers' weight that it is" for x in graph.initializers if not (x.weight or "").startswith(LAYERS)]
    faults += [f"the output {x.name!r} cannot be a weight" for x in graph.outputs if x.weight is not None]
    for x in (*graph.inputs, *graph.initializers):
        if x.weight is not None:
            dtype, shape = table.get(x.weight, ("nothing", ()))
            fed = {x.name: (dtype, shape[1:] if x.weight.startswith(LAYERS) else shape)}
            faults += differences(f"{x.weight!r} as", fed, {x.name: (x.dtype, x.shape)})
    return faults


def _repeated(where: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{where}: {name!r} stands twice" for name, count in Counter(names).items() if count > 1)
