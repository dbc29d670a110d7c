"""Block programs for any maintained ONNX Runtime: small ONNX models whose weights are inputs, run by a host's loop over the layers.

One set serves every layer, subset and depth. The host feeds the weights in place from the mapped `weights.bin`; the manifest
says which tensor goes into which input. docs/onnxruntime.md is the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from lcsb_mobile.bundle.adapter import vector_size
from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.programs import ANY, GRADIENT, PAST, UPDATE, program_name
from lcsb_mobile.bundle.weights import layer_tensor
from lcsb_mobile.config import AdamWConfig, ModelConfig
from lcsb_mobile.export.graphs.blocks import DecodeGraphs, KindDecoding, KindGraphs, bound_shapes, given_shapes, state_shape
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.models import Model
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.onnx.graph_builder import DTYPES, GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.lowering import lower
from lcsb_mobile.export.onnx.products import export_gemm
from lcsb_mobile.export.onnx.settings import runtime_settings
from lcsb_mobile.export.onnx.step_graph import const_feeds, embed, final_norm, head, row_logits, tables
from lcsb_mobile.export.onnx.working_set import working_bytes
from lcsb_mobile.export.target import ExportRequest

__all__ = ["TOOLS", "check_model", "export_programs", "import_tools", "runtime_settings"]

TOOLS: tuple[str, ...] = ()

INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level

Build = Callable[[GraphBuilder, Mapping[str, ir.Value]], Sequence[ir.Value]]


def import_tools() -> None:
    """Nothing but what this module imports."""


def check_model(model: Model) -> None:
    """Layers of any kinds: the host's loop walks them."""


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the programs beside `weights.bin`. Returns the description of each, by its file's stem."""
    programs = _Programs(request.directory, request.parts)
    decoding = request.decoding()
    programs.embed(decoding)
    programs.blocks()
    programs.heads()
    programs.decoding(decoding)
    programs.adamw(request.optimizer)
    return programs.written | export_gemm(request.directory)


@dataclass
class _Programs:
    """Writes one program after the other; `written` describes those that are done."""

    directory: Path
    parts: StepParts

    def __post_init__(self) -> None:
        config, t = self.parts.config, self.parts.seq_len
        self.config: ModelConfig = config
        self.written: dict[str, Graph] = {}
        self.hidden = (t, config.hidden_size)
        self.h = GraphTensor("h", "float32", self.hidden, "the block's input")
        self.h_next = GraphTensor("h_next", "float32", self.hidden, "the block's output")
        self.batch = (
            GraphTensor("input_ids", "int64", (t,), "tokens"),
            GraphTensor("position_ids", "int64", (t,), "position within the example, from 0"),
            GraphTensor("segment_ids", "int64", (t,), "which packed example a token belongs to; no token sees one of another"),
        )

    def embed(self, decoding: DecodeGraphs) -> None:
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
        self.embedding("embed", self.batch, self.hidden, self.parts.blocks.tables.only(needed))

    def embedding(self, name: str, inputs: Sequence[GraphTensor], hidden: tuple[int, ...], graph: TableGraph) -> None:
        outputs = [GraphTensor("h", "float32", hidden, "h[0]")]
        outputs += [GraphTensor(table, "float32", shape, "a table that layers read") for table, shape in graph.shapes.items()]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
            made = tables(b, self.parts, graph, feeds)
            return [embed(b, self.parts, feeds["input_ids"]), *made.values()]

        self.write(name, inputs, outputs, build)

    def blocks(self) -> None:
        """Layers of one kind bind tables and values of one shape, so the first of them speaks for all."""
        crossing: dict[str, tuple[int, ...]] = {}
        for place, kind in self.parts.model.walk():
            graphs = self.parts.blocks.kinds[kind.name]
            if f"{kind.name}_forward" not in self.written:
                shapes = bound_shapes(kind, place, self.parts.blocks.tables.shapes, crossing)
                self.kind(graphs, self.bound(kind, shapes))
            crossing |= given_shapes(kind, place, graphs.forward)

    def kind(self, graphs: KindGraphs, bound: Sequence[GraphTensor]) -> None:
        kind, name = graphs.kind, graphs.kind.name
        gives = _gives(kind, graphs.forward)
        adapter = self.adapter(kind)
        forward = [self.h, *bound, adapter, *self.weights(kind)]
        backward = [self.h, GraphTensor("g", "float32", self.hidden, "d loss / d output"), *_gradients(gives), *forward[1:]]
        gradients = [
            GraphTensor("g_next", "float32", self.hidden, "d loss / d h"),
            *_gradients([x for x in bound if x.name in kind.takes]),
            GraphTensor("d_adapter", "float32", adapter.shape, "d loss / d adapter"),
        ]
        shapes = {output: node.meta["val"].shape for output, node in zip(graphs.forward_keep.outputs, graphs.forward_keep.results)}
        kept = [self.kept(output, shapes[output]) for output in graphs.kept]
        up = [self.h_next, *gives]
        if (int8 := self.parts.int8_forward.get(name)) is None:
            self.lowered(program_name(name, "forward"), kind, graphs.forward, forward, up)
        else:
            self.int8_forward(kind, int8, forward, up)
        self.lowered(program_name(name, "backward"), kind, graphs.backward, backward, gradients)
        self.lowered(program_name(name, "forward_keep"), kind, graphs.forward_keep, forward, [*up, *kept])
        self.lowered(program_name(name, "backward_kept"), kind, graphs.backward_kept, [*backward, *kept], gradients)

    def adapter(self, kind: BlockKind) -> GraphTensor:
        size = vector_size(self.parts.layout.matrices[kind.name])
        return GraphTensor("adapter", "float32", (size,), "the layer's LoRA matrices")

    def weights(self, kind: BlockKind) -> list[GraphTensor]:
        prefix = layer_tensor(kind.name, "")
        own = [w for w in self.parts.table if w.name.startswith(prefix)]
        return [GraphTensor(w.name.removeprefix(prefix), w.dtype, w.shape[1:], "the layer's slice", w.name) for w in own]

    def bound(self, kind: BlockKind, shapes: Mapping[str, tuple[int, ...]]) -> list[GraphTensor]:
        reads = [GraphTensor(name, "float32", shapes[name], "a table that the layer reads") for name in kind.reads if name in shapes]
        return reads + [GraphTensor(name, "float32", shapes[name], "what an earlier layer gave") for name in kind.takes]

    def int8_forward(self, kind: BlockKind, captured: CapturedGraph, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> None:
        """A forward whose matrices are constants: without them ONNX Runtime computes in float whatever level is asked for."""
        tensors = {w.name: w for w in self.parts.table}
        inputs = [x for x in inputs if x.name in captured.inputs]
        fed = [x for x in inputs if x.weight is None or not x.name.endswith((".packed", ".scale"))]
        constant = [x for x in inputs if x not in fed]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> Sequence[ir.Value]:
            matrices = {x.name: b.layer_weight(x.name, tensors[str(x.weight)]) for x in constant}
            return lower(b, captured, {**feeds, **matrices, **const_feeds(b, captured, kind.consts)}, INT8_ACTIVATIONS)

        self.write(program_name(kind.name, "forward"), fed, outputs, build, constant)

    def kept(self, name: str, shape: Sequence[int]) -> GraphTensor:
        """float16 but for the residual stream, whose values grow with depth beyond what float16 resolves or holds."""
        dtype = "float32" if tuple(shape) == self.hidden else "float16"
        return GraphTensor(name, dtype, tuple(shape), "kept by the forward for the backward")

    def heads(self) -> None:
        h = GraphTensor("h", "float32", self.hidden, "h[L]")
        labels = GraphTensor("labels", "int64", (self.parts.seq_len,), "the token to predict at each position; -100 is not counted")
        loss = GraphTensor("loss", "float32", (), "mean cross-entropy over the counted labels")
        g = GraphTensor("g", "float32", self.hidden, "d loss / d h[L]")
        self.write("head", [h, labels], [loss, g], lambda b, feeds: head(b, self.parts, feeds["h"], feeds["labels"], gradient=True))
        self.write("head_eval", [h, labels], [loss], lambda b, feeds: head(b, self.parts, feeds["h"], feeds["labels"], gradient=False))

    def decoding(self, graphs: DecodeGraphs) -> None:
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
                self.kind_decoding(
                    kind,
                    own,
                    *(
                        self.bound(kind, bound_shapes(kind, place, *x))
                        for x in ((self.parts.blocks.tables.shapes, wide), (graphs.tables.shapes, narrow))
                    ),
                )
                done.add(kind.name)
            wide |= given_shapes(kind, place, own.prefill)
            narrow |= given_shapes(kind, place, own.decode)
        self.embedding("decode_embed", one, row, graphs.tables.only(needed))
        logits = GraphTensor("logits", "float32", (self.config.vocab_size,), "of the next token")
        last = GraphTensor("h", "float32", row, "h[L] of one token")
        self.write("logits", [last], [logits], lambda b, feeds: [row_logits(b, self.parts, final_norm(b, self.parts, feeds["h"]))])

    def kind_decoding(self, kind: BlockKind, graphs: KindDecoding, prompt: Sequence[GraphTensor], token: Sequence[GraphTensor]) -> None:
        t, row = self.parts.seq_len, (1, self.config.hidden_size)
        h, h_next = (GraphTensor(x.name, x.dtype, row, x.meaning) for x in (self.h, self.h_next))
        weights = (self.adapter(kind), *self.weights(kind))
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
        self.lowered(program_name(kind.name, "prefill"), kind, graphs.prefill, [self.h, *prompt, *weights], outputs)
        outputs = [h_next, *_gives(kind, graphs.decode), *new]
        self.lowered(program_name(kind.name, "decode"), kind, graphs.decode, [h, *token, *past, *weights], outputs)

    def adamw(self, config: AdamWConfig) -> None:
        """`optimizer.update_layer` in the same operations, so in the same bits where the runtime rounds its square root correctly."""
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

        def build(b: GraphBuilder, x: Mapping[str, ir.Value]) -> list[ir.Value]:
            beta1, beta2 = config.betas
            gradient = x["gradient"]
            first = b.op("Add", b.op("Mul", x["first_moment"], b.scalar(beta1)), b.op("Mul", gradient, b.scalar(1 - beta1)))
            square = b.op("Mul", b.op("Mul", gradient, gradient), b.scalar(1 - beta2))
            second = b.op("Add", b.op("Mul", x["second_moment"], b.scalar(beta2)), square)
            denominator = b.op("Add", b.op("Div", b.op("Sqrt", second), x["root"]), b.scalar(config.eps))
            update = b.op("Mul", b.op("Div", first, denominator), x["rate"])
            return [b.op("Sub", b.op("Mul", x["parameters"], x["decay"]), update), first, second]

        sizes = [vector_size(matrices) for matrices in self.parts.layout.matrices.values()]
        self.write(UPDATE, inputs, outputs, build, free=max(sizes))

    def lowered(
        self, name: str, kind: BlockKind, captured: CapturedGraph, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
    ) -> None:
        """A captured graph as a program. Its tensors are float32; a float16 one of the program is converted on its way in or out."""
        needed = [x for x in inputs if x.name in captured.inputs]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
            halves = {x.name for x in needed if x.dtype == "float16" and x.weight is None}
            wide = {name: b.op("Cast", x, to=DTYPES["float32"].value) if name in halves else x for name, x in feeds.items()}
            results = lower(b, captured, {**wide, **const_feeds(b, captured, kind.consts)})
            return [b.op("Cast", r, to=DTYPES["float16"].value) if o.dtype == "float16" else r for r, o in zip(results, outputs)]

        self.write(name, needed, outputs, build)

    def write(
        self,
        name: str,
        inputs: Sequence[GraphTensor],
        outputs: Sequence[GraphTensor],
        build: Build,
        initializers: Sequence[GraphTensor] = (),
        free: int | None = None,
    ) -> None:
        """`free`: the largest size that a dimension has which the program leaves open."""
        b = GraphBuilder(weights_as_inputs=True)
        feeds = {x.name: value(x.name, x.dtype, _open(x.shape)) for x in inputs}
        results = build(b, feeds)
        whole = [w for w in self.parts.table if w.name in (b.weight_inputs or {})]
        values = [*feeds.values(), *(b.weight(w) for w in whole)]
        path = self.directory / f"{name}.onnx"
        save_model(b, path, values, {o.name: (r, o.dtype, _open(o.shape)) for o, r in zip(outputs, results, strict=True)})
        described = (*inputs, *(GraphTensor(w.name, w.dtype, w.shape, "the whole tensor", w.name) for w in whole))
        self.written[name] = Graph(path.name, described, tuple(outputs), tuple(initializers), working_bytes(path, free))


def _gives(kind: BlockKind, graph: CapturedGraph) -> list[GraphTensor]:
    shapes = {name: tuple(node.meta["val"].shape) for name, node in zip(graph.outputs, graph.results)}
    return [GraphTensor(name, "float32", shapes[name], "for later layers to take") for name in kind.gives]


def _gradients(tensors: Sequence[GraphTensor]) -> list[GraphTensor]:
    return [GraphTensor(GRADIENT + x.name, x.dtype, x.shape, f"d loss / d {x.name}") for x in tensors]


def _open(shape: Sequence[int]) -> list[int | str]:
    """Free dimensions by a name."""
    return ["n" if size == ANY else size for size in shape]
