"""The head of a model by its programs: in one, or a chunk of its rows at a time where programs have neither loops nor free dimensions.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.programs import CHUNK_START, CHUNK_WEIGHTS, chunk_starts
from lcsb_mobile.runners.block_programs import BlockPrograms

LEAST = -1e30  # below any logit: where the running maximum starts, and what is added to the logit of a row that was counted before


class Head(Protocol):
    def loss(self, h: Float32Array, labels: np.ndarray, g: Float32Array | None = None) -> float:
        """h[L] [T, D], labels [T] -> the mean cross-entropy; its gradient by h[L] is written to `g` if given."""
        ...

    def logits(self, h: Float32Array) -> Float32Array:
        """h[L] of one token, [1, D] -> [V]."""
        ...


def make_head(programs: BlockPrograms) -> Head:
    """By the programs that the bundle's target has."""
    return ChunkedHead(programs) if programs.row.static_shapes else WholeHead(programs)


class WholeHead:
    """The programs `head`, `head_eval` and `logits`."""

    def __init__(self, programs: BlockPrograms) -> None:
        self._programs = programs

    def loss(self, h: Float32Array, labels: np.ndarray, g: Float32Array | None = None) -> float:
        loss = np.empty((), np.float32)
        outputs = {"loss": loss} if g is None else {"loss": loss, "g": g}
        self._programs.run("head_eval" if g is None else "head", {"h": h, "labels": labels}, outputs)
        return float(loss)

    def logits(self, h: Float32Array) -> Float32Array:
        logits = np.empty(self._programs.model.vocab_size, np.float32)
        self._programs.run("logits", {"h": h}, {"logits": logits})
        return logits


class ChunkedHead:
    """`head_start`, a `head_chunk` for each chunk of rows, `head_end`; without the gradient `eval_chunk` and `eval_end`. What goes from
    chunk to chunk is the online softmax of `export/graphs/head.py`: the running maximum, sum and weighted sum."""

    def __init__(self, programs: BlockPrograms) -> None:
        self._programs = programs
        (self._rows,) = programs.outputs("logits_chunk")["logits"].shape
        self._starts = chunk_starts(programs.model.vocab_size, self._rows)

    def loss(self, h: Float32Array, labels: np.ndarray, g: Float32Array | None = None) -> float:
        programs = self._programs
        chosen = programs.new_outputs("head_start")
        programs.run("head_start", {"h": h, "labels": programs.integers(labels)}, chosen)
        chunk, end = ("eval_chunk", "eval_end") if g is None else ("head_chunk", "head_end")
        before, after = programs.new_outputs(chunk), programs.new_outputs(chunk)
        for name, x in before.items():
            x.fill(LEAST if name == "peak_next" else 0)
        for rows, seen in self._chunks(chunk):
            bias = np.zeros((1, self._rows), np.float32)
            bias[0, :seen] = LEAST
            programs.between_layers()
            programs.run(chunk, {"x": chosen["x"], "bias": bias, **_carried(before), **rows}, after)
            before, after = after, before
        loss = np.empty(1, np.float32)
        if g is None:
            programs.run(end, {**chosen, **_carried(before)}, {"loss": loss})
        else:
            programs.run(end, {"h": h, **chosen, **_carried(before)}, {"loss": loss, "g": g})
        return float(loss[0])

    def logits(self, h: Float32Array) -> Float32Array:
        programs = self._programs
        normed, part = programs.new_outputs("logits_start"), programs.new_outputs("logits_chunk")
        programs.run("logits_start", {"h": h}, normed)
        logits = np.empty(programs.model.vocab_size, np.float32)
        for (start, _), (rows, _) in zip(self._starts, self._chunks("logits_chunk")):
            programs.run("logits_chunk", {**normed, **rows}, part)
            logits[start : start + self._rows] = part["logits"]
        return logits

    def _chunks(self, program: str) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """What the program is fed of each chunk, and how many of its rows the chunk before it has had."""
        inputs = self._programs.manifest.graphs[program].inputs
        weights = {x.name: self._programs.weights[x.weight] for x in inputs if x.name in CHUNK_WEIGHTS and x.weight is not None}
        for start, seen in self._starts:
            rows = {name: x[start : start + self._rows] for name, x in weights.items()}
            yield rows or {CHUNK_START: np.array([start], np.int32)}, seen


def _carried(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A chunk's outputs as the next one's inputs."""
    return {name.removesuffix("_next"): x for name, x in outputs.items()}
