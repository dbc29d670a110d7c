"""The block programs of a bundle: which there are, and what each takes and returns, whatever target they are written for.

One set serves every layer, subset and depth. The host feeds the weights in place from the mapped `weights.bin`; the manifest
says which tensor goes into which input. docs/onnxruntime.md is the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from lcsb_mobile.bundle.adapter import vector_size
from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.programs import ANY, GRADIENT, PAST, UPDATE, Role
from lcsb_mobile.bundle.weights import layer_tensor
from lcsb_mobile.export.graphs.blocks import DecodeGraphs, KindDecoding, KindGraphs, bound_shapes, given_shapes, state_shape
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.target import ExportRequest

Tensors = Sequence[GraphTensor]


class BlockProgramWriter(ABC):
    """Walks the programs in turn; a target writes each. `write` returns the description of each, by name."""

    def __init__(self, request: ExportRequest) -> None:
        self.request, self.parts = request, request.parts
        self.config, t = self.parts.config, self.parts.seq_len
        self.hidden = (t, self.config.hidden_size)
        self.h = GraphTensor("h", "float32", self.hidden, "the block's input")
        self.h_next = GraphTensor("h_next", "float32", self.hidden, "the block's output")
        self.batch: tuple[GraphTensor, ...] = (
            GraphTensor("input_ids", "int64", (t,), "tokens"),
            GraphTensor("position_ids", "int64", (t,), "position within the example, from 0"),
            GraphTensor("segment_ids", "int64", (t,), "which packed example a token belongs to; no token sees one of another"),
        )

    def write(self) -> dict[str, Graph]:
        decoding = self.request.decoding()
        self._embed(decoding)
        self._blocks()
        self._heads()
        self._decoding(decoding)
        self._adamw()
        return self.finish()

    # What a target does

    @abstractmethod
    def embedding(self, name: str, inputs: Tensors, outputs: Tensors, graph: TableGraph) -> None:
        """(`input_ids` and what the tables come of) -> h[0] of the tokens, and the tables of `graph`, in its order."""

    @abstractmethod
    def block(self, kind: BlockKind, role: Role, captured: CapturedGraph, inputs: Tensors, outputs: Tensors) -> None:
        """`inputs`: those that the graph needs. What is float16 among inputs and outputs and no weight is float32 in the graph."""

    @abstractmethod
    def head(self, name: str, inputs: Tensors, outputs: Tensors, gradient: bool) -> None:
        """(h[L], labels) -> loss and, with `gradient`, d loss / d h[L]. The formula is `export.graphs.head.cross_entropy`."""

    @abstractmethod
    def logits(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        """h[L] of one token -> the logits of the next."""

    @abstractmethod
    def update(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        """`optimizer.update_layer` in the same operations."""

    @abstractmethod
    def finish(self) -> dict[str, Graph]:
        """The description of each program, once all were written."""

    # Which programs there are

    def _embed(self, decoding: DecodeGraphs) -> None:
        """With those tables that the layers' programs need, of training or of a prompt."""
        needed: dict[str, None] = {}
        for place, kind in self.parts.model.walk():
            graphs = self.parts.blocks.kinds[kind.name]
            used = {
                *graphs.forward.inputs,
                *graphs.backward.inputs,
                *graphs.backward_kept.inputs,
                *decoding.kinds[kind.name].prefill.inputs,
            }
            needed |= {place.reads[name]: None for name in kind.reads if name in used}
        self._embedding("embed", self.batch, self.hidden, self.parts.blocks.tables.only(needed))

    def _embedding(self, name: str, inputs: Tensors, hidden: tuple[int, ...], graph: TableGraph) -> None:
        outputs = [GraphTensor("h", "float32", hidden, "h[0]")]
        outputs += [GraphTensor(table, "float32", shape, "a table that layers read") for table, shape in graph.shapes.items()]
        self.embedding(name, inputs, outputs, graph)

    def _blocks(self) -> None:
        """Layers of one kind bind tables and values of one shape, so the first of them speaks for all."""
        crossing: dict[str, tuple[int, ...]] = {}
        done: set[str] = set()
        for place, kind in self.parts.model.walk():
            graphs = self.parts.blocks.kinds[kind.name]
            if kind.name not in done:
                shapes = bound_shapes(kind, place, self.parts.blocks.tables.shapes, crossing)
                self._kind(graphs, self._bound(kind, shapes))
                done.add(kind.name)
            crossing |= given_shapes(kind, place, graphs.forward)

    def _kind(self, graphs: KindGraphs, bound: Tensors) -> None:
        kind = graphs.kind
        gives = _gives(kind, graphs.forward)
        adapter = self._adapter(kind)
        forward = [self.h, *bound, adapter, *self._weights(kind)]
        backward = [self.h, GraphTensor("g", "float32", self.hidden, "d loss / d output"), *_gradients(gives), *forward[1:]]
        gradients = [
            GraphTensor("g_next", "float32", self.hidden, "d loss / d h"),
            *_gradients([x for x in bound if x.name in kind.takes]),
            GraphTensor("d_adapter", "float32", adapter.shape, "d loss / d adapter"),
        ]
        shapes = {output: node.meta["val"].shape for output, node in zip(graphs.forward_keep.outputs, graphs.forward_keep.results)}
        kept = [self._kept(output, shapes[output]) for output in graphs.kept]
        up = [self.h_next, *gives]
        self._block(kind, "forward", graphs.forward, forward, up)
        self._block(kind, "backward", graphs.backward, backward, gradients)
        self._block(kind, "forward_keep", graphs.forward_keep, forward, [*up, *kept])
        self._block(kind, "backward_kept", graphs.backward_kept, [*backward, *kept], gradients)

    def _block(self, kind: BlockKind, role: Role, captured: CapturedGraph, inputs: Tensors, outputs: Tensors) -> None:
        self.block(kind, role, captured, [x for x in inputs if x.name in captured.inputs], outputs)

    def _adapter(self, kind: BlockKind) -> GraphTensor:
        size = vector_size(self.parts.layout.matrices[kind.name])
        return GraphTensor("adapter", "float32", (size,), "the layer's LoRA matrices")

    def _weights(self, kind: BlockKind) -> list[GraphTensor]:
        prefix = layer_tensor(kind.name, "")
        own = [w for w in self.parts.table if w.name.startswith(prefix)]
        return [GraphTensor(w.name.removeprefix(prefix), w.dtype, w.shape[1:], "the layer's slice", w.name) for w in own]

    def _bound(self, kind: BlockKind, shapes: Mapping[str, tuple[int, ...]]) -> list[GraphTensor]:
        reads = [GraphTensor(name, "float32", shapes[name], "a table that the layer reads") for name in kind.reads if name in shapes]
        return reads + [GraphTensor(name, "float32", shapes[name], "what an earlier layer gave") for name in kind.takes]

    def _kept(self, name: str, shape: Sequence[int]) -> GraphTensor:
        """float16 but for the residual stream, whose values grow with depth beyond what float16 resolves or holds, and for GPUs, of which
        not all have float16."""
        wide = tuple(shape) == self.hidden or self.request.programs == "gpu"
        dtype = "float32" if wide else "float16"
        return GraphTensor(name, dtype, tuple(shape), "kept by the forward for the backward")

    def _heads(self) -> None:
        h = GraphTensor("h", "float32", self.hidden, "h[L]")
        labels = GraphTensor("labels", "int64", (self.parts.seq_len,), "the token to predict at each position; -100 is not counted")
        loss = GraphTensor("loss", "float32", (), "mean cross-entropy over the counted labels")
        g = GraphTensor("g", "float32", self.hidden, "d loss / d h[L]")
        self.head("head", [h, labels], [loss, g], gradient=True)
        self.head("head_eval", [h, labels], [loss], gradient=False)

    def _decoding(self, graphs: DecodeGraphs) -> None:
        one = [GraphTensor("input_ids", "int64", (1,), "the token"), GraphTensor("position_ids", "int64", (1,), "its position")]
        row = (1, self.config.hidden_size)
        needed: dict[str, None] = {}
        wide: dict[str, tuple[int, ...]] = {}
        narrow: dict[str, tuple[int, ...]] = {}
        done: set[str] = set()
        for place, kind in self.parts.model.walk():
            own = graphs.kinds[kind.name]
            needed |= {place.reads[name]: None for name in kind.reads if name in own.decode.inputs}
            if kind.name not in done:
                prompt = self._bound(kind, bound_shapes(kind, place, self.parts.blocks.tables.shapes, wide))
                token = self._bound(kind, bound_shapes(kind, place, graphs.tables.shapes, narrow))
                self._kind_decoding(kind, own, prompt, token)
                done.add(kind.name)
            wide |= given_shapes(kind, place, own.prefill)
            narrow |= given_shapes(kind, place, own.decode)
        self._embedding("decode_embed", one, row, graphs.tables.only(needed))
        logits = GraphTensor("logits", "float32", (self.config.vocab_size,), "of the next token")
        self.logits("logits", [GraphTensor("h", "float32", row, "h[L] of one token")], [logits])

    def _kind_decoding(self, kind: BlockKind, graphs: KindDecoding, prompt: Tensors, token: Tensors) -> None:
        t, row = self.parts.seq_len, (1, self.config.hidden_size)
        h, h_next = (GraphTensor(x.name, x.dtype, row, x.meaning) for x in (self.h, self.h_next))
        weights = (self._adapter(kind), *self._weights(kind))
        shapes = {name: state_shape(kind, name, t) for name in kind.states}
        whole = [GraphTensor(name, "float32", shape, "what is remembered of the prompt") for name, shape in shapes.items()]
        past = [GraphTensor(PAST + name, "float32", shape, "what is remembered") for name, shape in shapes.items()]
        new = [
            GraphTensor(name, "float32", (1, *state.shape), "of this token, for its place")
            if state.by_position
            else GraphTensor(name, "float32", state.shape, "what is to be remembered instead")
            for name, state in kind.states.items()
        ]
        outputs = [self.h_next, *_gives(kind, graphs.prefill), *whole]
        self._block(kind, "prefill", graphs.prefill, [self.h, *prompt, *weights], outputs)
        outputs = [h_next, *_gives(kind, graphs.decode), *new]
        self._block(kind, "decode", graphs.decode, [h, *token, *past, *weights], outputs)

    def _adamw(self) -> None:
        n = (ANY,)
        state = {"parameters": "the layer's LoRA matrices", "first_moment": "AdamW's", "second_moment": "AdamW's"}
        inputs = [GraphTensor(name, "float32", n, meaning) for name, meaning in state.items()]
        inputs.append(GraphTensor("gradient", "float32", n, "already clipped; zero for a layer that the step does not train"))
        scalars = {
            "decay": "1 - rate * weight decay",
            "rate": "rate / (1 - beta1^t), t counting this layer's updates from 1",
            "root": "sqrt(1 - beta2^t)",
        }
        inputs += [GraphTensor(name, "float32", (), meaning) for name, meaning in scalars.items()]
        outputs = [GraphTensor(f"{name}_next", "float32", n, meaning) for name, meaning in state.items()]
        self.update(UPDATE, inputs, outputs)


def _gives(kind: BlockKind, graph: CapturedGraph) -> list[GraphTensor]:
    shapes = {name: tuple(node.meta["val"].shape) for name, node in zip(graph.outputs, graph.results)}
    return [GraphTensor(name, "float32", shapes[name], "for later layers to take") for name in kind.gives]


def _gradients(tensors: Tensors) -> list[GraphTensor]:
    return [GraphTensor(GRADIENT + x.name, x.dtype, x.shape, f"d loss / d {x.name}") for x in tensors]
