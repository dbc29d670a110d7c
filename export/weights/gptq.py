"""Rounding a matrix so that its outputs, not its weights, are kept: GPTQ (arXiv 2210.17323), then coordinate descent.

A matrix W [N, K] will meet inputs X̂ [tokens, K]. With the errors E = W - Ŵ and H = X̂ᵀ X̂, what is to be small is tr(E H Eᵀ) = ‖E X̂ᵀ‖².
Factored as H = (F + I) D (F + I)ᵀ, F strictly upper triangular and D diagonal, it is Σ_k D_k ‖w_k + Σ_{j<k} F_jk e_j - ŵ_k‖²: so column
k is rounded after what the errors of the columns before it ask of it has been added to it. That is GPTQ's update without an inverse (the
form of LDLQ, arXiv 2307.13304). Then each integer in turn, and each group's scale, is set to what is best given all the others.

X̂ is what the quantised layers below give, X what the float ones gave; Ŵ X̂ᵀ is to be W Xᵀ rather than W X̂ᵀ (arXiv 2504.02692). The
least-squares answer is W + W (X - X̂)ᵀ X̂ H⁻¹; a part of that way is gone before rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lcsb_mobile.export.weights.quantization import QuantizedMatrix, int4_matrix, search_scale, stored_scale

DAMPING = 0.1  # added to H's diagonal, of its mean: what a text of some thousand tokens says of other texts is uncertain
DRIFT_SHARE = 0.5  # of the way from W to the least-squares answer; the whole way follows the calibration text too closely
SWEEPS = 2  # of the coordinate descent
GRAM_BLOCK = 512  # columns: below, two products of half a matrix are no faster than one of the whole


@dataclass(frozen=True)
class InputStatistics:
    """Of the inputs that matrices of K columns will meet. `hessian`: H, damped; `feedback` F [K, K] and `pivots` D [K], its factors;
    `drift`: (X - X̂)ᵀ X̂ [K, K], None where what it does to the matrices was computed instead (`pull`)."""

    hessian: Tensor
    feedback: Tensor
    pivots: Tensor
    drift: Tensor | None


def gram_matrix(x: Tensor) -> Tensor:
    """xᵀ x [K, K] of x [tokens, K]. What lies above its diagonal is computed, and put below: about half of the products."""
    gram = x.new_empty(x.shape[1], x.shape[1])
    starts = range(0, x.shape[1], GRAM_BLOCK)
    for start in starts:
        block = slice(start, start + GRAM_BLOCK)
        torch.mm(x[:, block].t(), x[:, start:], out=gram[block, start:])
        gram[start + GRAM_BLOCK :, block] = gram[block, start + GRAM_BLOCK :].t()
    return gram


def input_statistics(gram: Tensor, drift: Tensor | None) -> InputStatistics:
    """Of gram = X̂ᵀ X̂, float32 [K, K], finite; it is damped in place. Inputs that are always zero are no obstacle."""
    diagonal = gram.diagonal()
    mean = float(diagonal.mean())
    diagonal.add_(DAMPING * mean if mean else 1.0)
    upper = torch.linalg.cholesky(gram.flip(0, 1)).flip(0, 1)  # H = upper upperᵀ
    root = upper.diagonal().clone()
    return InputStatistics(gram, upper.div_(root).triu_(1), root.square_(), drift)


def quantize_for_inputs(weight: Tensor, statistics: InputStatistics, group_size: int) -> QuantizedMatrix:
    """Int4 of a float32 matrix [N, K] for such inputs, as `quantization.quantize` stores it. Raises UnsupportedModelError as that does."""
    return quantize_together([weight], statistics, group_size)[0]


def quantize_together(
    weights: Sequence[Tensor], statistics: InputStatistics, group_size: int, pull: Tensor | None = None
) -> list[QuantizedMatrix]:
    """`quantize_for_inputs` of matrices [N, K] that meet the same inputs. Rows do not know of each other, so they go through the columns
    as one matrix: a column costs some forty calls, however many rows it has. `pull`: W (X - X̂)ᵀ X̂ of all rows, if it is known."""
    columns = aim(torch.cat(list(weights)), statistics, pull).t().contiguous()  # [K, N]: a column is one run of memory
    q, scale = round_in_order(columns, statistics, group_size)
    for _ in range(SWEEPS):
        descend(columns, q, scale, statistics.hessian)
    rows = [len(weight) for weight in weights]
    parts = zip(weights, torch.split(q.t(), rows), torch.split(scale.t(), rows), strict=True)
    return [int4_matrix(*part) for part in parts]


def aim(weight: Tensor, statistics: InputStatistics, pull: Tensor | None = None) -> Tensor:
    """The float matrix [N, K] that is rounded: W + DRIFT_SHARE W (X - X̂)ᵀ X̂ H⁻¹. `pull`: as in `quantize_together`."""
    drift = statistics.drift
    if drift is not None and len(weight) >= len(drift):
        return weight.addmm(weight, _over_hessian(drift, statistics), alpha=DRIFT_SHARE)
    if pull is None:
        assert drift is not None
        pull = weight @ drift
    return weight.add(_over_hessian(pull, statistics), alpha=DRIFT_SHARE)


def _over_hessian(x: Tensor, statistics: InputStatistics) -> Tensor:
    """x H⁻¹ of x [rows, K]."""
    feedback = statistics.feedback
    x = torch.linalg.solve_triangular(feedback.t(), x, upper=False, left=False, unitriangular=True)
    solved: Tensor = torch.linalg.solve_triangular(feedback, x / statistics.pivots, upper=True, left=False, unitriangular=True)
    return solved


def round_in_order(columns: Tensor, statistics: InputStatistics, group_size: int) -> tuple[Tensor, Tensor]:
    """Columns [K, N] -> q [K, N] in -8..7 and scales [K/G, N], all float32.

    A group's scale is searched for when it is reached, for what its columns would be moved to if they were not rounded.
    """
    errors, q = torch.empty_like(columns), torch.empty_like(columns)
    identity = torch.eye(group_size, dtype=columns.dtype)
    scales = []
    for start in range(0, len(columns), group_size):
        group = slice(start, start + group_size)
        inner, pivots = statistics.feedback[group, group], statistics.pivots[group]
        pushed = statistics.feedback[:start, group].t() @ errors[:start]
        unrounded = torch.linalg.solve_triangular(inner.t(), identity, upper=False, unitriangular=True)
        moved = columns[group] + unrounded @ pushed
        scale = search_scale(moved.t().contiguous(), pivots / pivots.mean()).float().squeeze(-1)
        _round_group(columns[group], pushed, inner, scale.to(columns.dtype), q[group], errors[group])
        scales.append(scale)
    return q, torch.stack(scales)


def _round_group(columns: Tensor, pushed: Tensor, inner: Tensor, scale: Tensor, q: Tensor, errors: Tensor) -> None:
    """The columns of a group [G, N], one after the other, into q and errors [G, N]. `pushed` [G, N], what all groups before ask of it, is
    changed. In NumPy: a call of it on a thousand numbers takes a third of the time of one of torch."""
    feedback = np.ascontiguousarray(inner.t().numpy())
    wanted, found, error, step = pushed.add_(columns).numpy(), q.numpy(), errors.numpy(), scale.numpy()
    divisor, exact = _divisor(scale), columns.numpy()
    for k in range(len(exact)):
        if k:
            wanted[k] += feedback[k, :k] @ error[:k]
        np.divide(wanted[k], divisor, out=found[k])
        _to_int4(found[k])
        np.multiply(found[k], step, out=error[k])
        np.subtract(exact[k], error[k], out=error[k])


def descend(columns: Tensor, q: Tensor, scales: Tensor, hessian: Tensor) -> None:
    """One sweep of coordinate descent on tr(E H Eᵀ), which never rises: q [K, N] and scales [K/G, N] are changed in place."""
    group_size = len(q) // len(scales)
    errors = columns - q * scales.repeat_interleave(group_size, 0)
    for number, scale in enumerate(scales):
        group = slice(number * group_size, (number + 1) * group_size)
        block = hessian[group, group]
        slope = hessian[group] @ errors  # half the derivative by the errors, [G, N]
        slope.addmm_(block, _descend_group(slope, q[group], scale, block))
        curvature = (block @ q[group]).mul_(q[group]).sum(0)
        step = (slope * q[group]).sum(0) / torch.where(curvature > 0, curvature, 1.0)  # a group of zeros has slope * q = 0
        scale.copy_(stored_scale(scale + step))
        errors[group] = columns[group] - q[group] * scale


def _descend_group(slope: Tensor, q: Tensor, scale: Tensor, block: Tensor) -> Tensor:
    """Sets each integer of a group, q [G, N], to what is best given all others; returns by how much the errors rose, [G, N]."""
    raised = torch.zeros_like(slope)
    slopes, found, change, curvatures = slope.numpy(), q.numpy(), raised.numpy(), block.numpy()
    step, inverse = scale.numpy(), 1.0 / _divisor(scale)
    for k in range(len(found)):
        best = curvatures[k, :k] @ change[:k] if k else np.zeros_like(step)
        best += slopes[k]
        best *= inverse
        best /= curvatures[k, k]
        best += found[k]
        _to_int4(best)
        np.subtract(found[k], best, out=change[k])
        change[k] *= step
        found[k] = best
    return raised


def _to_int4(x: npt.NDArray[np.floating]) -> None:
    """Rounds in place, to -8..7."""
    np.rint(x, out=x)
    np.minimum(x, 7, out=x)
    np.maximum(x, -8, out=x)


def _divisor(scale: Tensor) -> npt.NDArray[np.floating]:
    """Infinite where the scale is zero, so that q is zero there."""
    divisor: npt.NDArray[np.floating] = torch.where(scale == 0, torch.inf, scale).numpy()
    return divisor
