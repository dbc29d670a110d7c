"""Our GPTQ beside llm-compressor's, on matrices of SmolLM2-135M-Instruct and the inputs that calibration gives them.

What is compared is tr(E H Eᵀ), the squared error of the outputs, over that of rounding to nearest with the searched scales; and, given the
same scales, the integers. Needs `make models`, and beside the environment `pip install llmcompressor` in a copy of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from common import MODELS, ROOT, markdown_table, write_results
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from torch import Tensor

from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.weights import calibrate as calibrate_weights
from lcsb_mobile.export.weights.calibrate import calibrated_layers, read_calibration
from lcsb_mobile.export.weights.gptq import InputStatistics, quantize_for_inputs, quantize_together, round_in_order
from lcsb_mobile.export.weights.quantization import QuantizedMatrix, dequantize, quantize
from lcsb_mobile.text.tokenizer import Tokenizer

GROUP, LAYERS = 32, 4
NAMES = "q_proj", "o_proj", "gate_proj", "down_proj"
ARGS = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    error = (weight - rounded).double()
    return float(((error @ hessian.double()) * error).sum())


def peer(weight: Tensor, hessian: Tensor, scale: Tensor) -> Tensor:
    """The rounded matrix [N, K]; `scale` [N, K/G]. Our H is damped already."""
    zero = torch.zeros_like(scale)
    rounded, _, fallback = quantize_weight(weight[None].clone(), hessian[None].clone(), scale[None], zero[None], None, ARGS, percdamp=0.0)
    assert not fallback.any()
    return rounded[0]


def compare(weight: Tensor, statistics: InputStatistics) -> tuple[float, float, float, float, float]:
    """Share of equal integers given our scales, and the errors over that of rounding to nearest: the peer's with the scales of rounding to
    nearest, and with ours; ours before the descent, and after it."""
    without_drift = InputStatistics(statistics.hessian, statistics.feedback, statistics.pivots, torch.zeros_like(statistics.hessian))
    searched = quantize(weight, 4, GROUP)
    q, scales = round_in_order(weight.t().contiguous(), without_drift, GROUP)
    ours = (q * scales.repeat_interleave(GROUP, 0)).t()
    theirs = peer(weight, statistics.hessian, scales.t().contiguous())
    equal = (theirs - ours).abs() < 0.5 * scales.abs().repeat_interleave(GROUP, 0).t()
    after = quantize_for_inputs(weight, without_drift, GROUP)
    matrices = (
        peer(weight, statistics.hessian, searched.scale.float()),
        theirs,
        ours,
        dequantize(after.packed, after.scale),
    )
    nearest = output_error(weight, dequantize(searched.packed, searched.scale), statistics.hessian)
    errors = [output_error(weight, matrix, statistics.hessian) / nearest for matrix in matrices]
    return float(equal.float().mean()), *errors  # type: ignore[return-value]


def main() -> None:
    checkpoint = open_checkpoint(MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")
    directory = ROOT / "runs" / "tokenizer"
    checkpoint.write_tokenizer(directory)
    tokens = read_calibration(None, Tokenizer.open(directory, checkpoint.config.vocab_size)).tokens
    results: dict[int, tuple[float, ...]] = {}  # by the identity of the matrix that was made

    def compared(
        weights: Sequence[Tensor], statistics: InputStatistics, group_size: int, pull: Tensor | None = None
    ) -> list[QuantizedMatrix]:
        matrices = quantize_together(weights, statistics, group_size, pull)
        results.update((id(matrix), compare(weight, statistics)) for weight, matrix in zip(weights, matrices, strict=True))
        return matrices

    calibrate_weights.quantize_together = compared
    tensors = calibrated_layers(checkpoint, QuantizationConfig(4, 8, GROUP, "gptq"), tokens)
    first = itertools.takewhile(lambda x: x[0] < LAYERS, tensors)
    matrices = [(layer, name.removesuffix(".weight"), matrix) for layer, name, matrix in first if isinstance(matrix, QuantizedMatrix)]
    rows = [(f"{layer}.{name}", *results[id(matrix)]) for layer, name, matrix in matrices if name.split(".")[-1] in NAMES]
    table = [[name, f"{100 * equal:.2f} %", *(f"{error:.3f}" for error in errors)] for name, equal, *errors in rows]
    header = ["matrix", "equal integers", "llm-compressor, searched scales", "llm-compressor, our scales", "ours", "ours, with the descent"]
    write_results("gptq_peer", markdown_table(header, table), rows)


if __name__ == "__main__":
    main()
