"""What the benchmarks share: running `lcsb` in a fresh process, and writing tables that the documentation includes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
MODELS = ROOT / "models"
LCSB = Path(sys.executable).with_name("lcsb")
DEVICE_LCSB = ROOT / ".venv-onnxruntime/bin/lcsb"  # stock ONNX Runtime, without torch
TRAINING_LCSB = ROOT / ".venv-onnxruntime-training/bin/lcsb"
EXPORTERS = {"onnxruntime": LCSB, "onnxruntime-training": TRAINING_LCSB}
RUNNERS = {"onnxruntime": DEVICE_LCSB, "onnxruntime-training": TRAINING_LCSB}


def lcsb(*arguments: str | Path, program: Path = LCSB) -> dict[str, Any]:
    """One `lcsb … --json` in a process of its own; its progress goes to the terminal."""
    command = [str(program), *map(str, arguments), "--json"]
    print("$ lcsb", *arguments, file=sys.stderr, flush=True)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def device_lcsb(*arguments: str | Path) -> dict[str, Any]:
    """`lcsb` in the environment of a device: its processes hold no torch."""
    return lcsb(*arguments, program=DEVICE_LCSB)


def measured(*command: str | Path) -> tuple[float, int]:
    """Runs a command; returns wall seconds and peak resident bytes as Linux accounts them."""
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def smollm2(given: str | None) -> Iterator[Path]:
    """The bundle of SmolLM2 that is given, or one of 128 tokens a sequence, exported for the time being."""
    if given is not None:
        yield Path(given).resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "smollm2-135m"
        lcsb("export", MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", "--seq-len", "128", "--quantizer", "search", "--output", bundle)
        yield bundle


def random_text(path: Path, length: int, lines: int = 40) -> None:
    """Lines of random letters, one byte a token in the random checkpoints' tokenizer."""
    letters = np.random.default_rng(0).integers(97, 123, (lines, length * 3 // 4), dtype=np.uint8)
    path.write_text("".join(json.dumps({"text": bytes(line).decode()}) + "\n" for line in letters))


def processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return f"{len(names)} x {names[0]}{vectors and f', {vectors}'}" if names else platform.processor()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def machine_now() -> str:
    return f"{processor()}, Python {platform.python_version()}"


def write_results(name: str, table: str, data: Any, command: str | None = None, machine: str | None = None) -> None:
    """results/NAME.json and results/NAME.md, with the machine they were measured on (None: this one). `command`: what makes them, `NAME.py`
    unless given."""
    RESULTS.mkdir(exist_ok=True)
    machine = machine or machine_now()
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine, "rows": data}, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(f"{table}\nMeasured on {machine}; `python benchmarks/{command or f'{name}.py'}`.\n")
    print(table)
