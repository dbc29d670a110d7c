"""What `export_bundle` is asked for. It stands apart from the exporter, so that its defaults can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcsb_mobile.bundle.schedule import ScheduleConfig
from lcsb_mobile.config import AccuracyLevel, AdamWConfig, LoraConfig, QuantizationConfig
from lcsb_mobile.targets import Target

TINY = "tiny"  # the embedded model


@dataclass(frozen=True)
class ExportOptions:
    """`model`: a Hugging Face directory, a .gguf file, or "tiny". `calibration`: the text of quantizer gptq (None: the toolkit's own)."""

    model: str
    output: Path
    target: Target = "onnxruntime"
    lora: LoraConfig = LoraConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    calibration: Path | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: AdamWConfig = AdamWConfig()
    seq_len: int = 256
    accuracy_level: AccuracyLevel = 0
    seed: int = 0
    force: bool = False
