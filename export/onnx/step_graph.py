"""The parts of a whole step as one ONNX graph: embedding, loops over the layers, the head.

Loops and branches carry the order of execution: recomputation inside a branch waits for its gradient, where in a flat graph
ONNX Runtime would do it first and keep it. Nothing grows with depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.weights import head_rows, layer_tensor, stored_for
from lcsb_mobile.export.graphs.blocks import KindGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.onnx.dequantize import dequantize, dequantize_on_gpu
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, loop_body, value
from lcsb_mobile.export.onnx.lowering import lower


def embed(b: GraphBuilder, parts: StepParts, input_ids: ir.Value) -> ir.Value:
    """int64 [T] -> h[0] [T, D]."""
    h = gather_rows(b, parts, "embed_tokens.weight", input_ids)
    scale = parts.config.embedding_scale
    return h if scale == 1.0 else b.op("Mul", h, b.scalar(scale))


def tables(b: GraphBuilder, parts: StepParts, graph: TableGraph, feeds: Mapping[str, ir.Value], wide: bool = True) -> dict[str, ir.Value]:
    """What the layers read, by name, of the token ids' positions and segments in `feeds`: int64 or, if not `wide`, int32."""
    stored = {w.name: b.weight(w) for w in parts.table if w.name in graph.graph.inputs}
    consts = graph.consts if wide else {name: x.int() if x.dtype == torch.int64 else x for name, x in graph.consts.items()}
    results = lower(b, graph.graph, {**feeds, **stored, **const_feeds(b, graph.graph, consts)})
    return dict(zip(graph.graph.outputs, results))


def const_feeds(b: GraphBuilder, graph: CapturedGraph, consts: Mapping[str, Tensor]) -> dict[str, ir.Value]:
    """Those that the graph needs, as constants of the program."""
    return {name: b.const(x.numpy(), x.numpy().dtype) for name, x in consts.items() if name in graph.inputs}


@dataclass(frozen=True)
class StackedReads:
    """What the layers of a model of one kind read: for each name the distinct tables stacked, and which of them is each layer's."""

    stacks: Mapping[str, ir.Value]
    numbers: Mapping[str, tuple[int, ...]]


def stacked_reads(b: GraphBuilder, parts: StepParts, feeds: Mapping[str, ir.Value]) -> StackedReads:
    made = tables(b, parts, parts.blocks.tables, feeds)
    stacks, numbers = {}, {}
    for name in parts.model.kinds[parts.model.places[0].kind].reads:
        bound = list(dict.fromkeys(place.reads[name] for place in parts.model.places))
        rows = [b.op("Unsqueeze", made[table], b.ints(0)) for table in bound]
        stacks[name] = rows[0] if len(rows) == 1 else b.op("Concat", *rows, axis=0)
        numbers[name] = tuple(bound.index(place.reads[name]) for place in parts.model.places)
    return StackedReads(stacks, numbers)


def forward_loop(
    b: GraphBuilder, parts: StepParts, h: ir.Value, reads: StackedReads, adapter: ir.Value, keep: bool
) -> tuple[ir.Value, ...]:
    """h[0] -> (h[L],) or, with `keep`, (h[L], the layers' inputs [L, T, D])."""
    body = b.subgraph()
    layer = value("forward_layer", "int64", ())
    x = value("forward_h", "float32", (parts.seq_len, parts.config.hidden_size))
    (h_next,) = lower(body, _graphs(parts).forward, {"h": x} | layer_feeds(body, parts, layer, reads, adapter))
    scans = [x] if keep else []
    graph = loop_body(body, "forward", layer, [x], [h_next], scans)
    return b.loop(b.ints(parts.config.num_hidden_layers), [h], graph, len(scans))


def backward_loop(
    b: GraphBuilder,
    parts: StepParts,
    g: ir.Value,
    saved: ir.Value,
    reads: StackedReads,
    adapter: ir.Value,
    train: ir.Value,
    propagate: ir.Value,
) -> ir.Value:
    """From the top layer down to the lowest trained one; the gradients float32 [L, n], zero where a layer is not trained."""
    layers, size = parts.config.num_hidden_layers, parts.layout.sizes[0]
    trips = b.op("Sub", b.ints(layers), b.op("ArgMax", b.op("Cast", train, to=ir.DataType.INT32.value), axis=0, keepdims=1))
    body = b.subgraph()
    iteration = value("backward_iteration", "int64", ())
    gradient = value("backward_g", "float32", (parts.seq_len, parts.config.hidden_size))
    layer = body.op("Sub", body.const(layers - 1, np.int64), iteration)
    taken = body.subgraph()
    h = taken.op("Gather", saved, layer)
    g_next, d_adapter = lower(taken, _graphs(parts).backward, {"h": h, "g": gradient} | layer_feeds(taken, parts, layer, reads, adapter))
    trained = taken.op("Cast", taken.op("Gather", train, layer), to=ir.DataType.FLOAT.value)
    propagated = taken.graph("propagate", (), [g_next, taken.op("Mul", d_adapter, trained)])
    skipped = body.subgraph()
    zero = skipped.op("ConstantOfShape", skipped.ints(size))
    identity = skipped.graph("identity", (), [skipped.op("Identity", gradient), zero])
    g_out, d_out = body.condition(body.op("Gather", propagate, layer), propagated, identity, 2)
    graph = loop_body(body, "backward", iteration, [gradient], [g_out], [d_out])
    _, top_down = b.loop(trips, [g], graph, 1)
    rest = b.op("ConstantOfShape", b.op("Concat", b.op("Sub", b.ints(layers), trips), b.ints(size), axis=0))
    return b.op("Gather", b.op("Concat", top_down, rest, axis=0), b.ints(*reversed(range(layers))), axis=0)


def layer_feeds(b: GraphBuilder, parts: StepParts, layer: ir.Value, reads: StackedReads, adapter: ir.Value) -> dict[str, ir.Value]:
    """One layer's slices of everything that is stacked, by the names of a block graph's inputs."""
    feeds = {
        name: b.op("Gather", stack, b.op("Gather", b.const(reads.numbers[name], np.int64), layer)) for name, stack in reads.stacks.items()
    }
    feeds["adapter"] = b.op("Gather", adapter, layer)
    prefix = layer_tensor(_graphs(parts).kind.name, "")
    for tensor in parts.table:
        if tensor.name.startswith(prefix):
            feeds[tensor.name.removeprefix(prefix)] = b.op("Gather", b.weight(tensor), layer)
    return feeds


def _graphs(parts: StepParts) -> KindGraphs:
    """Of the one kind of layers that a step in one graph has."""
    (graphs,) = parts.blocks.kinds.values()
    return graphs


def final_norm(b: GraphBuilder, parts: StepParts, h: ir.Value) -> ir.Value:
    return lower(b, parts.norm, {"x": h, "weight": b.weight(parts.weight("norm.weight"))})[0]


def head(b: GraphBuilder, parts: StepParts, h: ir.Value, labels: ir.Value, gradient: bool) -> tuple[ir.Value, ...]:
    """h[L] [T, D] -> (loss,) or, with `gradient`, (loss, d loss / d h[L]). Only counted positions cost anything; the formula
    is `export.graphs.head.cross_entropy`."""
    hidden = parts.config.hidden_size
    counted = b.op("Not", b.op("Equal", labels, b.const(IGNORED_LABEL, np.int64)))
    positions = b.op("Reshape", b.op("NonZero", counted), b.ints(-1))  # [C]
    x = b.op("Gather", final_norm(b, parts, h), positions)  # [C, D]
    label_rows = gather_rows(b, parts, head_name(parts), b.op("Gather", labels, positions))  # [C, D]
    start = softmax_start(b, x, gradient)
    body = b.subgraph()
    chunk = value("head_chunk", "int64", ())
    carried = [value(f"head_{name}", "float32", ("C", 1)) for name in ("peak", "total")]
    carried += [value("head_weighted", "float32", ("C", hidden))] if gradient else []
    cap = parts.config.final_logit_softcapping
    graph = loop_body(body, "head", chunk, carried, online_softmax(body, head_chunk(body, parts, chunk), x, carried, cap), [])
    peak, total, *weighted = b.loop(b.ints(chunk_count(parts)), start, graph, 0)
    target, slope = soft_capped(b, b.op("ReduceSum", b.op("Mul", x, label_rows), b.ints(1), keepdims=1), cap)
    losses = b.op("Sub", b.op("Add", peak, b.op("Log", total)), target)  # [C, 1]
    loss = b.op("ReduceMean", losses, b.ints(0, 1), keepdims=0)
    if not gradient:
        return (loss,)
    count = b.op("Cast", b.op("Size", positions), to=ir.DataType.FLOAT.value)
    dx = b.op("Div", b.op("Sub", b.op("Div", weighted[0], total), sloped(b, label_rows, slope)), count)
    zeros = b.op("ConstantOfShape", b.ints(parts.seq_len, hidden))
    g = b.op("ScatterND", zeros, b.op("Reshape", positions, b.ints(-1, 1)), dx)
    return loss, lower(b, parts.norm_backward, {"x": h, "g": g, "weight": b.weight(parts.weight("norm.weight"))})[0]


def soft_capped(b: GraphBuilder, logits: ir.Value, cap: float | None) -> tuple[ir.Value, ir.Value | None]:
    """As `graphs.head.soft_capped`."""
    if cap is None:
        return logits, None
    t = b.op("Tanh", b.op("Div", logits, b.scalar(cap)))
    return b.op("Mul", t, b.scalar(cap)), b.op("Sub", b.scalar(1.0), b.op("Mul", t, t))


def sloped(b: GraphBuilder, x: ir.Value, slope: ir.Value | None) -> ir.Value:
    return x if slope is None else b.op("Mul", x, slope)


def softmax_start(b: GraphBuilder, x: ir.Value, gradient: bool) -> list[ir.Value]:
    """What `online_softmax` carries before its first rows, for x [C, D]: peak and total [C, 1], the weighted sum [C, D] if asked for."""
    column = b.op("Slice", x, b.ints(0), b.ints(1), b.ints(1))
    zero = b.op("Mul", column, b.scalar(0.0))
    return [b.op("Sub", zero, b.scalar(1e30)), zero] + ([b.op("Mul", x, b.scalar(0.0))] if gradient else [])


def online_softmax(b: GraphBuilder, rows: ir.Value, x: ir.Value, carried: list[ir.Value], cap: float | None) -> list[ir.Value]:
    """What is carried beyond these rows of the head."""
    peak, total, *weighted = carried
    logits, slope = soft_capped(b, b.op("Gemm", x, rows, transB=1), cap)
    new_peak = b.op("Max", peak, b.op("ReduceMax", logits, b.ints(1), keepdims=1))
    exponentials = b.op("Exp", b.op("Sub", logits, new_peak))
    shrink = b.op("Exp", b.op("Sub", peak, new_peak))
    results = [new_peak, b.op("Add", b.op("Mul", total, shrink), b.op("ReduceSum", exponentials, b.ints(1), keepdims=1))]
    return results + [b.op("Add", b.op("Mul", w, shrink), b.op("Gemm", sloped(b, exponentials, slope), rows)) for w in weighted]


def next_token_logits(b: GraphBuilder, parts: StepParts, h: ir.Value, position: ir.Value) -> ir.Value:
    """h[L] [T, D], position int64 [1] -> logits [V] of the token after it."""
    return row_logits(b, parts, b.op("Gather", final_norm(b, parts, h), position))


def row_logits(b: GraphBuilder, parts: StepParts, x: ir.Value) -> ir.Value:
    """A normed row [1, D] -> logits [V]."""
    body = b.subgraph()
    chunk = value("logits_chunk", "int64", ())
    so_far = value("logits_so_far", "float32", (1, "v"))
    logits, _ = soft_capped(body, body.op("Gemm", x, head_chunk(body, parts, chunk), transB=1), parts.config.final_logit_softcapping)
    graph = loop_body(body, "logits", chunk, [so_far], [body.op("Concat", so_far, logits, axis=1)], [])
    (result,) = b.loop(b.ints(chunk_count(parts)), [b.op("ConstantOfShape", b.ints(1, 0))], graph, 0)
    return b.op("Reshape", result, b.ints(-1))


def head_name(parts: StepParts) -> str:
    return "embed_tokens.weight" if parts.config.tie_word_embeddings else "lm_head.weight"


def chunk_count(parts: StepParts) -> int:
    return -(-parts.config.vocab_size // head_rows(parts.config.hidden_size))


def head_chunk(b: GraphBuilder, parts: StepParts, chunk: ir.Value) -> ir.Value:
    """One chunk of the head's rows, decompressed; the last is shorter."""
    rows = b.ints(head_rows(parts.config.hidden_size))
    start = b.op("Mul", b.op("Reshape", chunk, b.ints(1)), rows)
    stop = b.op("Add", start, rows)
    packed, scale = (
        b.op("Slice", b.weight(parts.weight(f"{head_name(parts)}.{part}")), start, stop, b.ints(0)) for part in ("packed", "scale")
    )
    return _decompress(b, parts, packed, scale)


def gather_rows(b: GraphBuilder, parts: StepParts, name: str, rows: ir.Value) -> ir.Value:
    """The rows int64 [C] of the embedding or the head, decompressed: [C, D]."""
    packed, scale = (b.op("Gather", b.weight(parts.weight(f"{name}.{part}")), rows) for part in ("packed", "scale"))
    return _decompress(b, parts, packed, scale)


def _decompress(b: GraphBuilder, parts: StepParts, packed: ir.Value, scale: ir.Value) -> ir.Value:
    bits, group_size, columns = parts.quantization.embedding_bits, parts.quantization.group_size, parts.config.hidden_size
    if stored_for(parts.table) == "gpu":
        return dequantize_on_gpu(b, packed, scale, bits, columns)
    return dequantize(b, packed, scale, bits, group_size, columns)
