"""What gptq takes of time and memory: a model's first layers rounded by the search and by gptq, each in a process of its own.

All layers of these models have one shape, and of the float model one layer is in memory: so the seconds of all layers are those of one
times their number, and the peak is that of the whole. The models are SmolLM2-135M (`make models`) and, with random weights, the shapes of
Qwen2.5 0.5B and 1.5B. Processor seconds say what was computed even where other work ran beside.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import MODELS, ROOT, markdown_table, measured, write_results

from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint, open_checkpoint
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.weights.calibrate import calibrated_layers, read_calibration
from lcsb_mobile.export.weights.compress import searched_layers
from lcsb_mobile.measuring.memory import MemorySampler
from lcsb_mobile.text.tokenizer import Tokenizer

SMOLLM2 = "SmolLM2-135M"
LAYERS = {SMOLLM2: (30, 4), "qwen2.5-0.5b": (24, 2), "qwen2.5-1.5b": (28, 1)}  # of the model, and measured
HEADER = ("model", "quantizer", "layers measured", "processor seconds a layer", "of all layers, scaled", "peak anonymous")
GEMM = 1024  # its size, of the products that say how fast this machine is now


def main() -> None:
    if sys.argv[1:2] == ["--layers"]:
        print(json.dumps(one_run(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
        return
    rows, table = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for name, (layers, count) in LAYERS.items():
            path = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf" if name == SMOLLM2 else Path(temporary) / name
            if name != SMOLLM2:
                script = ROOT / "benchmarks/random_checkpoint.py"
                measured(sys.executable, script, path, "--shape", name, "--layers", str(count))
            for quantizer in ("search", "gptq"):
                run = fresh_run(path, quantizer, count)
                rows.append({"model": name, "quantizer": quantizer, "layers": layers, "measured_layers": count} | run)
                table.append(row_of(rows[-1]))
                print(table[-1], file=sys.stderr, flush=True)
    write_results("gptq_cost", markdown_table(HEADER, table), rows)


def row_of(row: dict[str, Any]) -> list[str]:
    a_layer = row["processor_seconds"] / row["measured_layers"]
    counts, peak = f"{row['measured_layers']} of {row['layers']}", f"{row['peak_anonymous_bytes'] / 1e6:,.0f} MB"
    return [row["model"], row["quantizer"], counts, f"{a_layer:.1f}", f"{a_layer * row['layers']:,.0f}", peak]


def fresh_run(path: Path, quantizer: str, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--layers", str(path), quantizer, str(count)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return result


def one_run(path: Path, quantizer: str, count: int) -> dict[str, float | None]:
    gemm_gflops()  # the first is slower
    speed = gemm_gflops()
    quantization = QuantizationConfig()
    with MemorySampler() as sampler, open_checkpoint(path) as checkpoint:
        tokens = calibration_of(checkpoint)
        whole = calibrated_layers(checkpoint, quantization, tokens) if quantizer == "gptq" else searched_layers(checkpoint, quantization)
        kinds = [kind for _, kind in model_of(checkpoint.config).walk()][:count]
        tensors = sum(len(kind.matrices) + len(kind.vectors) for kind in kinds)
        start, processor = time.perf_counter(), time.process_time()
        for _ in itertools.islice(whole, tensors):
            pass
        seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_anonymous_bytes": sampler.peak_anonymous,
        "threads": torch.get_num_threads(),
        "gemm_gflops": speed,
    }


def calibration_of(checkpoint: Checkpoint) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.write_tokenizer(Path(directory))
        return read_calibration(None, Tokenizer.open(Path(directory), checkpoint.config.vocab_size)).tokens


def gemm_gflops() -> float:
    a = torch.randn(GEMM, GEMM)
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    return 10 * 2 * GEMM**3 / (time.perf_counter() - start) / 1e9


if __name__ == "__main__":
    main()
