"""What bits cost: loss of SmolLM2-135M-Instruct on two texts, its matrices rounded as an export rounds them.

The texts: the first 24 sequences of 128 tokens of `fortunes` (held-out part) and of the licence in this repository. gptq is
calibrated on the toolkit's own text, or on the training part of `fortunes`, which is of the first text's kind, or on both. Needs
`make models`. `bits.py default`: float32 and what `lcsb export` gives at its defaults, by either quantizer, as a table of their own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from common import MODELS, ROOT, markdown_table, write_results

from lcsb_mobile.config import ModelConfig, QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint, open_checkpoint
from lcsb_mobile.export.reference.float_model import Read, model_logits
from lcsb_mobile.export.weights.calibrate import calibrated_layers, read_calibration
from lcsb_mobile.export.weights.quantization import QuantizedMatrix, dequantize, quantize
from lcsb_mobile.text.tokenizer import Tokenizer

OWN, FORTUNES = "own text", "fortunes"
CALIBRATION_FILES = {OWN: None, FORTUNES: MODELS / "fortunes.train.jsonl"}
SEQUENCE, SEQUENCES = 128, 24


@dataclass(frozen=True)
class Setting:
    """`bits` None: float32. `calibration`: the texts that gptq is given; without any, each weight is rounded by itself."""

    bits: int | None
    embedding_bits: int | None
    group_size: int
    calibration: tuple[str, ...] = ()

    def label(self) -> list[str]:
        names = [f"{bits} bits, group {self.group_size}" if bits else "float32" for bits in (self.bits, self.embedding_bits)]
        return [*names, f"gptq, {' and '.join(self.calibration)}" if self.calibration else "search" if self.bits else ""]


SETTINGS = (
    Setting(None, None, 32),
    Setting(8, 8, 64),
    Setting(4, 4, 64),
    Setting(4, 4, 32),
    Setting(4, 8, 64),
    Setting(4, 8, 32),
    Setting(4, 8, 16),
    Setting(4, 8, 64, (OWN,)),
    Setting(4, 8, 32, (OWN,)),
    Setting(4, 8, 16, (OWN,)),
    Setting(4, 8, 64, (FORTUNES,)),
    Setting(4, 8, 32, (FORTUNES,)),
    Setting(4, 8, 32, (OWN, FORTUNES)),
)
DEFAULTS = (Setting(None, None, 32), Setting(4, 8, 32), Setting(4, 8, 32, (OWN,)))


def rounded(checkpoint: Checkpoint, setting: Setting, tokenizer: Tokenizer) -> Read:
    """The tensors of the rounded model, which is held in float."""
    calibrated: dict[str, torch.Tensor] = {}
    if setting.calibration:
        tokens = torch.cat([read_calibration(CALIBRATION_FILES[name], tokenizer).tokens for name in setting.calibration])
        quantization = QuantizationConfig(4, 8, setting.group_size, "gptq")
        for layer, name, tensor in calibrated_layers(checkpoint, quantization, tokens):
            calibrated[f"model.layers.{layer}.{name}"] = restored(tensor) if isinstance(tensor, QuantizedMatrix) else tensor

    def read(name: str) -> torch.Tensor:
        if name not in calibrated:
            tensor = checkpoint.read(name)
            bits = setting.embedding_bits if "embed" in name or "lm_head" in name else setting.bits
            calibrated[name] = tensor if tensor.dim() < 2 or bits is None else restored(quantize(tensor, bits, setting.group_size))
        return calibrated[name]

    return read


def restored(matrix: QuantizedMatrix) -> torch.Tensor:
    return dequantize(matrix.packed, matrix.scale)


def main() -> None:
    checkpoint = open_checkpoint(MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")
    directory = ROOT / "runs" / "tokenizer"
    checkpoint.write_tokenizer(directory)
    tokenizer = Tokenizer.open(directory, checkpoint.config.vocab_size)
    sequences = evaluation_texts(tokenizer)
    rows, table, defaults = [], [], sys.argv[1:] == ["default"]
    name, command = ("bits_default", "bits.py default") if defaults else ("bits", "bits.py")
    header = ["blocks", "embedding and head", "rounding", "loss on fortunes / on the licence"]
    for setting in DEFAULTS if defaults else SETTINGS:
        start = time.perf_counter()
        read = rounded(checkpoint, setting, tokenizer)
        seconds = time.perf_counter() - start if setting.calibration else None
        losses = {name: mean_loss(checkpoint.config, read, ids) for name, ids in sequences.items()}
        rows.append(asdict(setting) | losses | {"calibration_seconds": seconds})
        table.append([*setting.label(), " / ".join(f"{loss:.3f}" for loss in losses.values())])
        print(table[-1], flush=True)
        write_results(name, markdown_table(header, table), rows, command)  # after each row: all of them take most of an hour


def evaluation_texts(tokenizer: Tokenizer) -> dict[str, Sequence[torch.Tensor]]:
    sayings = [json.loads(line)["text"] for line in (MODELS / "fortunes.eval.jsonl").read_text().splitlines()]
    texts = {"fortunes": "\n\n".join(sayings[:400]), "licence": (ROOT / "LICENSE").read_text()}
    return {name: torch.tensor(tokenizer.encode(text))[: SEQUENCE * SEQUENCES].split(SEQUENCE) for name, text in texts.items()}


def mean_loss(config: ModelConfig, read: Read, sequences: Sequence[torch.Tensor]) -> float:
    losses = [torch.nn.functional.cross_entropy(model_logits(config, read, ids)[:-1], ids[1:]) for ids in sequences if len(ids) == SEQUENCE]
    return float(torch.stack(losses).mean())


if __name__ == "__main__":
    main()
