"""Rounding a matrix so that its outputs, not its weights, are kept: GPTQ (arXiv 2210.17323), then coordinate descent.

A matrix W [N, K] will meet inputs X̂ [tokens, K]. With the errors E = W - Ŵ and H = X̂ᵀ X̂, what is to be small is tr(E H Eᵀ) = ‖E X̂ᵀ‖².
Factored as H = (F + I) D (F + I)ᵀ, F strictly upper triangular and D diagonal, it is Σ_k D_k ‖w_k + Σ_{j<k} F_jk e_j - ŵ_k‖²: so column
k is rounded after what the errors of the columns before it ask of it has been added to it. That is GPTQ's update without an inverse (the
form of LDLQ, arXiv 2307.13304). Then each integer in turn, and each group's scale, is set to what is best given all the others.

X̂ is what the quantised layers below give, X what the float ones gave; Ŵ X̂ᵀ is to be W Xᵀ rather than W X̂ᵀ (arXiv 2504.02692). The
least-squares answer is W + W (X - X̂)ᵀ X̂ H⁻¹; a part of that way is gone before rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcsb_mobile.export.weights.quantization import QuantizedMatrix, int4_matrix, search_scale, stored_scale

DAMPING = 0.1  # added to H's diagonal, of its mean: what a text of some thousand tokens says of other texts is uncertain
DRIFT_SHARE = 0.5  # of the way from W to the least-squares answer; the whole way follows the calibration text too closely
SWEEPS = 2  # of the coordinate descent


@dataclass(frozen=True)
class InputStatistics:
    """Of the inputs that matrices of K columns will meet. `hessian`: H, damped; `feedback` F [K, K] and `pivots` D [K], its factors;
    `drift`: (X - X̂)ᵀ X̂ [K, K]."""

    hessian: Tensor
    feedback: Tensor
    pivots: Tensor
    drift: Tensor


def input_statistics(gram: Tensor, drift: Tensor) -> InputStatistics:
    """Of gram = X̂ᵀ X̂, float32 [K, K], finite; it is damped in place. Inputs that are always zero are no obstacle."""
    diagonal = gram.diagonal()
    mean = float(diagonal.mean())
    diagonal.add_(DAMPING * mean if mean else 1.0)
    upper = torch.linalg.cholesky(gram.flip(0, 1)).flip(0, 1)  # H = upper upperᵀ
    root = upper.diagonal().clone()
    return InputStatistics(gram, upper.div_(root).triu_(1), root.square_(), drift)


def quantize_for_inputs(weight: Tensor, statistics: InputStatistics, group_size: int) -> QuantizedMatrix:
    """Int4 of a float32 matrix [N, K] for such inputs, as `quantization.quantize` stores it. Raises UnsupportedModelError as that does."""
    columns = aim(weight, statistics).t().contiguous()  # [K, N]: a column is one run of memory
    q, scale = round_in_order(columns, statistics, group_size)
    for _ in range(SWEEPS):
        descend(columns, q, scale, statistics.hessian)
    return int4_matrix(weight, q.t(), scale.t())


def aim(weight: Tensor, statistics: InputStatistics) -> Tensor:
    """The float matrix [N, K] that is rounded: W + DRIFT_SHARE W (X - X̂)ᵀ X̂ H⁻¹."""
    feedback = statistics.feedback
    shift = torch.linalg.solve_triangular(feedback.t(), weight @ statistics.drift, upper=False, left=False, unitriangular=True)
    shift = torch.linalg.solve_triangular(feedback, shift / statistics.pivots, upper=True, left=False, unitriangular=True)
    return weight.add(shift, alpha=DRIFT_SHARE)


def round_in_order(columns: Tensor, statistics: InputStatistics, group_size: int) -> tuple[Tensor, Tensor]:
    """Columns [K, N] -> q [K, N] in -8..7 and scales [K/G, N], all float32.

    A group's scale is searched for when it is reached, for what its columns would be moved to if they were not rounded.
    """
    errors, q = torch.empty_like(columns), torch.empty_like(columns)
    scales = []
    for start in range(0, len(columns), group_size):
        group = slice(start, start + group_size)
        inner, pivots = statistics.feedback[group, group], statistics.pivots[group]
        pushed = statistics.feedback[:start, group].t() @ errors[:start]
        moved = columns[group] + torch.linalg.solve_triangular(inner.t(), pushed, upper=False, unitriangular=True)
        scale = search_scale(moved.t().contiguous(), pivots / pivots.mean()).float().squeeze(-1)
        divisor, inner_errors = _divisor(scale), errors[group]
        for k in range(group_size):
            wanted = columns[start + k] + pushed[k] + inner[:k, k] @ inner_errors[:k]
            q[start + k] = (wanted / divisor).round_().clamp_(-8, 7)
            inner_errors[k] = columns[start + k] - q[start + k] * scale
        scales.append(scale)
    return q, torch.stack(scales)


def descend(columns: Tensor, q: Tensor, scales: Tensor, hessian: Tensor) -> None:
    """One sweep of coordinate descent on tr(E H Eᵀ), which never rises: q [K, N] and scales [K/G, N] are changed in place."""
    group_size = len(q) // len(scales)
    errors = columns - q * scales.repeat_interleave(group_size, 0)
    for number, scale in enumerate(scales):
        group = slice(number * group_size, (number + 1) * group_size)
        block = hessian[group, group]
        slope = hessian[group] @ errors  # half the derivative by the errors, [G, N]
        divisor = _divisor(scale)
        for k in range(group_size):
            integer = q[group][k]
            best = (integer + slope[k] / (block[k, k] * divisor)).round_().clamp_(-8, 7)
            slope.addr_(block[:, k], (integer - best) * scale)
            integer.copy_(best)
        curvature = (block @ q[group]).mul_(q[group]).sum(0)
        step = (slope * q[group]).sum(0) / torch.where(curvature > 0, curvature, 1.0)  # a group of zeros has slope * q = 0
        scale.copy_(stored_scale(scale + step))
        errors[group] = columns[group] - q[group] * scale


def _divisor(scale: Tensor) -> Tensor:
    """Infinite where the scale is zero, so that q is zero there."""
    return torch.where(scale == 0, torch.inf, scale)
