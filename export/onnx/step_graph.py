"""The parts of a whole step as one ONNX graph: embedding, loops over the layers, the head.

Loops and branches carry the order of execution: recomputation inside a branch waits for its gradient, where in a flat graph
ONNX Runtime would do it first and keep it. Nothing grows with depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.weights import LAYERS, head_rows
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.models.layers import MASKED
from lcsb_mobile.export.onnx.dequantize import dequantize
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, loop_body, value
from lcsb_mobile.export.onnx.lowering import lower


@dataclass(frozen=True)
class Attention:
    """RoPE at the batch's positions, [kinds, T, d], and masks [kinds, T, T]."""

    cos: ir.Value
    sin: ir.Value
    mask: ir.Value


def embed(b: GraphBuilder, parts: StepParts, input_ids: ir.Value) -> ir.Value:
    """int64 [T] -> h[0] [T, D]."""
    h = gather_rows(b, parts, "embed_tokens.weight", input_ids)
    scale = parts.config.embedding_scale
    return h if scale == 1.0 else b.op("Mul", h, b.scalar(scale))


def attention_inputs(b: GraphBuilder, parts: StepParts, position_ids: ir.Value, segment_ids: ir.Value) -> Attention:
    cos, sin = (b.op("Gather", b.weight(parts.weight(f"rope.{name}")), position_ids, axis=1) for name in ("cos", "sin"))
    index = np.arange(parts.seq_len)
    distance = index[:, None] - index[None, :]
    windows = [(distance >= 0) & (distance < (kind.window or parts.seq_len)) for kind in parts.config.attention_kinds]
    column = b.op("Reshape", segment_ids, b.ints(-1, 1))
    row = b.op("Reshape", segment_ids, b.ints(1, -1))
    visible = b.op("And", b.op("Equal", column, row), b.const(np.stack(windows), np.bool_))
    return Attention(cos, sin, b.op("Where", visible, b.scalar(0.0), b.scalar(MASKED)))


def forward_loop(
    b: GraphBuilder, parts: StepParts, h: ir.Value, attention: Attention, adapter: ir.Value, keep: bool
) -> tuple[ir.Value, ...]:
    """h[0] -> (h[L],) or, with `keep`, (h[L], the layers' inputs [L, T, D])."""
    body = b.subgraph()
    layer = value("forward_layer", "int64", ())
    x = value("forward_h", "float32", (parts.seq_len, parts.config.hidden_size))
    (h_next,) = lower(body, parts.blocks.forward, {"h": x} | layer_feeds(body, parts, layer, attention, adapter))
    scans = [x] if keep else []
    graph = loop_body(body, "forward", layer, [x], [h_next], scans)
    return b.loop(b.ints(parts.config.num_hidden_layers), [h], graph, len(scans))


def backward_loop(
    b: GraphBuilder,
    parts: StepParts,
    g: ir.Value,
    saved: ir.Value,
    attention: Attention,
    adapter: ir.Value,
    train: ir.Value,
    propagate: ir.Value,
) -> ir.Value:
    """From the top layer down to the lowest trained one; the gradients float32 [L, n], zero where a layer is not trained."""
    layers, size = parts.config.num_hidden_layers, parts.layout.size
    trips = b.op("Sub", b.ints(layers), b.op("ArgMax", b.op("Cast", train, to=ir.DataType.INT32.value), axis=0, keepdims=1))
    body = b.subgraph()
    iteration = value("backward_iteration", "int64", ())
    gradient = value("backward_g", "float32", (parts.seq_len, parts.config.hidden_size))
    layer = body.op("Sub", body.const(layers - 1, np.int64), iteration)
    taken = body.subgraph()
    h = taken.op("Gather", saved, layer)
    g_next, d_adapter = lower(taken, parts.blocks.backward, {"h": h, "g": gradient} | layer_feeds(taken, parts, layer, attention, adapter))
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


def layer_feeds(b: GraphBuilder, parts: StepParts, layer: ir.Value, attention: Attention, adapter: ir.Value) -> dict[str, ir.Value]:
    """One layer's slices of everything that is stacked, by the names of a block graph's inputs."""
    kind = b.op("Gather", b.const(parts.config.layer_kinds, np.int64), layer)
    feeds = {
        "cos": b.op("Gather", attention.cos, kind),
        "sin": b.op("Gather", attention.sin, kind),
        "mask": b.op("Gather", attention.mask, kind),
        "adapter": b.op("Gather", adapter, layer),
    }
    for tensor in parts.table:
        if tensor.per_layer:
            feeds[tensor.name.removeprefix(LAYERS)] = b.op("Gather", b.weight(tensor), layer)
    return feeds


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
    column = b.op("Slice", x, b.ints(0), b.ints(1), b.ints(1))  # [C, 1]
    zero = b.op("Mul", column, b.scalar(0.0))
    start = [b.op("Sub", zero, b.scalar(1e30)), zero] + ([b.op("Mul", x, b.scalar(0.0))] if gradient else [])
    body = b.subgraph()
    chunk = value("head_chunk", "int64", ())
    carried = [value(f"head_{name}", "float32", ("C", 1)) for name in ("peak", "total")]
    carried += [value("head_weighted", "float32", ("C", hidden))] if gradient else []
    graph = loop_body(body, "head", chunk, carried, _online_softmax(body, head_chunk(body, parts, chunk), x, carried), [])
    peak, total, *weighted = b.loop(b.ints(chunk_count(parts)), start, graph, 0)
    target = b.op("ReduceSum", b.op("Mul", x, label_rows), b.ints(1), keepdims=1)
    losses = b.op("Sub", b.op("Add", peak, b.op("Log", total)), target)  # [C, 1]
    loss = b.op("ReduceMean", losses, b.ints(0, 1), keepdims=0)
    if not gradient:
        return (loss,)
    count = b.op("Cast", b.op("Size", positions), to=ir.DataType.FLOAT.value)
    dx = b.op("Div", b.op("Sub", b.op("Div", weighted[0], total), label_rows), count)
    zeros = b.op("ConstantOfShape", b.ints(parts.seq_len, hidden))
    g = b.op("ScatterND", zeros, b.op("Reshape", positions, b.ints(-1, 1)), dx)
    return loss, lower(b, parts.norm_backward, {"x": h, "g": g, "weight": b.weight(parts.weight("norm.weight"))})[0]


def _online_softmax(b: GraphBuilder, rows: ir.Value, x: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
    peak, total, *weighted = carried
    logits = b.op("Gemm", x, rows, transB=1)
    new_peak = b.op("Max", peak, b.op("ReduceMax", logits, b.ints(1), keepdims=1))
    exponentials = b.op("Exp", b.op("Sub", logits, new_peak))
    shrink = b.op("Exp", b.op("Sub", peak, new_peak))
    results = [new_peak, b.op("Add", b.op("Mul", total, shrink), b.op("ReduceSum", exponentials, b.ints(1), keepdims=1))]
    return results + [b.op("Add", b.op("Mul", w, shrink), b.op("Gemm", exponentials, rows)) for w in weighted]


def next_token_logits(b: GraphBuilder, parts: StepParts, h: ir.Value, position: ir.Value) -> ir.Value:
    """h[L] [T, D], position int64 [1] -> logits [V] of the token after it."""
    return row_logits(b, parts, b.op("Gather", final_norm(b, parts, h), position))


def row_logits(b: GraphBuilder, parts: StepParts, x: ir.Value) -> ir.Value:
    """A normed row [1, D] -> logits [V]."""
    body = b.subgraph()
    chunk = value("logits_chunk", "int64", ())
    so_far = value("logits_so_far", "float32", (1, "v"))
    logits = body.op("Gemm", x, head_chunk(body, parts, chunk), transB=1)
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
    return dequantize(b, packed, scale, parts.quantization.embedding_bits, parts.quantization.group_size, parts.config.hidden_size)
