"""Embedding and head by operators that ONNX Runtime's WebGPU provider computes: the numbers of `step_graph`, without loops.

The provider's kernels take int64 as indices alone. So `narrow` looks numbers up in a list, and all that follows is int32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.export.graphs.head import chunk_bounds
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder
from lcsb_mobile.export.onnx.lowering import lower
from lcsb_mobile.export.onnx.step_graph import (
    final_norm,
    gather_rows,
    head_name,
    online_softmax,
    sloped,
    soft_capped,
    softmax_start,
    tables,
)
from lcsb_mobile.export.onnx.tile_order import zero_after

TOKEN_NUMBERS = ("position_ids", "segment_ids")


def narrow(b: GraphBuilder, numbers: ir.Value, count: int) -> ir.Value:
    """int64 -> int32, of numbers in -count to count - 1. A negative one becomes what it is beside `count`: as an index it counts from the
    end of the list that numbers are looked up in."""
    return b.op("Gather", count_up(b, count), numbers, axis=0)


def count_up(b: GraphBuilder, count: int) -> ir.Value:
    """int32 [count]: 0, 1, 2, … A runtime computes it when it makes the session."""
    return b.op("Range", *(b.const(x, np.int32) for x in (0, count, 1)))


def token_tables(b: GraphBuilder, parts: StepParts, graph: TableGraph, feeds: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """As `step_graph.tables`. Positions are 0 to T - 1, and segments are told apart that have numbers from -T to T - 1."""
    narrowed = {name: narrow(b, x, 2 * parts.seq_len) for name, x in feeds.items() if name in TOKEN_NUMBERS}
    return tables(b, parts, graph, {**feeds, **narrowed}, wide=False)


def head(b: GraphBuilder, parts: StepParts, h: ir.Value, labels: ir.Value, gradient: bool) -> tuple[ir.Value, ...]:
    """As `step_graph.head`. Every position is computed, and those that are not counted are left out of the sums. A chunk of the head's
    rows is decompressed once the sums have taken in the one before: the numbers of its rows wait for that (`tile_order`)."""
    config, t = parts.config, parts.seq_len
    label = narrow(b, labels, config.vocab_size - IGNORED_LABEL)  # -100 becomes the size of the vocabulary
    is_counted = b.op("Less", label, b.const(config.vocab_size, np.int32))
    label_rows = gather_rows(b, parts, head_name(parts), b.op("Where", is_counted, label, b.const(0, np.int32)))  # [T, D]
    is_counted = b.op("Reshape", is_counted, b.ints(t, 1))
    x = final_norm(b, parts, h)
    carried, cap = softmax_start(b, x, gradient), config.final_logit_softcapping
    for start, stop in chunk_bounds(config.vocab_size, config.hidden_size):
        first = b.const([start], np.int32)
        for done in carried[1:] if start else ():
            first = b.op("Add", first, zero_after(b, [done], ir.DataType.INT32))
        carried = online_softmax(b, _rows(b, parts, first, stop - start), x, carried, cap)
    peak, total, *weighted = carried
    target, slope = soft_capped(b, b.op("ReduceSum", b.op("Mul", x, label_rows), b.ints(1), keepdims=1), cap)
    losses = b.op("Sub", b.op("Add", peak, b.op("Log", total)), target)  # [T, 1]
    count = b.op("ReduceSum", b.op("Cast", is_counted, to=ir.DataType.FLOAT.value), b.ints(0, 1), keepdims=0)
    count = b.op("Max", count, b.scalar(1))  # of none the loss is 0
    loss = b.op("Div", b.op("ReduceSum", b.op("Where", is_counted, losses, b.scalar(0)), b.ints(0, 1), keepdims=0), count)
    if not gradient:
        return (loss,)
    dx = b.op("Div", b.op("Sub", b.op("Div", weighted[0], total), sloped(b, label_rows, slope)), count)
    g = b.op("Where", is_counted, dx, b.scalar(0))
    return loss, lower(b, parts.norm_backward, {"x": h, "g": g, "weight": b.weight(parts.weight("norm.weight"))})[0]


def row_logits(b: GraphBuilder, parts: StepParts, x: ir.Value) -> ir.Value:
    """As `step_graph.row_logits`."""
    config = parts.config
    chunks = [
        b.op("Gemm", x, _rows(b, parts, b.const([start], np.int32), stop - start), transB=1)
        for start, stop in chunk_bounds(config.vocab_size, config.hidden_size)
    ]
    logits = chunks[0] if len(chunks) == 1 else b.op("Concat", *chunks, axis=1)
    return b.op("Reshape", soft_capped(b, logits, config.final_logit_softcapping)[0], b.ints(-1))


def _rows(b: GraphBuilder, parts: StepParts, first: ir.Value, count: int) -> ir.Value:
    """`count` rows of the head from `first` on, int32 [1], decompressed."""
    return gather_rows(b, parts, head_name(parts), b.op("Add", count_up(b, count), first))
