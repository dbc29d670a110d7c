"""The block programs of targets of static shapes (`TargetRow.static_shapes`): each of them a captured graph, so that such a target is
a rule for each ATen operator and the writing of a file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import msgspec
from torch import Tensor

from lcsb_mobile.bundle.adapter import vector_size
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import CHUNK_WEIGHTS, Role, program_name, update_program
from lcsb_mobile.export.block_programs import BlockProgramWriter, Tensors
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.ends import End, Ends, adamw
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.target import ExportRequest


class CapturedProgramWriter(BlockProgramWriter):
    def __init__(self, request: ExportRequest) -> None:
        super().__init__(request)
        self.ends = Ends(self.parts)
        self.batch = tuple(_static(x) for x in self.batch)

    @abstractmethod
    def program(
        self,
        name: str,
        captured: CapturedGraph,
        consts: Mapping[str, Tensor],
        inputs: Tensors,
        outputs: Tensors,
        kind: BlockKind | None = None,
    ) -> None:
        """Writes a program, of `kind` where it is a layer's. `inputs` are the graph's, in an order of their own, without `consts`, which
        are constants of the program. A `weight` among them is a tensor of `weights.bin`, a layer's slice of it, or, of a head's chunk, some
        rows of it (`CHUNK_WEIGHTS`). An int64 of the graph is int32 at the border, and a float32 of it is float16 there where `inputs`
        or `outputs` say so. Names in the file are `plain_name`s."""

    # The programs

    def embedding(self, name: str, inputs: Tensors, outputs: Tensors, graph: TableGraph) -> None:
        (tokens,) = inputs[0].shape
        end = self.ends.embedding(tokens, graph)
        fed = {x.name: _static(x) for x in inputs} | self._table(self.ends.embedding_table)
        fed |= {w.name: self._whole(w.name, w.name) for w in self.parts.table if w.name in end.graph.inputs}
        self._end(name, end, fed, outputs)

    def block(self, kind: BlockKind, role: Role, captured: CapturedGraph, inputs: Tensors, outputs: Tensors) -> None:
        consts = {name: x for name, x in kind.consts.items() if name in captured.inputs}
        self.program(program_name(kind.name, role), captured, consts, inputs, outputs, kind)

    def head(self, name: str, inputs: Tensors, outputs: Tensors, gradient: bool) -> None:
        h, labels = (_static(x) for x in inputs)
        t, width = self.hidden
        x, target = (_float(n, (t, width), meaning) for n, meaning in (("x", "normed h[L]"), ("target", "the head's rows of the labels")))
        share = _float("share", (t, 1), "of the mean: 0 where the label is not counted")
        sums = [_float("peak", (t, 1), "the largest logit so far"), _float("total", (t, 1), "of the exponentials so far")]
        sums += [_float("weighted", (t, width), "sum of the head's rows by them so far")] if gradient else []
        nexts = [_float(f"{s.name}_next", s.shape, "with the chunk's rows") for s in sums]
        norm = {"weight": self._whole("weight", "norm.weight")}
        if gradient:
            whole = self._table(self.ends.head_table)
            self._end("head_start", self.ends.head_start(), _named(h, labels) | norm | whole, [x, target, share])
        bias = _float("bias", (1, self.ends.rows), "added to the logits: -1e30 for rows that an earlier chunk had")
        chunk = "head_chunk" if gradient else "eval_chunk"
        self._end(chunk, self.ends.chunk(gradient), _named(x, *sums, bias) | self._table(self.ends.head_table, self.ends.rows), nexts)
        fed = _named(x, target, share, *sums) | (_named(h) | norm if gradient else {})
        self._end("head_end" if gradient else "eval_end", self.ends.head_end(gradient), fed, [_static(o) for o in outputs])

    def logits(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        x = _float("x", (1, self.hidden[1]), "normed h[L]")
        self._end("logits_start", self.ends.logits_start(), _named(*inputs) | {"weight": self._whole("weight", "norm.weight")}, [x])
        logits = _float("logits", (self.ends.rows,), "of the chunk's rows")
        self._end("logits_chunk", self.ends.logits_chunk(), _named(x) | self._table(self.ends.head_table, self.ends.rows), [logits])

    def update(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        for kind, matrices in self.parts.layout.matrices.items():
            size = vector_size(matrices)
            fed, results = ([_static(x, size) for x in tensors] for tensors in (inputs, outputs))
            self._end(update_program(kind), adamw(self.request.optimizer, size), _named(*fed), results)

    def _end(self, name: str, end: End, fed: Mapping[str, GraphTensor], outputs: Tensors) -> None:
        """What the graph does not need is not fed."""
        self.program(name, end.graph, end.consts, [x for key, x in fed.items() if key in end.graph.inputs], outputs)

    def _table(self, table: str, rows: int | None = None) -> dict[str, GraphTensor]:
        return {part: self._whole(part, f"{table}.{part}", rows) for part in CHUNK_WEIGHTS}

    def _whole(self, name: str, weight: str, rows: int | None = None) -> GraphTensor:
        tensor = self.parts.weight(weight)
        shape = tensor.shape if rows is None else (rows, *tensor.shape[1:])
        return GraphTensor(name, tensor.dtype, shape, "the whole tensor" if rows is None else "the chunk's rows", tensor.name)


def _float(name: str, shape: Sequence[int], meaning: str) -> GraphTensor:
    return GraphTensor(name, "float32", tuple(shape), meaning)


def _named(*tensors: GraphTensor) -> dict[str, GraphTensor]:
    return {x.name: x for x in tensors}


def _static(x: GraphTensor, size: int = 1) -> GraphTensor:
    """int32 for int64, [1] for a scalar, and `size` for a free dimension."""
    shape = tuple(size if n < 0 else n for n in x.shape) or (1,)
    return msgspec.structs.replace(x, dtype="int32" if x.dtype == "int64" else x.dtype, shape=shape)
