"""Writes the bundles that tests_device reads: `export_test_bundles.py DIRECTORY`.

They are of small random models of every architecture, and of the embedded one, each with its golden trace. Exporting needs torch, the
tests do not: they are run in environments that have none. `make device-bundles` calls this.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from helpers.checkpoints import write_checkpoint
from helpers.tiny_models import HYBRID_SEQ_LEN, HYBRIDS, MODELS

from lcsb_mobile.bundle.export_options import TINY, ExportOptions
from lcsb_mobile.bundle.schedule import ScheduleConfig
from lcsb_mobile.config import AccuracyLevel, AdamWConfig, LoraConfig, Programs, QuantizationConfig
from lcsb_mobile.export.bundle import export_bundle

TARGET = "onnxruntime"
GROUP = 8  # divides the widths 48, 72 and 80 of the random models
SEQ_LEN = 31  # no multiple of anything
TINY_SEQ_LEN = 32  # an emulated processor runs these too


@dataclass(frozen=True)
class Case:
    """`model`: a name of `helpers.tiny_models.MODELS`, or "tiny". `layers`: instead of the model's own."""

    model: str
    layers: int | None = None
    quantization: QuantizationConfig = QuantizationConfig(group_size=GROUP)
    schedule: ScheduleConfig = ScheduleConfig(subsets=3)
    optimizer: AdamWConfig = AdamWConfig()
    seq_len: int = SEQ_LEN
    accuracy_level: AccuracyLevel = 0
    programs: Programs = "cpu"


CASES = {
    "llama": Case("llama"),
    "llama-untied-int8": Case("llama-untied", quantization=QuantizationConfig(bits=8, group_size=GROUP)),
    # The trace's run takes two cycles: here 20 optimizer steps, in most of which momentum alone moves a layer.
    # The one with programs for a GPU, which every core runs on its CPU.
    "llama-20-steps": Case("llama-untied", layers=10, schedule=ScheduleConfig(subsets=10), programs="gpu"),
    "qwen2": Case("qwen2", schedule=ScheduleConfig(method="lcsb-identity", subsets=3), optimizer=AdamWConfig(implicit_updates="none")),
    "qwen2-untied-int4-head": Case("qwen2-untied", quantization=QuantizationConfig(embedding_bits=4, group_size=GROUP)),
    "qwen3": Case("qwen3"),
    "qwen3-untied-int8": Case("qwen3-untied", quantization=QuantizationConfig(bits=8, group_size=GROUP)),
    "gemma3": Case("gemma3"),
    "gemma3-untied-int8": Case(
        "gemma3-untied", quantization=QuantizationConfig(bits=8, group_size=GROUP), schedule=ScheduleConfig(method="full")
    ),
    "phi3": Case("phi3"),
    "gemma2": Case("gemma2"),
    "granite": Case("granite"),
    "smollm3": Case("smollm3"),
    "lfm2": Case("lfm2"),
    "qwen3_5": Case("qwen3_5", schedule=ScheduleConfig(method="lcsb-identity", subsets=3), seq_len=HYBRID_SEQ_LEN),
    "tiny": Case(TINY, quantization=QuantizationConfig(), schedule=ScheduleConfig(), seq_len=TINY_SEQ_LEN),
    # The one whose results differ from processor to processor by more than float32's rounding.
    "tiny-int8-activations": Case(
        TINY, quantization=QuantizationConfig(), schedule=ScheduleConfig(), seq_len=TINY_SEQ_LEN, accuracy_level=4
    ),
}


def export(case: Case, output: Path) -> Path:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # saving a checkpoint of these takes no time
    with tempfile.TemporaryDirectory() as temporary:
        model = case.model
        if model != TINY:
            model_type, tied, overrides = (MODELS | HYBRIDS)[model]
            if case.layers is not None:
                overrides = overrides | {"num_hidden_layers": case.layers}
            model = str(write_checkpoint(Path(temporary) / model, model_type, tied=tied, **overrides))
        options = ExportOptions(
            model=model,
            output=output,
            target=TARGET,
            lora=LoraConfig(rank=4),
            quantization=case.quantization,
            schedule=case.schedule,
            optimizer=case.optimizer,
            seq_len=case.seq_len,
            accuracy_level=case.accuracy_level,
            programs=case.programs,
            force=True,
        )
        export_bundle(options)
    return output


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for path in pool.map(export, CASES.values(), [directory / name for name in CASES]):
            print(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
