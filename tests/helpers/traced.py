"""What a block, its derivative and its decoding become when they are captured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from helpers.kinds_loop import KindsLoop, LayerWeights, Remembered, Tokens
from lcsb_mobile.export.models.tables import token_tables

# What lowers to one or two small operators. None of index, gather, scatter, copy or empty is among them.
OPERATORS = frozenset(
    {
        "_softmax",
        "abs",
        "add",
        "alias",
        "bmm",
        "cat",
        "clone",
        "computed_once",
        "detach",
        "div",
        "exp",
        "expand",
        "full",
        "getitem",
        "mean",
        "mm",
        "mul",
    }
    | {"neg", "permute", "pow", "reciprocal", "relu", "rsqrt", "rsub", "sigmoid", "slice", "split_with_sizes", "sub", "sum", "unsqueeze"}
    | {"view"}
)
Parts = dict[str, dict[str, Tensor]]


def assert_traceable(loop: KindsLoop, kind: str, seq_len: int, nodes: int) -> None:
    """Of the first layer of `kind`: forward and vjp, a prompt, and one token, each as a graph of fewer than `nodes` nodes."""
    number = next(n for n, place in enumerate(loop.model.places) if place.kind == kind)
    half = seq_len // 2
    reads = loop.reads(number, Tokens.packed([torch.arange(half), torch.arange(seq_len - half)]))
    h, g = torch.randn(2, seq_len, loop.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    own = loop.layers[number]
    parts: Parts = {"matrices": dict(own.matrices), "vectors": dict(own.vectors), "lora": dict(own.lora), "consts": loop.consts(number)}
    states = loop.kind(number).states
    past = {name: torch.randn(seq_len, *s.shape) if s.by_position else torch.randn(s.shape) for name, s in states.items()}

    def run(x: Parts, memory: Remembered | None = None) -> Tensor:
        weights = LayerWeights(x["matrices"], x["vectors"], x["lora"])
        return loop.block(number, {**x["consts"], **x["values"]}, weights, memory)[0]

    def backward(x: Parts) -> tuple[Tensor, ...]:
        values = {name: value for name, value in x["values"].items() if name != "g"}
        out, pullback = torch.func.vjp(lambda h, lora: run({**x, "values": {**values, "h": h}, "lora": lora}), values["h"], x["lora"])
        dh, d_lora = pullback(x["values"]["g"])
        return out, dh, *d_lora.values()

    def prefill(x: Parts) -> tuple[Tensor, ...]:
        memory = Remembered()
        return run(x, memory), *memory.kept.values()

    def decode(x: Parts) -> tuple[Tensor, ...]:
        memory = Remembered(x["past"])
        return run(x, memory), *memory.kept.values()

    check(backward, {**parts, "values": {"h": h, "g": g, **reads}}, nodes)
    check(prefill, {**parts, "values": {"h": h, **reads}}, nodes)
    tables = token_tables(loop.model.config, seq_len)(position_ids=torch.tensor([5]))
    bound = {name: tables[table] for name, table in loop.model.places[number].reads.items() if table in tables}
    check(decode, {**parts, "values": {"h": h[:1], **bound}, "past": past}, nodes)


def check(function: Callable[[Parts], tuple[Tensor, ...]], parts: Mapping[str, Mapping[str, Tensor]], nodes: int) -> None:
    names = [(part, name) for part, tensors in parts.items() for name in tensors]
    arguments = [parts[part][name] for part, name in names]

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        nested: Parts = {part: {} for part in parts}
        for (part, name), tensor in zip(names, tensors, strict=True):
            nested[part][name] = tensor
        return function(nested)

    graph = make_fx(flat, decomposition_table=core_aten_decompositions(), tracing_mode="fake")(*arguments)
    graph.graph.eliminate_dead_code()
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    unknown = {str(node.target) for node in calls if node.target.__name__.partition(".")[0] not in OPERATORS}
    assert not unknown, unknown
    assert len(calls) < nodes, len(calls)
    for found, expected in zip(graph(*arguments), flat(*arguments), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))  # in another order of operations
