"""The programs of a bundle as modules: what is exported, and computes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.weights import head_rows
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.export.executorch.lowering import Captured, decompressed
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.head import sloped, soft_capped
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.graphs.tables import TableGraph

Visit = Callable[[list[Tensor], Tensor], tuple[list[Tensor], list[Tensor]]]

LEAST = -1e30  # below any logit: what the running maximum starts from


class Block(torch.nn.Module):
    """A captured graph; what is float16 at its border is float32 inside."""

    def __init__(
        self, captured: CapturedGraph, consts: Mapping[str, Tensor], inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
    ) -> None:
        super().__init__()
        self.block = Captured(captured, consts)
        self.order = tuple([x.name for x in inputs].index(name) for name in self.block.inputs)
        self.widen = tuple(x.dtype == "float16" and x.weight is None for x in inputs)
        self.narrow = tuple(x.dtype == "float16" for x in outputs)

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        fed = [x.float() if wide else x for x, wide in zip(args, self.widen)]
        results = self.block(*(fed[number] for number in self.order))
        return tuple(x.half() if half else x for x, half in zip(results, self.narrow))


class Embedding(torch.nn.Module):
    """(integers by `names`, packed, scale, stored tables) -> (h, *tables)."""

    def __init__(self, parts: StepParts, tables: TableGraph, names: Sequence[str]) -> None:
        super().__init__()
        self.scale = parts.config.embedding_scale
        self.tables = Captured(tables.graph, tables.consts)
        self.names = (*names, "packed", "scale", *(name for name in self.tables.inputs if name not in names))

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        x = dict(zip(self.names, args))
        h = _rows(x["packed"], x["scale"], x["input_ids"])
        return h if self.scale == 1.0 else h * self.scale, *self.tables(*(x[name] for name in self.tables.inputs))


class Chunks(torch.nn.Module):
    """The head's rows, a chunk at a time: the whole chunks in a loop of the program, then the shorter last one."""

    def __init__(self, vocabulary: int, rows: int) -> None:
        super().__init__()
        self.rows = min(rows, vocabulary)
        self.whole, self.rest = divmod(vocabulary, self.rows)

    def forward(self, visit: Visit, carry: list[Tensor], packed: Tensor, scale: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """`visit`: (carry, rows [R, D]) -> (carry, what each chunk gives). Returns the last carry, and what all gave, [V]."""

        numbers, starts = torch.arange(self.rows), torch.arange(self.whole) * self.rows

        def step(carried: list[Tensor], start: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            return visit(carried, _rows(packed, scale, numbers + start))

        carry, given = scan(step, carry, starts)
        given = [x.view(-1) for x in given]
        if self.rest:
            carry, last = visit(carry, decompressed(packed[-self.rest :], scale[-self.rest :]))
            given = [torch.cat([x, y]) for x, y in zip(given, last)]
        return carry, given


class Head(torch.nn.Module):
    """(h [T, D], labels [T], the norm's weight, packed, scale) -> (loss,) or, with `gradient`, (loss, d loss / d h), as
    `graphs.head.cross_entropy`. Every position is computed; those that are not counted weigh nothing."""

    def __init__(self, parts: StepParts, gradient: bool) -> None:
        super().__init__()
        self.norm = Captured(parts.norm, {})
        self.norm_backward = Captured(parts.norm_backward, {}) if gradient else None
        self.chunks = Chunks(parts.config.vocab_size, head_rows(parts.config.hidden_size))
        self.cap = parts.config.final_logit_softcapping

    def forward(self, h: Tensor, labels: Tensor, weight: Tensor, packed: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        (x,) = self.norm(h, weight)
        counted = labels != IGNORED_LABEL
        rows = _rows(packed, scale, torch.where(counted, labels, torch.zeros_like(labels)))
        share = counted.to(torch.float32).unsqueeze(-1)
        share = share / share.sum()  # [T, 1]
        nothing = x * 0.0
        width, row = torch.ones(x.shape[1], 1), torch.ones(self.chunks.rows, 1)
        column = nothing @ width  # [T, 1]
        carry = [column + LEAST, column] + ([nothing] if self.norm_backward is not None else [])

        def visit(carried: list[Tensor], rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            """The running maximum, sum and weighted sum, with these rows of the head."""
            peak, total, *weighted = carried
            logits, slope = soft_capped(x @ rows.t(), self.cap)
            new_peak = torch.maximum(peak, logits.amax(-1, keepdim=True))
            exponentials, shrink = torch.exp(logits - new_peak), torch.exp(peak - new_peak)
            sums = total * shrink + exponentials @ row[: rows.shape[0]]
            return [new_peak, sums, *(w * shrink + sloped(exponentials, slope) @ rows for w in weighted)], []

        (peak, total, *weighted), _ = self.chunks(visit, carry, packed, scale)
        target, slope = soft_capped((x * rows) @ width, self.cap)  # [T, 1]
        losses = peak + torch.log(total) - target
        loss = (share * losses).sum()
        if self.norm_backward is None:
            return (loss,)
        return loss, *self.norm_backward(h, (weighted[0] / total - sloped(rows, slope)) * share, weight)


class Logits(torch.nn.Module):
    """(h [1, D], the norm's weight, packed, scale) -> logits [V]."""

    def __init__(self, parts: StepParts) -> None:
        super().__init__()
        self.norm, self.chunks = Captured(parts.norm, {}), Chunks(parts.config.vocab_size, head_rows(parts.config.hidden_size))
        self.cap = parts.config.final_logit_softcapping

    def forward(self, h: Tensor, weight: Tensor, packed: Tensor, scale: Tensor) -> tuple[Tensor]:
        (x,) = self.norm(h, weight)

        def visit(carried: list[Tensor], rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            """A loop must carry something: this one counts."""
            return [carried[0] + 1.0], [soft_capped(x @ rows.t(), self.cap)[0].view(-1)]

        _, (logits,) = self.chunks(visit, [torch.zeros(1)], packed, scale)
        return (logits,)


class Update(torch.nn.Module):
    """`optimizer.update_layer` in the same operations."""

    def __init__(self, config: AdamWConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, theta: Tensor, m: Tensor, v: Tensor, g: Tensor, decay: Tensor, rate: Tensor, root: Tensor) -> tuple[Tensor, ...]:
        beta1, beta2 = self.config.betas
        first = m * beta1 + g * (1 - beta1)
        second = v * beta2 + (g * g) * (1 - beta2)
        update = first / (torch.sqrt(second) / root + self.config.eps) * rate
        return theta * decay - update, first, second


def _rows(packed: Tensor, scale: Tensor, numbers: Tensor) -> Tensor:
    """Rows of the embedding or the head, decompressed: int64 [C] -> [C, D]."""
    return decompressed(packed.index_select(0, numbers), scale.index_select(0, numbers))
