"""Block programs for any maintained ONNX Runtime: small ONNX models whose weights are inputs, run by a host's loop over the layers.

One set serves every layer, subset and depth. The host feeds the weights in place from the mapped `weights.bin`; the manifest
says which tensor goes into which input. docs/onnxruntime.md is the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.weights import LAYERS
from lcsb_mobile.config import AdamWConfig, ModelConfig
from lcsb_mobile.export.graphs.blocks import DecodeGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.models.layers import MASKED
from lcsb_mobile.export.onnx.graph_builder import DTYPES, GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.lowering import lower
from lcsb_mobile.export.onnx.products import export_gemm
from lcsb_mobile.export.onnx.settings import runtime_settings
from lcsb_mobile.export.onnx.step_graph import attention_inputs, embed, final_norm, head, row_logits
from lcsb_mobile.export.onnx.working_set import working_bytes
from lcsb_mobile.export.target import ExportRequest

__all__ = ["TOOLS", "export_programs", "import_tools", "runtime_settings"]

TOOLS: tuple[str, ...] = ()

INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level

Build = Callable[[GraphBuilder, Mapping[str, ir.Value]], Sequence[ir.Value]]


def import_tools() -> None:
    """Nothing but what this module imports."""


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the programs beside `weights.bin`. Returns the description of each, by its file's stem."""
    programs = _Programs(request.directory, request.parts)
    programs.embed()
    programs.blocks()
    programs.heads()
    programs.decoding(request.decoding())
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
        self.kinds = range(len(config.attention_kinds))
        self.hidden = (t, config.hidden_size)
        self.cache = (t, config.num_key_value_heads, config.head_dim)
        self.h = GraphTensor("h", "float32", self.hidden, "the block's input")
        self.h_next = GraphTensor("h_next", "float32", self.hidden, "the block's output")
        self.adapter = GraphTensor("adapter", "float32", (self.parts.layout.size,), "the layer's LoRA matrices")
        self.layer_weights = tuple(
            GraphTensor(w.name.removeprefix(LAYERS), w.dtype, w.shape[1:], "the layer's slice", w.name)
            for w in self.parts.table
            if w.per_layer
        )
        self.batch = (
            GraphTensor("input_ids", "int64", (t,), "tokens"),
            GraphTensor("position_ids", "int64", (t,), "position within the example, from 0"),
            GraphTensor("segment_ids", "int64", (t,), "which packed example a token belongs to; attention stays within it"),
        )

    def attention(self, rows: int, columns: int) -> tuple[GraphTensor, ...]:
        return (
            GraphTensor("cos", "float32", (rows, self.config.head_dim), "RoPE at the tokens' positions, of the layer's kind"),
            GraphTensor("sin", "float32", (rows, self.config.head_dim), "likewise"),
            GraphTensor("mask", "float32", (rows, columns), "additive attention mask, of the layer's kind"),
        )

    def by_kind(self, tensors: Sequence[GraphTensor]) -> list[GraphTensor]:
        """A program of its own makes them for all kinds of layers: `cos.0`, `cos.1` and so on."""
        return [
            GraphTensor(f"{x.name}.{kind}", x.dtype, x.shape, f"`{x.name}` for layers of kind {kind}")
            for x in tensors
            for kind in self.kinds
        ]

    def embed(self) -> None:
        t = self.parts.seq_len
        outputs = [GraphTensor("h", "float32", self.hidden, "h[0]"), *self.by_kind(self.attention(t, t))]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
            tables = attention_inputs(b, self.parts, feeds["position_ids"], feeds["segment_ids"])
            rows = [_row(b, table, kind) for table in (tables.cos, tables.sin, tables.mask) for kind in self.kinds]
            return [embed(b, self.parts, feeds["input_ids"]), *rows]

        self.write("embed", self.batch, outputs, build)

    def blocks(self) -> None:
        t, blocks = self.parts.seq_len, self.parts.blocks
        forward = [self.h, *self.attention(t, t), self.adapter, *self.layer_weights]
        backward = [self.h, GraphTensor("g", "float32", self.hidden, "d loss / d output"), *forward[1:]]
        gradients = [
            GraphTensor("g_next", "float32", self.hidden, "d loss / d h"),
            GraphTensor("d_adapter", "float32", self.adapter.shape, "d loss / d adapter"),
        ]
        kept = [self.kept(name, node.meta["val"].shape) for name, node in zip(blocks.kept, blocks.forward_keep.results[1:])]
        if self.parts.int8_forward is None:
            self.lowered("block_forward", blocks.forward, forward, [self.h_next])
        else:
            self.int8_forward(self.parts.int8_forward, forward)
        self.lowered("block_backward", blocks.backward, backward, gradients)
        self.lowered("block_forward_keep", blocks.forward_keep, forward, [self.h_next, *kept])
        self.lowered("block_backward_kept", blocks.backward_kept, [*backward, *kept], gradients)

    def int8_forward(self, captured: CapturedGraph, inputs: Sequence[GraphTensor]) -> None:
        """`block_forward` whose matrices are constants: without them ONNX Runtime computes in float whatever level is asked for."""
        tensors = {w.name: w for w in self.parts.table}
        fed = [x for x in inputs if x.weight is None or not x.name.endswith((".packed", ".scale"))]
        constant = [x for x in inputs if x not in fed]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> Sequence[ir.Value]:
            matrices = {x.name: b.layer_weight(x.name, tensors[str(x.weight)]) for x in constant}
            return lower(b, captured, {**feeds, **matrices}, INT8_ACTIVATIONS)

        self.write("block_forward", fed, [self.h_next], build, constant)

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
        t = self.parts.seq_len
        h, h_next = (GraphTensor(x.name, x.dtype, (1, self.config.hidden_size), x.meaning) for x in (self.h, self.h_next))
        one = [GraphTensor("input_ids", "int64", (1,), "the token"), GraphTensor("position_ids", "int64", (1,), "its position")]
        outputs = [GraphTensor("h", "float32", h.shape, "h[0]"), *self.by_kind(self.attention(1, t + 1))]
        self.write("decode_embed", one, outputs, self.build_decode_embed)

        def keys_and_values(prefix: str, rows: int, meaning: str) -> list[GraphTensor]:
            shape = (rows, *self.cache[1:])
            return [GraphTensor(f"{prefix}{name}", "float32", shape, meaning) for name in ("keys", "values")]

        weights = (self.adapter, *self.layer_weights)
        found = keys_and_values("", t, "of all tokens, for the cache; keys after RoPE")
        self.lowered("block_prefill", graphs.prefill, [self.h, *self.attention(t, t), *weights], [self.h_next, *found])
        past = keys_and_values("past_", t, "the cache: one place a position")
        found = keys_and_values("", 1, "of this token, for its place in the cache")
        self.lowered("block_decode", graphs.decode, [h, *self.attention(1, t + 1), *past, *weights], [h_next, *found])
        logits = GraphTensor("logits", "float32", (self.config.vocab_size,), "of the next token")
        last = GraphTensor("h", "float32", h.shape, "h[L] of one token")
        self.write("logits", [last], [logits], lambda b, feeds: [row_logits(b, self.parts, final_norm(b, self.parts, feeds["h"]))])

    def build_decode_embed(self, b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
        """The mask has the cache's places before this position within the window, and the token itself."""
        t, position = self.parts.seq_len, feeds["position_ids"]
        tables = [b.op("Gather", b.weight(self.parts.weight(f"rope.{name}")), position, axis=1) for name in ("cos", "sin")]
        distance = b.op("Sub", position, b.const(np.arange(t), np.int64))  # [T]
        results = [_row(b, table, kind) for table in tables for kind in self.kinds]
        for kind in self.config.attention_kinds:
            visible = b.op("And", b.op("Greater", distance, b.ints(0)), b.op("Less", distance, b.ints(kind.window or t)))
            places = b.op("Where", visible, b.scalar(0.0), b.scalar(MASKED))
            mask = b.op("Concat", places, b.const([0.0], np.float32), axis=0)
            results.append(b.op("Reshape", mask, b.ints(1, t + 1)))
        return [embed(b, self.parts, feeds["input_ids"]), *results]

    def adamw(self, config: AdamWConfig) -> None:
        """`optimizer.update_layer` in the same operations, so in the same bits where the runtime rounds its square root correctly."""
        n = self.adapter.shape
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

        self.write("adamw", inputs, outputs, build)

    def lowered(self, name: str, captured: CapturedGraph, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> None:
        """A captured graph as a program. Its tensors are float32; a float16 one of the program is converted on its way in or out."""
        needed = [x for x in inputs if x.name in captured.inputs]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
            halves = {x.name for x in needed if x.dtype == "float16" and x.weight is None}
            wide = {name: b.op("Cast", x, to=DTYPES["float32"].value) if name in halves else x for name, x in feeds.items()}
            results = lower(b, captured, wide)
            return [b.op("Cast", r, to=DTYPES["float16"].value) if o.dtype == "float16" else r for r, o in zip(results, outputs)]

        self.write(name, needed, outputs, build)

    def write(
        self,
        name: str,
        inputs: Sequence[GraphTensor],
        outputs: Sequence[GraphTensor],
        build: Build,
        initializers: Sequence[GraphTensor] = (),
    ) -> None:
        b = GraphBuilder(weights_as_inputs=True)
        feeds = {x.name: value(x.name, x.dtype, x.shape) for x in inputs}
        results = build(b, feeds)
        whole = [w for w in self.parts.table if w.name in (b.weight_inputs or {})]
        values = [*feeds.values(), *(b.weight(w) for w in whole)]
        path = self.directory / f"{name}.onnx"
        save_model(b, path, values, {o.name: (r, o.dtype, o.shape) for o, r in zip(outputs, results, strict=True)})
        described = (*inputs, *(GraphTensor(w.name, w.dtype, w.shape, "the whole tensor", w.name) for w in whole))
        self.written[name] = Graph(path.name, described, tuple(outputs), tuple(initializers), working_bytes(path))


def _row(b: GraphBuilder, table: ir.Value, number: int) -> ir.Value:
    """[kinds, …] -> the one of a kind."""
    return b.op("Squeeze", b.op("Slice", table, b.ints(number), b.ints(number + 1), b.ints(0)), b.ints(0))
