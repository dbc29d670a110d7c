"""What `export_bundle` is asked for, and what it says of losses. It stands apart from the exporter, so that its defaults can be read
without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcsb_mobile.bundle.schedule import ScheduleConfig
from lcsb_mobile.config import AccuracyLevel, AdamWConfig, LoraConfig, Programs, QuantizationConfig, Quantizer, Record
from lcsb_mobile.targets import Target

TINY = "tiny"  # the embedded model


@dataclass(frozen=True)
class ExportOptions:
    """`model`: a Hugging Face directory, a .gguf file, or "tiny". `quantizer`: how the blocks are rounded (None: as `quantization` says,
    and where that has its default, as suits the model: `export.rounding`). `calibration`: the text of gptq (None: the toolkit's own).
    `programs`: for a gpu, those of the blocks hold to what its provider has kernels for (docs/onnxruntime.md)."""

    model: str
    output: Path
    target: Target = "onnxruntime"
    lora: LoraConfig = LoraConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    quantizer: Quantizer | None = None
    calibration: Path | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: AdamWConfig = AdamWConfig()
    seq_len: int = 256
    accuracy_level: AccuracyLevel = 0
    programs: Programs = "cpu"
    seed: int = 0
    force: bool = False


class TextLosses(Record, frozen=True):
    """What rounding cost: the loss in nats a token, of the `exact` model in float and of the `stored` weights, on `tokens` tokens of the
    calibration text. `held_out`: whether those are others than the weights were rounded against."""

    exact: float
    stored: float
    tokens: int
    held_out: bool
