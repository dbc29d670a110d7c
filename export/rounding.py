"""How a model's weights are to be rounded, against which text, and what it knows of that text.

If no quantizer is asked for the rule is one: **gptq for 4 bits of a model that knows the text, else the search**. It knows a text of the
person's own choice by their word, and the toolkit's own where its loss there is clearly below that of guessing, log(vocabulary). Random
weights do not know it, nor does a model of another language or of no language, for which it would be the wrong text to round against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
from torch import Tensor

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.export_options import ExportOptions, TextLosses
from lcsb_mobile.config import ModelConfig, QuantizationConfig, Quantizer
from lcsb_mobile.errors import DataError, OptionError, TokenizerError
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint
from lcsb_mobile.export.reference.eager import EagerRunner
from lcsb_mobile.export.reference.text_loss import float_loss, text_batch
from lcsb_mobile.export.weights.calibrate import CalibrationText, read_calibration
from lcsb_mobile.text.tokenizer import Tokenizer

KNOWS = 0.9  # of log(vocabulary): random weights come out above 1, SmolLM2-135M at 0.32 and the embedded `tiny` at 0.39


@dataclass(frozen=True)
class Rounding:
    """`quantization`: with the quantizer that is taken. `calibration`: int64 [S, T], what gptq rounds against. `measured`: what losses are
    taken on, whether that is apart from `calibration` (`held_out`), and `exact_loss`, the float model's; None where the text has too few
    tokens to tell."""

    quantization: QuantizationConfig
    calibration: Tensor | None = None
    measured: Batch | None = None
    exact_loss: float | None = None
    held_out: bool = True

    def losses(self, runner: EagerRunner, adapter: Float32Array) -> TextLosses | None:
        """The float model's and that of the weights as they are stored, of `runner`. `adapter`: as initialised, which changes nothing."""
        if self.measured is None or self.exact_loss is None:
            return None
        stored = runner.evaluate(self.measured, adapter)
        return TextLosses(self.exact_loss, stored, self.measured.counted_labels, self.held_out)


def check_quantizer(options: ExportOptions) -> None:
    """Raises OptionError."""
    asked, bits = asked_quantizer(options), options.quantization.bits
    if asked is not None and asked not in get_args(Quantizer):
        raise OptionError(f"quantizer: expected {' or '.join(get_args(Quantizer))}, found {asked!r}")
    if asked == "gptq" and bits != 4:
        raise OptionError(f"quantizer: gptq rounds to 4 bits, found {bits}; leave it out: at 8 bits rounding costs next to nothing")
    if options.calibration and asked == "search":
        raise OptionError(f"calibration: {options.calibration} would not be read; give --quantizer gptq with it")
    if options.calibration and bits != 4:
        raise OptionError(f"calibration: {options.calibration} would not be read at {bits} bits; leave it out, or give --bits 4 with it")


def asked_quantizer(options: ExportOptions) -> Quantizer | None:
    """None: what suits the model."""
    named = options.quantization.quantizer
    return options.quantizer or (None if named == QuantizationConfig().quantizer else named)


def plan_rounding(checkpoint: Checkpoint, tokenizer: Tokenizer, options: ExportOptions) -> Rounding:
    """Raises DataError or TokenizerError for a text that gptq was asked to read and that cannot be."""
    asked, bits = asked_quantizer(options), options.quantization.bits
    text = _text(options.calibration, tokenizer, needed=asked == "gptq" or options.calibration is not None)
    measured = None if text is None else text_batch(text.measured[:, : options.seq_len])
    loss = None if measured is None else float_loss(checkpoint, measured)
    quantizer = asked or suiting_quantizer(checkpoint.config, bits, options.calibration, loss)
    if quantizer == "search" or text is None:
        return Rounding(msgspec.structs.replace(options.quantization, quantizer="search"), None, measured, loss)
    quantization = msgspec.structs.replace(options.quantization, quantizer="gptq", calibration=text.description)
    return Rounding(quantization, text.tokens, measured, loss, text.held_out)


def suiting_quantizer(config: ModelConfig, bits: int, calibration: Path | None, loss: float | None) -> Quantizer:
    """`loss`: the float model's, in nats a token, or None where there is none."""
    knows = calibration is not None or (loss is not None and loss < KNOWS * math.log(config.vocab_size))
    return "gptq" if bits == 4 and knows else "search"


def _text(path: Path | None, tokenizer: Tokenizer, needed: bool) -> CalibrationText | None:
    try:
        return read_calibration(path, tokenizer)
    except (DataError, TokenizerError):
        if needed:
            raise
        return None
