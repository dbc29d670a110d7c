"""Writes the vectors that every port of the data pipeline is held to, tests/golden/data_pipeline.json: `write_data_vectors.py [FILE]`.

The cases are written by hand, the answers by this package. docs/data.md says what they are answers to.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.data.dataset import Dataset, DatasetWriter, hold_out
from lcsb_mobile.data.packing import OPEN_SEQUENCES, assign, epochs, pack
from lcsb_mobile.data.records import Example, LineExample
from lcsb_mobile.data.shuffling import shuffled, splitmix64

FILE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "data_pipeline.json"
SEEDS = (0, 1, 1234567, 2**63 - 1, -1)
PAD = 0


def sizes(count: int, most: int) -> list[int]:
    """`count` sizes from 2 to `most`, by a formula that any language has."""
    return [2 + (index * index * 7 + index * 3) % (most - 1) for index in range(count)]


def dataset(lengths: list[int], seq_len: int) -> Dataset:
    """Example e of n tokens: the token at t is 100 e + t; the labels of the first third are not counted, the last has none. What is
    longer than `seq_len` is cut."""
    writer = DatasetWriter(seq_len)
    for number, length in enumerate(lengths):
        ids = 100 * number + np.arange(length, dtype=np.int32)
        counted = np.append(np.arange(length - 1) >= length // 3, False)
        writer.add(LineExample(Example(ids, np.where(counted, ids + 1, -100).astype(np.int32)), "text"))
    return writer.dataset(Path("vectors"), "")


def members(batch: Batch) -> list[int]:
    """Which of `dataset`'s examples a sequence holds."""
    firsts = batch.input_ids[batch.position_ids == 0].tolist()
    padded = bool((batch.labels[batch.segment_ids == batch.segment_ids[-1]] == -100).all())
    return [first // 100 for first in (firsts[:-1] if padded else firsts)]


def generator(seed: int) -> dict[str, Any]:
    outputs = splitmix64(seed, np.arange(8, dtype=np.uint64)).tolist()
    return {"seed": seed, "outputs": [f"{output:016x}" for output in outputs]}


def order(seed: int, epoch: int, count: int) -> dict[str, Any]:
    return {"seed": seed, "epoch": epoch, "count": count, "order": shuffled(count, seed, epoch).tolist()}


def split(seed: int, count: int, share: float) -> dict[str, Any]:
    _, held_out = hold_out(dataset([4] * count, 4), share, seed)
    return {
        "seed": seed,
        "count": count,
        "share": share,
        "held_out": [int(held_out.example(i).input_ids[0]) // 100 for i in range(len(held_out))],
    }


def packing(count: int, seq_len: int, open_sequences: int) -> dict[str, Any]:
    lengths = sizes(count, seq_len)
    sequences = list(assign(enumerate(lengths), seq_len, open_sequences))
    return {"seq_len": seq_len, "open_sequences": open_sequences, "sizes": lengths, "sequences": sequences}


def stream(count: int, seq_len: int, seed: int, start: int, taken: int) -> dict[str, Any]:
    lengths = sizes(count, seq_len)
    batches = itertools.islice(epochs(dataset(lengths, seq_len), seq_len, PAD, seed, start), taken)
    return {"seq_len": seq_len, "seed": seed, "sizes": lengths, "start": start, "sequences": [members(batch) for batch in batches]}


def sequences(lengths: list[int], seq_len: int, pad_id: int) -> dict[str, Any]:
    data = dataset(lengths, seq_len)
    examples = [data.example(index) for index in range(len(data))]
    return {
        "seq_len": seq_len,
        "pad_id": pad_id,
        "examples": [{"input_ids": example.input_ids.tolist(), "labels": example.labels.tolist()} for example in examples],
        "batches": [{name: array.tolist() for name, array in vars(batch).items()} for batch in pack(data, seq_len, pad_id)],
    }


def vectors() -> dict[str, Any]:
    return {
        "splitmix64": [generator(seed) for seed in SEEDS],
        "orders": [order(seed, epoch, 12) for seed in SEEDS for epoch in (0, 1, -1)] + [order(7, 3, 1), order(7, 3, 100)],
        "held_out": [split(seed, count, share) for seed in (0, 5) for count, share in ((2, 0.9), (5, 0.1), (25, 0.1), (40, 0.25))],
        "packing": [packing(40, 24, bound) for bound in (1, 2, OPEN_SEQUENCES)] + [packing(200, 50, OPEN_SEQUENCES)],
        "epochs": [stream(23, 24, 3, start, 12) for start in (0, 1, 17, 40)],
        "sequences": [sequences([5, 9, 3, 8, 15, 2, 12], 12, 7)],
    }


def text() -> str:
    """One case a line."""
    parts = [f' "{name}": [\n  ' + ",\n  ".join(json.dumps(case) for case in cases) + "\n ]" for name, cases in vectors().items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(), encoding="utf-8")
