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
from lcsb_mobile.data.line_record import ChatLine, TextLine, decode_line
from lcsb_mobile.data.other_formats import other_format
from lcsb_mobile.data.packing import OPEN_SEQUENCES, assign, epochs, pack
from lcsb_mobile.data.records import Example, LineExample, has_doubled_ends
from lcsb_mobile.data.shuffling import shuffled, splitmix64
from lcsb_mobile.errors import DataError

FILE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "data_pipeline.json"
SEEDS = (0, 1, 1234567, 2**63 - 1, -1)
PAD = 0
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
ALPACA = {"instruction": "a", "output": "b"}
RECORDS: list[dict[str, Any]] = [
    {"text": "a"},
    {"id": 7, "text": "a", "source": {"x": [1]}, "k" * 60: None},
    {"prompt": "a", "completion": "b", "weight": 0.5},
    {"prompt": "a", "messages": TURNS, "tools": []},  # as UltraChat: a prompt alone is no form
    {"messages": [TURNS[0] | {"name": "x"}, TURNS[1] | {"name": "y", "weight": 0}]},
    {"messages": TURNS, "system": "s"},
    {"messages": SHAREGPT},
    {"conversations": SHAREGPT, "id": "x"},
    {"conversations": TURNS},
    {"conversations": SHAREGPT, "system": "s", "tools": "t"},
    {"conversations": SHAREGPT, "system": ""},
    {"conversations": SHAREGPT, "system": None},
    {"conversations": [{"from": "system", "value": "t"}, *SHAREGPT], "system": "s"},
    {"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]},
    ALPACA,
    ALPACA | {"input": "c"},
    ALPACA | {"input": ""},
    ALPACA | {"input": None, "system": "s", "history": [["c", "d"], ["e", "f"]], "category": "x"},
    ALPACA | {"output": ""},
    ALPACA | {"instruction": "", "input": "c", "history": None},
    {},
    {"txt": "a"},
    {"prompt": "a", "complation": "b"},
    {"instruction": "a", "response": "b"},
    {"text": "a", "messages": TURNS},
    ALPACA | {"text": "a", "input": ""},
    {"messages": TURNS, "conversations": SHAREGPT},
    {"text": None},
    {"text": ""},
    {"prompt": "a", "completion": 5},
    {"messages": []},
    {"conversations": []},
    {"messages": {}},
    {"conversations": "a"},
    {"messages": [None]},
    {"messages": [{"role": "user"}]},
    {"messages": [TURNS[0] | SHAREGPT[0]]},
    {"messages": [{"role": "user", "value": "a"}]},
    {"messages": [{"role": "user", "content": ["a"]}]},
    {"messages": [{"role": "", "content": "a"}]},
    {"messages": [{"role": "user", "content": ""}]},
    {"conversations": [{"from": "observation", "value": "a"}]},
    {"conversations": [{"from": 1, "value": "a"}]},
    {"conversations": SHAREGPT, "system": 1},
    ALPACA | {"input": 1},
    ALPACA | {"history": "a"},
    ALPACA | {"history": ["ab"]},
    ALPACA | {"history": [["a"]]},
    ALPACA | {"history": [["a", True]]},
    {"instruction": "", "output": ""},
]
# An example's tokens, the token of beginning, that of end.
ENDS: list[tuple[list[int], int | None, int | None]] = [
    ([1, 5, 6, 2], 1, 2),
    ([1, 1, 5, 2], 1, 2),
    ([1, 5, 2, 2], 1, 2),
    ([1, 5, 2, 2, 6, 2], 1, 2),
    ([5, 1, 1, 2], 1, 2),
    ([1, 1, 2, 2], None, None),
    ([0, 0, 5, 2], None, 2),
    ([3, 5, 3], 3, 3),
    ([3, 3, 5, 3], 3, 3),
    ([2], 1, 2),
    ([], 1, 2),
]
FILES = [
    ("data.json", "[\n"),
    ("my data's.json", '\ufeff [{"text": "a"}, {"text": "b"}]'),
    ("data.txt", "[Verse 1]\n"),
    ("data/all.records.json", "{\r\n"),
    (".data", "{"),
    ("data.csv", "text\n"),
    ("data.csv", '\ufeffid,"prompt","completion"\r\n'),
    ("data.tsv", "instruction\tinput\toutput\n"),
    ("data.csv", "output; instruction;x\n"),
    ("data.jsonl", '{"text": "a"}\n'),
    ("data.jsonl", '{"text": \n'),
    ("data.txt", "a text, and nothing else\n"),
    ("data.csv", "messages,id\n"),
]


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
        "tokens_sha256": data.tokens_sha256,
        "examples": [{"input_ids": example.input_ids.tolist(), "labels": example.labels.tolist()} for example in examples],
        "batches": [{name: array.tolist() for name, array in vars(batch).items()} for batch in pack(data, seq_len, pad_id)],
    }


def record(fields: dict[str, Any]) -> dict[str, Any]:
    """What a line says, or why it is refused."""
    line = json.dumps(fields)
    try:
        read, further = decode_line(line.encode())
    except DataError as error:
        return {"line": line, "reason": str(error)}
    if isinstance(read, TextLine):
        return {"line": line, "text": read.text, "further_keys": further}
    if isinstance(read, ChatLine):
        return {"line": line, "turns": [[each.role, each.content] for each in read.messages], "further_keys": further}
    return {"line": line, "prompt": read.prompt, "completion": read.completion, "further_keys": further}


def file_start(name: str, start: bytes) -> dict[str, Any]:
    """What is said of a file that begins so; null where it is JSON lines or not known."""
    return {"file": name, "start": start.hex(), "answer": other_format(start, name)}


def doubled_ends(ids: list[int], bos: int | None, eos: int | None) -> dict[str, Any]:
    return {"ids": ids, "bos": bos, "eos": eos, "doubled": has_doubled_ends(ids, bos, eos)}


def vectors() -> dict[str, Any]:
    line = '{"text": "é"}\n'
    encoded = [("data.jsonl", line.encode(encoding)) for encoding in ("utf-16-le", "utf-16-be")]
    encoded += [("data.jsonl", mark + line.encode(name)) for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))]
    return {
        "records": [record(fields) for fields in RECORDS],
        "file_starts": [file_start(name, start.encode()) for name, start in FILES] + [file_start(*case) for case in encoded],
        "doubled_ends": [doubled_ends(*case) for case in ENDS],
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
