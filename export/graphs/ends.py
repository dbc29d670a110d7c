"""What stands at a model's two ends, and AdamW, as captured graphs of static shapes: for targets whose programs have neither loops nor free
dimensions. The host calls the head a chunk of its rows at a time (`runners.heads.ChunkedHead`).

A table of the embedding or the head is `packed` and `scale` (`weights.quantization`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.fx import Interpreter

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.programs import chunk_rows
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.export.graphs.captured import CapturedGraph, capture
from lcsb_mobile.export.graphs.head import sloped, soft_capped
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.weights.quantization import dequantize


@dataclass(frozen=True)
class End:
    """A graph, and those of its inputs that are constants of the program."""

    graph: CapturedGraph
    consts: Mapping[str, Tensor]


class Ends:
    def __init__(self, parts: StepParts) -> None:
        config = parts.config
        self.parts, self.norm, self.cap = parts, parts.model.final_norm, config.final_logit_softcapping
        self.hidden = (parts.seq_len, config.hidden_size)
        self.rows = chunk_rows(config.vocab_size, config.hidden_size)
        self.embedding_table = "embed_tokens.weight"
        self.head_table = self.embedding_table if config.tie_word_embeddings else "lm_head.weight"

    def embedding(self, tokens: int, graph: TableGraph) -> End:
        """(input_ids [tokens], packed, scale, what the tables come of) -> (h, *tables)."""
        scale, make = self.parts.config.embedding_scale, Interpreter(graph.graph.module)
        others = {name: node.meta["val"] for name, node in zip(graph.graph.inputs, graph.graph.placeholders)}
        examples = {"input_ids": torch.zeros(tokens, dtype=torch.int64), **self._table(self.embedding_table)}
        examples |= {name: torch.zeros(x.shape, dtype=x.dtype) for name, x in others.items() if name not in examples}
        names = tuple(examples)

        def embed(*args: Tensor) -> tuple[Tensor, ...]:
            x = dict(zip(names, args))
            h = _rows(x["packed"], x["scale"], x["input_ids"])
            return h if scale == 1.0 else h * scale, *make.run(*(x[name] for name in graph.graph.inputs))

        consts = {name: x for name, x in graph.consts.items() if name in others}
        return End(capture(embed, list(examples.values()), names, ("h", *graph.graph.outputs)), consts)

    def head_start(self) -> End:
        """(h, labels, weight, packed, scale) -> x: the normed h; target: the head's rows of the labels; share [T, 1]: of the mean, 0
        where a label is not counted."""
        consts = {"first": torch.tensor(0), "none": torch.tensor(0.0), "one": torch.tensor(1.0)}
        examples = {"h": torch.zeros(self.hidden), "labels": torch.zeros(self.hidden[0], dtype=torch.int64), "weight": self._norm_weight()}

        examples |= self._table(self.head_table)
        names = (*examples, *consts)

        def start(*args: Tensor) -> tuple[Tensor, ...]:
            x = dict(zip(names, args))
            ignored = x["labels"] == IGNORED_LABEL
            counted = torch.where(ignored, x["none"], x["one"]).unsqueeze(-1)
            target = _rows(x["packed"], x["scale"], torch.where(ignored, x["first"], x["labels"]))
            return self.norm(x["h"], x["weight"]), target, counted / counted.sum(0, keepdim=True)

        return _end(start, examples, ("x", "target", "share"), consts)

    def chunk(self, gradient: bool) -> End:
        """(x, peak, total, weighted, bias [1, R], packed, scale) -> the running maximum, sum and weighted sum with these rows of the head;
        without the gradient, no weighted sum. `bias` is added to the logits, beyond their cap."""
        column = (self.hidden[0], 1)
        shapes = {"x": self.hidden, "peak": column, "total": column} | ({"weighted": self.hidden} if gradient else {})
        examples = {name: torch.zeros(shape) for name, shape in (shapes | {"bias": (1, self.rows)}).items()}
        examples |= self._table(self.head_table, self.rows)
        names = tuple(examples)

        def visit(*args: Tensor) -> tuple[Tensor, ...]:
            x = dict(zip(names, args))
            rows = dequantize(x["packed"], x["scale"])
            logits, slope = soft_capped(x["x"] @ rows.t(), self.cap)
            logits = logits + x["bias"]
            peak = torch.maximum(x["peak"], logits.amax(-1, keepdim=True))
            exponentials, shrink = torch.exp(logits - peak), torch.exp(x["peak"] - peak)
            total = x["total"] * shrink + exponentials.sum(-1, keepdim=True)
            return (peak, total, x["weighted"] * shrink + sloped(exponentials, slope) @ rows) if gradient else (peak, total)

        outputs = ("peak_next", "total_next", "weighted_next")
        return _end(visit, examples, outputs if gradient else outputs[:2])

    def head_end(self, gradient: bool) -> End:
        """(x, target, share, peak, total) -> loss [1]; with h, the running weighted sum and the norm's weight, g too."""
        column = (self.hidden[0], 1)
        shapes = {"x": self.hidden, "target": self.hidden, "share": column, "peak": column, "total": column}
        shapes |= {"h": self.hidden, "weighted": self.hidden} if gradient else {}
        examples = {name: torch.zeros(shape) for name, shape in shapes.items()} | ({"weight": self._norm_weight()} if gradient else {})
        names = tuple(examples)

        def end(*args: Tensor) -> tuple[Tensor, ...]:
            x = dict(zip(names, args))
            target, slope = soft_capped((x["x"] * x["target"]).sum(-1, keepdim=True), self.cap)
            losses = x["peak"] + torch.log(x["total"]) - target
            loss = (losses * x["share"]).sum(0)
            if not gradient:
                return (loss,)
            dx = (x["weighted"] / x["total"] - sloped(x["target"], slope)) * x["share"]
            vjp = torch.func.vjp(lambda h: self.norm(h, x["weight"]), x["h"])[1]
            return loss, vjp(dx)[0]

        return _end(end, examples, ("loss", "g") if gradient else ("loss",))

    def logits_start(self) -> End:
        """(h [1, D], weight) -> x [1, D]."""
        examples = {"h": torch.zeros(1, self.hidden[1]), "weight": self._norm_weight()}
        return _end(lambda h, weight: (self.norm(h, weight),), examples, ("x",))

    def logits_chunk(self) -> End:
        """(x [1, D], packed, scale) -> logits [R]."""
        examples = {"x": torch.zeros(1, self.hidden[1]), **self._table(self.head_table, self.rows)}

        def logits(x: Tensor, packed: Tensor, scale: Tensor) -> tuple[Tensor]:
            return (soft_capped(x @ dequantize(packed, scale).t(), self.cap)[0].view(-1),)

        return _end(logits, examples, ("logits",))

    def _norm_weight(self) -> Tensor:
        return torch.zeros(self.hidden[1])

    def _table(self, name: str, rows: int | None = None) -> dict[str, Tensor]:
        """Of the whole table, or of some rows."""
        tensors = {part: self.parts.weight(f"{name}.{part}") for part in ("packed", "scale")}
        return {part: torch.zeros((rows or x.shape[0], *x.shape[1:]), dtype=getattr(torch, x.dtype)) for part, x in tensors.items()}


def adamw(config: AdamWConfig, size: int) -> End:
    """`optimizer.update_layer` in the same operations, of a vector of `size` elements."""
    beta1, beta2 = config.betas

    def update(theta: Tensor, m: Tensor, v: Tensor, g: Tensor, decay: Tensor, rate: Tensor, root: Tensor) -> tuple[Tensor, ...]:
        first = m * beta1 + g * (1 - beta1)
        second = v * beta2 + (g * g) * (1 - beta2)
        step = first / (torch.sqrt(second) / root + config.eps) * rate
        return theta * decay - step, first, second

    names = ("parameters", "first_moment", "second_moment")
    examples = {name: torch.zeros(size) for name in (*names, "gradient")} | {name: torch.zeros(1) for name in ("decay", "rate", "root")}
    return _end(update, examples, tuple(f"{name}_next" for name in names))


def _end(
    function: Callable[..., tuple[Tensor, ...]],
    examples: Mapping[str, Tensor],
    outputs: tuple[str, ...],
    consts: Mapping[str, Tensor] = MappingProxyType({}),
) -> End:
    every = {**examples, **consts}
    return End(capture(function, list(every.values()), tuple(every), outputs), consts)


def _rows(packed: Tensor, scale: Tensor, numbers: Tensor) -> Tensor:
    """Rows of a table, decompressed: [C] -> [C, D]."""
    return dequantize(packed.index_select(0, numbers), scale.index_select(0, numbers))
