"""The blocks of each kind of layers as graphs: forward, backward with the forward recomputed inside, the pair that keeps what the
backward needs instead, and the two that write text.

Layers of one kind share its graphs: what differs between them (weights, angles, masks) are inputs. So capture time does not depend on
depth. Inputs, in this order, of which a graph has those that it needs (T tokens, D hidden size, n elements of the kind's adapter):

| name         | dtype   | shape  | meaning                                                      |
|--------------|---------|--------|--------------------------------------------------------------|
| h            | float32 | [T, D] | the block's input                                            |
| g            | float32 | [T, D] | d loss / d output (backward only)                            |
| reads        | float32 |        | tables of `models.tables`, such as cos, sin, mask            |
| takes        | float32 |        | what an earlier layer gave                                   |
| d_GIVE       | float32 |        | d loss / d what the block gives (backward only)              |
| consts       |         |        | the kind's; constants of the programs                        |
| adapter      | float32 | [n]    | the layer's LoRA matrices                                    |
| the weights  |         |        | `kind_tensors`, in its order                                 |

Outputs: forward `h_next` [T, D] and what the block gives; backward `g_next` [T, D], d_TAKE for what it takes, and `d_adapter` [n]; the
kept tensors are `kept.0` and so on, float32.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lcsb_mobile.bundle.adapter import matrix_views, vector_size
from lcsb_mobile.bundle.layers import AdapterMatrix, BlockWork
from lcsb_mobile.bundle.programs import GRADIENT, KEPT, PAST
from lcsb_mobile.config import LoraConfig, QuantizationConfig
from lcsb_mobile.export.graphs.captured import CapturedGraph, capture, extract
from lcsb_mobile.export.graphs.kept import values_to_keep
from lcsb_mobile.export.graphs.tables import TableGraph, capture_tables
from lcsb_mobile.export.graphs.tiles import decompress_for_each_sweep
from lcsb_mobile.export.models import Model
from lcsb_mobile.export.models.kinds import BlockKind, Place
from lcsb_mobile.export.models.layers import Mix
from lcsb_mobile.export.models.tables import step_tables, token_tables
from lcsb_mobile.export.weights.layer_tensors import kind_matrices, kind_tensors
from lcsb_mobile.export.weights.quantization import dequantize


@dataclass(frozen=True)
class Projections:
    """y = x Wᵀ + b + scaling (x Aᵀ) Bᵀ by the projection's name (models.layers.Linear); `tile`: rows or columns of W decompressed
    at a time, a multiple of the group size (None: all)."""

    weights: Mapping[str, Tensor]
    lora: Mapping[str, Tensor]
    scaling: float
    tile: int | None = None

    def __call__(self, name: str, x: Tensor) -> Tensor:
        y = x @ self._matrix(name, slice(None), slice(None)).t()
        if f"{name}.bias" in self.weights:
            y = y + self.weights[f"{name}.bias"]
        return y + (x @ self.lora[f"{name}.lora_A"].t()) @ (self.lora[f"{name}.lora_B"] * self.scaling).t()

    def rows(self, name: str, x: Tensor, sizes: Sequence[int] | None = None) -> Iterator[Tensor]:
        if sizes is not None and self.tile is None:
            yield from torch.split(self(name, x), list(sizes), 1)
            return
        b = self.lora[f"{name}.lora_B"] * self.scaling
        low = x @ self.lora[f"{name}.lora_A"].t()  # (T, rank)
        bounds = self._bounds(len(b)) if sizes is None else list(itertools.pairwise(itertools.accumulate(sizes, initial=0)))
        # LoRA's parts by one split: its derivative is one concatenation, where slices would sum padded copies.
        for (start, stop), b_rows in zip(bounds, torch.split(b, [stop - start for start, stop in bounds])):
            y = x @ self._matrix(name, slice(start, stop), slice(None)).t()
            if f"{name}.bias" in self.weights:
                y = y + self.weights[f"{name}.bias"][start:stop]
            yield y + low @ b_rows.t()

    def halves(self, name: str, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        b = self.lora[f"{name}.lora_B"]
        size = len(b) // 2
        if self.tile is None:
            first, second = torch.split(self(name, x), [size, size], 1)
            yield first, second
            return
        low = x @ self.lora[f"{name}.lora_A"].t()  # (T, rank)
        bounds = self._bounds(size)
        b_parts = torch.split(b * self.scaling, [stop - start for start, stop in bounds] * 2)
        # Each half is cut out once, which makes it a matrix of its own to `graphs.tiles`.
        parts = [slice(0, size), slice(size, 2 * size)]
        packed, scale = self._stored(name)
        matrices = [(packed[part], scale[part]) for part in parts]
        biases = [self.weights[f"{name}.bias"][part] if f"{name}.bias" in self.weights else None for part in parts]

        def rows(half: int, start: int, stop: int, b_rows: Tensor) -> Tensor:
            y, bias = x @ _decompressed(*matrices[half], slice(start, stop), slice(None)).t(), biases[half]
            return (y if bias is None else y + bias[start:stop]) + low @ b_rows.t()

        for number, (start, stop) in enumerate(bounds):
            yield rows(0, start, stop, b_parts[number]), rows(1, start, stop, b_parts[number + len(bounds)])

    def columns(self, name: str, tiles: Iterable[Tensor]) -> Tensor:
        a = self.lora[f"{name}.lora_A"]
        bounds = self._bounds(a.shape[1])
        parts: list[Tensor] = []
        low_parts: list[Tensor] = []
        for x, (start, stop), a_columns in zip(tiles, bounds, torch.split(a, [stop - start for start, stop in bounds], 1)):
            parts.append(x @ self._matrix(name, slice(None), slice(start, stop)).t())
            low_parts.append(x @ a_columns.t())
        y = _sum(parts)
        if f"{name}.bias" in self.weights:
            y = y + self.weights[f"{name}.bias"]
        return y + _sum(low_parts) @ (self.lora[f"{name}.lora_B"] * self.scaling).t()

    def within_sequences(self, mix: Mix) -> Mix:
        return mix

    def _stored(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight.packed"], self.weights[f"{name}.weight.scale"]

    def _matrix(self, name: str, rows: slice, columns: slice) -> Tensor:
        return _decompressed(*self._stored(name), rows, columns)

    def _bounds(self, size: int) -> list[tuple[int, int]]:
        step = self.tile or size
        return [(start, min(start + step, size)) for start in range(0, size, step)]


def _decompressed(packed: Tensor, scale: Tensor, rows: slice, columns: slice) -> Tensor:
    """Rows and columns of a matrix, decompressed. The columns' bounds are multiples of the group size."""
    if rows not in (slice(None), slice(0, packed.shape[0])):
        packed, scale = packed[rows], scale[rows]
    if columns != slice(None):
        group = packed.shape[2] * (2 if packed.dtype == torch.uint8 else 1)
        groups = slice(columns.start // group, columns.stop // group)
        if groups != slice(0, packed.shape[1]):
            packed, scale = packed[:, groups], scale[:, groups]
    return dequantize(packed, scale)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return functools.reduce(operator.add, parts)


@dataclass(frozen=True)
class KindGraphs:
    """The graphs of one kind of layers. `forward_keep` has the further outputs `kept`; `backward_kept` takes them as inputs and recomputes
    no product with a base matrix."""

    kind: BlockKind
    matrices: tuple[AdapterMatrix, ...]
    forward: CapturedGraph
    backward: CapturedGraph
    forward_keep: CapturedGraph
    backward_kept: CapturedGraph
    kept: tuple[str, ...]

    def work(self) -> tuple[BlockWork, BlockWork]:
        """FLOPs of the matrix products, and bytes of float weights decompressed."""
        graphs = self.forward, self.backward, self.backward_kept
        return BlockWork(*(graph.flops for graph in graphs)), BlockWork(*(graph.decompressed_bytes for graph in graphs))


@dataclass(frozen=True)
class ModelGraphs:
    """Of all kinds of a model's layers, for sequences of `seq_len` tokens, and of the tables that they read."""

    model: Model
    kinds: Mapping[str, KindGraphs]
    tables: TableGraph
    seq_len: int


@dataclass(frozen=True)
class Setting:
    """What a model's blocks are captured with. `tile` as in Projections, of an MLP's matrices."""

    model: Model
    lora: LoraConfig
    quantization: QuantizationConfig
    seq_len: int
    tile: int | None = None


def capture_blocks(setting: Setting) -> ModelGraphs:
    """Captures a block of each kind and its derivative once, and takes the four graphs out of it.

    Raises UnsupportedModelError when the group size does not divide a matrix.
    """
    model = setting.model
    tables = capture_tables(step_tables(model.config, setting.seq_len), setting.seq_len)
    hidden = (setting.seq_len, model.config.hidden_size)
    kinds: dict[str, KindGraphs] = {}
    crossing: dict[str, tuple[int, ...]] = {}
    for place, kind in model.walk():
        if kind.name not in kinds:
            shapes = {"h": hidden, "g": hidden} | bound_shapes(kind, place, tables.shapes, crossing)
            kinds[kind.name] = split(*_capture_joint(setting, kind, shapes))
        crossing |= given_shapes(kind, place, kinds[kind.name].forward)
    return ModelGraphs(model, kinds, tables, setting.seq_len)


Shapes = Mapping[str, tuple[int, ...]]


def bound_shapes(kind: BlockKind, place: Place, tables: Shapes, crossing: Shapes) -> dict[str, tuple[int, ...]]:
    reads = {name: tables[place.reads[name]] for name in kind.reads if place.reads[name] in tables}
    return reads | {name: crossing[place.takes[name]] for name in kind.takes}


def given_shapes(kind: BlockKind, place: Place, graph: CapturedGraph) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(node.meta["val"].shape) for name, node in zip(graph.outputs, graph.results)}
    return {place.gives[name]: shapes[name] for name in kind.gives if name in place.gives}


def _capture_joint(setting: Setting, kind: BlockKind, shapes: Shapes) -> tuple[CapturedGraph, BlockKind, tuple[AdapterMatrix, ...]]:
    """(h_next, *gives, g_next, *d_takes, d_adapter) of all inputs; each distinct: make_fx takes one tensor passed twice for one input."""
    matrices, tensors = kind_matrices(kind, setting.lora), kind_tensors(kind, setting.quantization)
    examples = {name: torch.zeros(shape) for name, shape in shapes.items()}
    gives = _probe(setting, kind, examples)
    examples |= {GRADIENT + name: torch.zeros(value.shape) for name, value in gives.items()}
    examples |= {**kind.consts, "adapter": torch.zeros(vector_size(matrices)), **_zeros(tensors)}
    reads = [name for name in kind.reads if name in shapes]
    names = ("h", "g", *reads, *kind.takes, *(GRADIENT + name for name in kind.gives), *kind.consts, "adapter", *tensors)

    def joint(*args: Tensor) -> tuple[Tensor, ...]:
        x = dict(zip(names, args))
        weights, fixed = {name: x[name] for name in tensors}, {name: x[name] for name in (*reads, *kind.consts)}

        def block(h: Tensor, takes: Mapping[str, Tensor], lora: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
            return kind.block({"h": h, **takes, **fixed}, weights, Projections(weights, lora, setting.lora.scaling, setting.tile))

        # The gradient is taken by each matrix and concatenated once; by the flat vector it would be a sum of padded slices.
        takes, lora = {name: x[name] for name in kind.takes}, matrix_views(matrices, x["adapter"])
        result: tuple[Any, ...] = torch.func.vjp(block, x["h"], takes, lora)
        outputs, vjp = result
        dh, d_takes, d_lora = vjp((x["g"], *(x[GRADIENT + name] for name in kind.gives)))
        return *outputs, dh, *(d_takes[name] for name in kind.takes), torch.cat([d_lora[m.name].reshape(-1) for m in matrices])

    results = ("h_next", *kind.gives, "g_next", *(GRADIENT + name for name in kind.takes), "d_adapter")
    return capture(joint, [examples[name] for name in names], names, results), kind, matrices


def _probe(setting: Setting, kind: BlockKind, examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the block gives, without data: its shapes are known by running it."""
    if not kind.gives:
        return {}
    meta = {name: tensor.to("meta") for name, tensor in {**examples, **kind.consts}.items()}
    tensors = {name: tensor.to("meta") for name, tensor in _zeros(kind_tensors(kind, setting.quantization)).items()}
    matrices = kind_matrices(kind, setting.lora)
    lora = matrix_views(matrices, torch.zeros(vector_size(matrices), device="meta"))
    _, *given = kind.block(meta, tensors, Projections(tensors, lora, setting.lora.scaling))
    return dict(zip(kind.gives, given, strict=True))


def _zeros(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    return {name: torch.zeros(shape, dtype=getattr(torch, dtype)) for name, (dtype, shape) in tensors.items()}


def split(joint: CapturedGraph, kind: BlockKind, matrices: tuple[AdapterMatrix, ...]) -> KindGraphs:
    """(h_next, *gives, g_next, *d_takes, d_adapter) of (h, g, …) -> the four graphs."""
    decompress_for_each_sweep(joint.graph)
    results = dict(zip(joint.outputs, joint.results))
    up = {name: results[name] for name in ("h_next", *kind.gives)}
    down = {name: node for name, node in results.items() if name not in up}
    inputs = dict(zip(joint.placeholders, joint.inputs))
    incoming = ("g", *(GRADIENT + name for name in kind.gives))
    forward_inputs = {node: name for node, name in inputs.items() if name not in incoming}
    kept = {node: f"{KEPT}{number}" for number, node in enumerate(values_to_keep(joint, incoming, list(down.values())))}
    return KindGraphs(
        kind,
        matrices,
        forward=extract(joint, forward_inputs, up),
        backward=extract(joint, inputs, down),
        forward_keep=extract(joint, forward_inputs, up | {name: node for node, name in kept.items()}),
        backward_kept=extract(joint, inputs | kept, down),
        kept=tuple(kept.values()),
    )


@dataclass(frozen=True)
class KindDecoding:
    """A kind's graphs for generation. `prefill`: a forward's inputs -> `h_next`, what the block gives, and its states, of T tokens.
    `decode`: one token, h [1, D], the tables of one token, `past_STATE` for each state -> `h_next` [1, D], what it gives, and for each
    state the token's place or the new whole."""

    prefill: CapturedGraph
    decode: CapturedGraph


@dataclass(frozen=True)
class DecodeGraphs:
    kinds: Mapping[str, KindDecoding]
    tables: TableGraph


class _Prompt:
    """The memory of a prefill."""

    decoding = False

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def past(self, name: str) -> Tensor:
        raise KeyError(name)

    def keep(self, name: str, value: Tensor) -> None:
        self.kept[name] = value


class _Token(_Prompt):
    """The memory of one further token."""

    decoding = True

    def __init__(self, past: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._past = past

    def past(self, name: str) -> Tensor:
        return self._past[name]


def state_shape(kind: BlockKind, name: str, seq_len: int) -> tuple[int, ...]:
    """Of the whole state."""
    state = kind.states[name]
    return (seq_len, *state.shape) if state.by_position else state.shape


def capture_decoding(setting: Setting) -> DecodeGraphs:
    model, t = setting.model, setting.seq_len
    prompt_tables = capture_tables(step_tables(model.config, t), t)
    tables = capture_tables(token_tables(model.config, t), 1)
    kinds: dict[str, KindDecoding] = {}
    prompt: dict[str, tuple[int, ...]] = {}  # what crosses layers, in a prefill
    token: dict[str, tuple[int, ...]] = {}  # and when one token is decoded
    for place, kind in model.walk():
        if kind.name not in kinds:
            wide = {"h": (t, model.config.hidden_size)} | bound_shapes(kind, place, prompt_tables.shapes, prompt)
            one = {"h": (1, model.config.hidden_size)} | bound_shapes(kind, place, tables.shapes, token)
            past = {PAST + name: state_shape(kind, name, t) for name in kind.states}
            kinds[kind.name] = KindDecoding(_capture_with_memory(setting, kind, wide, {}), _capture_with_memory(setting, kind, one, past))
        prompt |= given_shapes(kind, place, kinds[kind.name].prefill)
        token |= given_shapes(kind, place, kinds[kind.name].decode)
    return DecodeGraphs(kinds, tables)


def _capture_with_memory(setting: Setting, kind: BlockKind, shapes: Shapes, past: Shapes) -> CapturedGraph:
    """A prefill, or with `past` the decoding of one token. The inputs that it does not need are left out."""
    matrices, tensors = kind_matrices(kind, setting.lora), kind_tensors(kind, setting.quantization)
    examples = {name: torch.zeros(shape) for name, shape in {**shapes, **past}.items()}
    examples |= {**kind.consts, "adapter": torch.zeros(vector_size(matrices)), **_zeros(tensors)}
    names = tuple(examples)

    def run(*args: Tensor) -> tuple[Tensor, ...]:
        x = dict(zip(names, args))
        weights = {name: x[name] for name in tensors}
        memory: _Prompt = _Token({name: x[PAST + name] for name in kind.states}) if past else _Prompt()
        linear = Projections(weights, matrix_views(matrices, x["adapter"]), setting.lora.scaling, setting.tile)
        values = {name: x[name] for name in (*shapes, *kind.consts)}
        outputs = kind.block(values, weights, linear, memory)
        return *outputs, *(memory.kept[name] for name in kind.states)

    graph = capture(run, list(examples.values()), names, ("h_next", *kind.gives, *kind.states))
    return extract(graph, dict(zip(graph.placeholders, graph.inputs)), dict(zip(graph.outputs, graph.results)))
