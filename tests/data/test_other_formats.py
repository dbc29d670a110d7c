"""Files of other formats: recognised, and the command that the error gives is run, and what it writes is read."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.data import byte_backend, lists, make_tokenizer, write

from lcsb_mobile.data.dataset import LINE_LIMIT, read_dataset
from lcsb_mobile.data.other_formats import other_format
from lcsb_mobile.errors import DataError

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[1] / "golden" / "data_pipeline.json").read_text("utf-8"))
RECORDS = [
    {"prompt": 'a "b"', "completion": "c\n}\nd, e; f\té"},
    {"prompt": "}", "completion": "🙂", "id": "1"},
    {"prompt": "{\n", "completion": "[]"},
]
BOM = "\ufeff"


def table(delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "prompt", "completion"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue()


LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
INDENTED = "\n".join(json.dumps(record, indent=2, ensure_ascii=False) for record in RECORDS) + "\n"
FILES = {
    "array": json.dumps(RECORDS).encode(),
    "array with a mark": (BOM + json.dumps(RECORDS, indent=1, ensure_ascii=False)).encode(),
    "array a line each": ("\n[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]").encode(),
    "indented": INDENTED.encode(),
    "indented with returns": INDENTED.replace("\n", "\r\n").encode(),
    "indented with a mark": (BOM + INDENTED).encode(),
    "indented without an end": INDENTED.strip().encode(),
    "UTF-16": LINES.encode("utf-16"),
    "UTF-16LE": LINES.encode("utf-16-le"),
    "UTF-16BE": LINES.encode("utf-16-be"),
    "csv": table(",").encode(),
    "csv with a mark": (BOM + table(",")).encode(),
    "csv with semicolons": table(";").encode(),
    "tsv": table("\t").encode(),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_the_command_does_it(tmp_path: Path, content: bytes) -> None:
    tokenizer = make_tokenizer(byte_backend())
    path = tmp_path / "it's my data.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"it's my data.json:[12]: [^\n]*$") as caught:
        read_dataset(path, tokenizer, 1000)
    command = str(caught.value).rsplit(": ", 1)[1] if "iconv" in str(caught.value) else str(caught.value).split("a line: ", 1)[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    converted = read_dataset(tmp_path / "it's my data.lines.jsonl", tokenizer, 1000)
    expected = read_dataset(write(tmp_path, *RECORDS), tokenizer, 1000)
    assert [lists(converted.example(i)) for i in range(3)] == [lists(expected.example(i)) for i in range(3)]


@pytest.mark.parametrize("case", VECTORS["file_starts"], ids=lambda case: f"{case['file']} {case['start'][:20]}")
def test_vectors(case: dict[str, Any]) -> None:
    assert other_format(bytes.fromhex(case["start"]), case["file"]) == case["answer"]


def test_an_array_on_one_line_longer_than_any(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(json.dumps([{"text": "a" * LINE_LIMIT}]).encode())
    with pytest.raises(DataError, match="data.json:1: a JSON array; expected one JSON object a line: python3"):
        read_dataset(path, make_tokenizer(byte_backend()), 10)


def test_behind_a_line_that_was_read_a_line_is_only_malformed(tmp_path: Path) -> None:
    for line, reason in ((b"[", "not JSON"), (b"{", "not JSON"), (b"text", "not JSON"), (b"\xff\xfe{", "UTF-16; save the file as UTF-8$")):
        with pytest.raises(DataError, match=rf"data.jsonl:2: .*{reason}"):
            read_dataset(write(tmp_path, {"text": "a"}, line), make_tokenizer(byte_backend()), 10)
