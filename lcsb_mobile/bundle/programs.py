"""What a target's programs take and return besides weights, which a runner makes its buffers by. Specification: docs/onnxruntime.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lcsb_mobile.bundle.layers import Kind, Layer
from lcsb_mobile.bundle.manifest import GraphTensor, Manifest
from lcsb_mobile.bundle.weights import head_rows
from lcsb_mobile.targets import TARGETS

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name -> dtype, shape
KEPT = "kept."  # what the names of the tensors begin with that a forward keeps for the backward: which they are is the exporter's choice
PAST = "past_"  # before a state's name: what is remembered of the tokens before
GRADIENT = "d_"  # before the name of what crosses layers: its gradient
ANY = -1  # a free dimension
TOKENS = ("input_ids", "position_ids", "segment_ids")
PRODUCTS = ("gemm", "gemm_backward")  # the programs that have some
UPDATE = "adamw"  # takes vectors of any size; of static shapes there is one of each kind
HEAD_CHUNKS = ("head_chunk", "eval_chunk", "logits_chunk")  # the programs that see some rows of the head: of static shapes
CHUNK_WEIGHTS = ("packed", "scale")  # their inputs that are these rows, where the host feeds weights
CHUNK_START = "start"  # their input in place of it, where the program holds the weights: the number of the first row
Role = Literal["forward", "backward", "forward_keep", "backward_kept", "prefill", "decode"]


@dataclass(frozen=True)
class Signature:
    """`optional`: inputs that a program leaves out if it does not need them."""

    inputs: Tensors
    outputs: Tensors
    optional: frozenset[str] = frozenset()


def program_name(kind: str, role: Role) -> str:
    return f"{kind}_{role}"


def update_program(kind: str) -> str:
    """Of static shapes."""
    return f"{kind}_{UPDATE}"


def layer_function(program: str, layer: int) -> str:
    """The function of a layer's program that holds the layer's weights. `layer`: its number in the model."""
    return f"{program}_{layer:02}"


def is_gradient(name: str) -> bool:
    """Of a backward program's inputs; all of its results are gradients."""
    return name == "g" or name.startswith(GRADIENT)


def plain_name(name: str) -> str:
    """A tensor's name in the files of targets of static shapes, whose formats take identifiers alone."""
    return name.replace(".", "_")


def chunk_rows(vocab_size: int, hidden_size: int) -> int:
    """Rows of the head that a chunk's program sees. The last chunk ends with the vocabulary, so it may overlap the one before it."""
    return min(head_rows(hidden_size), vocab_size)


def chunk_starts(vocab_size: int, rows: int) -> list[tuple[int, int]]:
    """Of each chunk the first row, and how many of its rows the chunk before it has had."""
    starts = [min(start, vocab_size - rows) for start in range(0, vocab_size, rows)]
    return [(start, number * rows - start) for number, start in enumerate(starts)]


def signatures(manifest: Manifest) -> dict[str, Signature]:
    """Of the programs that every bundle of the target has."""
    free = (ANY, ANY)
    row = TARGETS[manifest.target]
    products = dict.fromkeys(PRODUCTS if row.measures_products else (), Signature(_floats(a=free, b=free), _floats(y=free)))
    if row.static_shapes:
        return _static_programs(manifest, row.holds_weights) | _kind_programs(manifest)
    if row.form == "block programs":
        return _common_programs(manifest) | _kind_programs(manifest) | products
    return _training_programs(manifest) | products


def differences(where: str, expected: Tensors, found: Tensors, optional: frozenset[str] = frozenset()) -> Iterator[str]:
    """What is wrong, tensor by tensor, as sentences."""
    for name in dict.fromkeys((*expected, *found)):
        if expected.get(name) != found.get(name) and not (name in optional and name not in found):
            yield f"{where}: {name!r}: expected {_text(expected.get(name))}, found {_text(found.get(name))}"


def described(tensors: tuple[GraphTensor, ...]) -> Tensors:
    """Without weights."""
    return {x.name: (x.dtype, x.shape) for x in tensors if x.weight is None}


def _text(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "none" if tensor is None else f"{tensor[0]} {list(tensor[1])}"


def _common_programs(manifest: Manifest) -> dict[str, Signature]:
    """Tables are those that `embed` and `decode_embed` have; that the layers' programs take the same is for `_kind_programs` to say."""
    t, n, model = manifest.seq_len, (ANY,), manifest.model
    hidden, one = _floats(h=(t, model.hidden_size)), _floats(h=(1, model.hidden_size))
    loss, gradient = _floats(loss=()), _floats(g=(t, model.hidden_size))
    return {
        "embed": Signature(_integers(t, *TOKENS), _tables(manifest, "embed") | hidden),
        "head": Signature(hidden | _integers(t, "labels"), loss | gradient),
        "head_eval": Signature(hidden | _integers(t, "labels"), loss),
        "decode_embed": Signature(_integers(1, "input_ids", "position_ids"), _tables(manifest, "decode_embed") | one),
        "logits": Signature(one, _floats(logits=(model.vocab_size,))),
        UPDATE: _update(n, ()),
    }


def _update(vector: tuple[int, ...], scalar: tuple[int, ...]) -> Signature:
    moments = ("parameters", "first_moment", "second_moment")
    scalars = _floats(decay=scalar, rate=scalar, root=scalar)
    vectors = _floats(**dict.fromkeys((*moments, "gradient"), vector))
    return Signature(vectors | scalars, _floats(**{f"{name}_next": vector for name in moments}))


def _static_programs(manifest: Manifest, holds_weights: bool) -> dict[str, Signature]:
    """Of static shapes: integers are int32, nothing has rank 0, and the head is a chunk at a time."""
    t, model = manifest.seq_len, manifest.model
    hidden, one, column = (t, model.hidden_size), (1, model.hidden_size), (t, 1)
    rows = chunk_rows(model.vocab_size, model.hidden_size)
    start = _integers(1, CHUNK_START, dtype="int32") if holds_weights else {}
    chosen = _floats(x=hidden, target=hidden, share=column)
    sums = _floats(peak=column, total=column)
    weighted, bias, loss = _floats(weighted=hidden), _floats(bias=(1, rows)), _floats(loss=(1,))
    nexts = _floats(peak_next=column, total_next=column)
    return {
        "embed": Signature(_integers(t, *TOKENS, dtype="int32"), _tables(manifest, "embed") | _floats(h=hidden)),
        "head_start": Signature(_floats(h=hidden) | _integers(t, "labels", dtype="int32"), chosen),
        "head_chunk": Signature(_floats(x=hidden) | sums | weighted | bias | start, nexts | _floats(weighted_next=hidden)),
        "head_end": Signature(_floats(h=hidden) | chosen | sums | weighted, loss | _floats(g=hidden)),
        "eval_chunk": Signature(_floats(x=hidden) | sums | bias | start, nexts),
        "eval_end": Signature(chosen | sums, loss),
        "decode_embed": Signature(
            _integers(1, "input_ids", "position_ids", dtype="int32"), _tables(manifest, "decode_embed") | _floats(h=one)
        ),
        "logits_start": Signature(_floats(h=one), _floats(x=one)),
        "logits_chunk": Signature(_floats(x=one) | start, _floats(logits=(rows,))),
    } | {update_program(kind.name): _update((kind.size,), (1,)) for kind in manifest.kinds}


def _tables(manifest: Manifest, program: str) -> Tensors:
    """Of any shape, but float32 and under names that a layer binds."""
    bound = {name for layer in manifest.layers for name in layer.reads.values()}
    outputs = manifest.graphs[program].outputs if program in manifest.graphs else ()
    return {x.name: ("float32", x.shape) for x in outputs if x.name in bound}


def _kind_programs(manifest: Manifest) -> dict[str, Signature]:
    """Layers of one kind share its programs, so the first of them speaks for all; that the others bind alike is checked beside this."""
    programs: dict[str, Signature] = {}
    crossing: dict[str, Tensors] = {"forward": {}, "prefill": {}, "decode": {}}  # what was given so far, under the step's names
    done: set[str] = set()
    for layer in manifest.layers:
        kind = manifest.kind_named(layer.kind)
        if kind.name not in done:
            programs |= _programs_of(manifest, kind, layer, crossing)
        for role, values in crossing.items():
            outputs = programs[f"{kind.name}_{role}"].outputs
            values.update({value: outputs[name] for name, value in layer.gives.items() if name in outputs})
        done.add(kind.name)
    return programs


def _programs_of(manifest: Manifest, kind: Kind, layer: Layer, crossing: Mapping[str, Tensors]) -> dict[str, Signature]:
    t, model, name = manifest.seq_len, manifest.model, kind.name
    wide, one = (t, model.hidden_size), (1, model.hidden_size)
    adapter, d_adapter = _floats(adapter=(kind.size,)), _floats(d_adapter=(kind.size,))

    def bound(names: Mapping[str, str], among: Tensors) -> Tensors:
        return {inner: among[outer] for inner, outer in names.items() if outer in among}

    def given(role: Role) -> Tensors:
        """A kind's own choice, as its program has it."""
        graph = manifest.graphs.get(program_name(name, role))
        return {x.name: ("float32", x.shape) for x in graph.outputs if x.name in kind.gives} if graph else {}

    gives, takes = given("forward"), bound(layer.takes, crossing["forward"])
    reads = bound(layer.reads, _tables(manifest, "embed"))
    forward = _floats(h=wide) | reads | takes | adapter
    backward = forward | _floats(g=wide) | _gradients(gives)
    gradients = _floats(g_next=wide) | _gradients(takes) | d_adapter
    h_next = _floats(h_next=wide) | gives
    some = frozenset((*reads, *takes))
    states: Tensors = {state.name: ("float32", state.shape) for state in kind.state}
    news: Tensors = {s.name: ("float32", (1, *s.shape[1:]) if s.by_position else s.shape) for s in kind.state}
    past = {PAST + state: x for state, x in states.items()}
    token_reads = bound(layer.reads, _tables(manifest, "decode_embed"))
    token = _floats(h=one) | token_reads | bound(layer.takes, crossing["decode"]) | past | adapter
    prompt = _floats(h=wide) | reads | bound(layer.takes, crossing["prefill"]) | adapter
    return {
        program_name(name, "forward"): Signature(forward, h_next, some),
        program_name(name, "forward_keep"): Signature(forward, h_next, some),
        program_name(name, "backward"): Signature(backward, gradients, some),
        program_name(name, "backward_kept"): Signature(backward, gradients, some | {"h"}),
        program_name(name, "prefill"): Signature(prompt, _floats(h_next=wide) | given("prefill") | states, some),
        program_name(name, "decode"): Signature(token, _floats(h_next=one) | given("decode") | news, frozenset(token) - {"h", "adapter"}),
    }


def _gradients(tensors: Tensors) -> Tensors:
    return {GRADIENT + name: x for name, x in tensors.items()}


def _training_programs(manifest: Manifest) -> dict[str, Signature]:
    """Of models of one kind: the adapter is one array, a row a layer."""
    t, layers = manifest.seq_len, len(manifest.layers)
    adapter = _floats(adapter=(layers, manifest.kinds[0].size))
    chosen: Tensors = dict.fromkeys(("train", "propagate"), ("bool", (layers,)))
    buffer: Tensors = {"adapter_grad.accumulation.buffer": adapter["adapter"], "lazy_reset_grad": ("bool", (1,))}
    done: Tensors = {"adapter_grad.accumulation.out": ("bool", (1,))}
    tokens, loss = _integers(t, *TOKENS), _floats(loss=())
    return {
        "training_model": Signature(tokens | _integers(t, "labels") | chosen | adapter | buffer, loss | done),
        "eval_model": Signature(tokens | _integers(t, "labels") | adapter, loss),
        "logits_model": Signature(tokens | _integers(1, "position") | adapter, _floats(logits=(manifest.model.vocab_size,))),
    }


def _floats(**shapes: tuple[int, ...]) -> Tensors:
    return {name: ("float32", shape) for name, shape in shapes.items()}


def _integers(count: int, *names: str, dtype: str = "int64") -> Tensors:
    tensor: tuple[str, tuple[int, ...]] = (dtype, (count,))
    return dict.fromkeys(names, tensor)
