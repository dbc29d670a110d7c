"""Symmetric, group-wise int4 and int8 weights: the rounding, the packing, and the ops that undo them.

A matrix W [N, K] is cut along K into groups of G; each group has one float16 scale s, and W ≈ q * s.

int4: q in -8..7, stored as q + 8. `packed` is uint8 [N, K/G, G/2]: byte b of a group holds element b in its low and
element b + G/2 in its high nibble (GGML's Q4_0 order), so that unpacking is two element-wise operations and a
concatenation of whole runs, and rows stay in their natural order. int8: q in -127..127, `packed` is int8 [N, K/G, G]; in a bundle for a
GPU it is stored as uint8, q + 128.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from lcsb_mobile.bundle.weights import ZERO_POINT
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.io.bounded import one_line

CHUNK_GROUPS = 8192  # groups rounded at once; their temporaries stay in a core's cache
DIVISORS = (4.8, 5.2, 5.6, 6.0, 6.4, 6.8, 7.0, 7.4, 7.8, 8.0, 8.4, 8.8)  # candidate scales of a group: its peak over each
GROUP_SIZES = (8, 16, 32, 64, 128)  # that are offered where they work
MOST_OFFERED = 3
INT8_GROUP_SIZES = (16, 32, 64, 128, 256)  # of MatMulNBits
REFITS = 2  # alternations of least-squares scale and rounding after the search


@dataclass(frozen=True)
class QuantizedMatrix:
    """`packed` (see the module), `scale` float16 [N, K/G], and `error`: the relative error ‖W - q s‖ / ‖W‖."""

    packed: Tensor
    scale: Tensor
    bits: int
    error: float


def check_group_size(columns: Mapping[str, int], group_size: int, int8_products: bool = False) -> None:
    """`columns`: matrix -> its input dimension. Raises UnsupportedModelError, which offers sizes that work, unless the group size divides
    them all. `int8_products`: of ONNX Runtime's MatMulNBits, whose groups are powers of two from 16 on.

    Refused rather than padded: padding would change every shape downstream, and the supported models' dimensions all have
    divisors of 16 or more.
    """
    bad = sorted({f"{count} ({name})" for name, count in columns.items() if group_size % 2 or count % group_size})
    if not bad and not (int8_products and group_size not in INT8_GROUP_SIZES):
        return
    common = math.gcd(*columns.values())
    able = [size for size in INT8_GROUP_SIZES if common % size == 0] if int8_products else _even_divisors(common)
    nearest = sorted(sorted(able, key=lambda size: abs(math.log(size / group_size)))[:MOST_OFFERED])
    advice = f"use --group-size {' or '.join(map(str, nearest))}" if nearest else "no supported group size divides them all"
    if int8_products:
        advice += f" (accuracy level 4 takes {', '.join(map(str, INT8_GROUP_SIZES))}), or leave out --accuracy-level"
    fault = f"does not divide the input dimension {one_line(', '.join(bad))}" if bad else "is none of accuracy level 4"
    raise UnsupportedModelError(f"group size {group_size} {fault}; {advice}")


def _even_divisors(number: int) -> list[int]:
    """Powers of two among GROUP_SIZES; where there is none, other even numbers within them; else smaller ones, whose scales take as much
    as their weights."""
    sizes = [size for size in range(2, GROUP_SIZES[-1] + 1, 2) if number % size == 0]
    return [size for size in GROUP_SIZES if size in sizes] or [size for size in sizes if size >= GROUP_SIZES[0]] or sizes


def quantize(weight: Tensor, bits: int, group_size: int) -> QuantizedMatrix:
    """Rounds a float32 matrix [N, K]; K must be a multiple of the group size (`check_group_size`).

    The scale of a group: a grid of candidates of either sign (either sign, so that the unpaired -8 is used), the one with
    the least squared error, then alternated least squares with the rounding. All-zero groups get the scale 0.
    """
    rows, columns = weight.shape
    groups = weight.reshape(-1, group_size)
    chunks = torch.split(groups, CHUNK_GROUPS)
    round_chunk = _round_int4 if bits == 4 else _round_int8
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread a chunk: the operations are too small to be worth splitting
    try:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(round_chunk, chunks))
    finally:
        torch.set_num_threads(threads)
    quantized, scale = torch.cat([q for q, _, _ in parts]), torch.cat([s for _, s, _ in parts])
    squared_error = sum(e for _, _, e in parts)
    squared_norm = float(weight.square().sum(dtype=torch.float64))
    error = (squared_error / squared_norm) ** 0.5 if squared_norm else 0.0
    packed = pack_int4(quantized) if bits == 4 else quantized
    shape = (rows, columns // group_size, packed.shape[-1])
    return QuantizedMatrix(packed.reshape(shape), scale.reshape(rows, columns // group_size), bits, error)


def int4_matrix(weight: Tensor, q: Tensor, scale: Tensor) -> QuantizedMatrix:
    """Of a matrix float32 [N, K] that was rounded to q [N, K] in -8..7 with scales [N, K/G], whose values float16 holds."""
    grouped = q.contiguous().reshape(*scale.shape, -1)
    difference = weight - (grouped * scale.unsqueeze(-1)).flatten(1)
    squared_error, squared_norm = (float(x.square().sum(dtype=torch.float64)) for x in (difference, weight))
    error = (squared_error / squared_norm) ** 0.5 if squared_norm else 0.0
    return QuantizedMatrix(pack_int4(grouped.to(torch.int8)), scale.half().contiguous(), 4, error)


def search_scale(groups: Tensor, weights: Tensor | None = None) -> Tensor:
    """Groups float32 [M, G] -> float16 [M, 1], the int4 scales that `quantize` searches for: least Σ weights (w - q s)².

    `weights`: float32 [G], not negative (None: ones). Raises UnsupportedModelError for a scale that float16 does not reach.
    """
    peak = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    best_gain = torch.zeros_like(peak)
    best_inverse = 8.0 / peak
    for divisor in DIVISORS:
        for sign in (1.0, -1.0) if divisor > 7.5 else (1.0,):  # below, nothing rounds to 8, and the signs give the same
            inverse = (sign * divisor) / peak
            q = (groups * inverse).round_().clamp_(-8, 7)
            dot, square = _products(groups, q, weights)
            gain = dot.square_().div_(square)  # Σ weights w², less the error of the refitted scale
            better = gain > best_gain
            best_gain = torch.where(better, gain, best_gain)
            best_inverse = torch.where(better, inverse, best_inverse)
    q = (groups * best_inverse).round_().clamp_(-8, 7)
    for _ in range(REFITS):
        scale = _least_squares(groups, q, weights)
        q = (groups / torch.where(scale == 0, 1.0, scale)).round_().clamp_(-8, 7)
    return stored_scale(_least_squares(groups, q, weights))


def stored_scale(scale: Tensor) -> Tensor:
    """In float16. Raises UnsupportedModelError where it is not finite there."""
    scale = scale.half()
    if not torch.isfinite(scale).all():
        raise UnsupportedModelError("a weight is not finite or its group's scale exceeds float16's range (65504)")
    return scale


def _round_int4(groups: Tensor) -> tuple[Tensor, Tensor, float]:
    """Groups float32 [M, G] -> q int8 [M, G], scale float16 [M], squared error."""
    return _finish(groups, search_scale(groups), -8, 7)


def _round_int8(groups: Tensor) -> tuple[Tensor, Tensor, float]:
    peak = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    return _finish(groups, stored_scale(_least_squares(groups, (groups * (127.0 / peak)).round_())), -127, 127)


def _least_squares(groups: Tensor, q: Tensor, weights: Tensor | None = None) -> Tensor:
    dot, square = _products(groups, q, weights)
    return dot / square


def _products(groups: Tensor, q: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ weights w q and Σ weights q², the latter not zero, [M, 1] each."""
    weighted = q if weights is None else q * weights
    return (groups * weighted).sum(-1, keepdim=True), (q * weighted).sum(-1, keepdim=True).clamp_min_(1e-30)


def _finish(groups: Tensor, scale: Tensor, low: int, high: int) -> tuple[Tensor, Tensor, float]:
    """Rounds against the stored scales, float16 [M, 1]: what will be read back."""
    stored = scale.float()
    q = (groups / torch.where(stored == 0, 1.0, stored)).round_().clamp_(low, high)
    q = torch.where(stored == 0, 0.0, q)
    error = float((groups - q * stored).square_().sum(dtype=torch.float64))
    return q.to(torch.int8), scale.squeeze(-1), error


def pack_int4(q: Tensor) -> Tensor:
    """int8 [..., G] in -8..7 -> uint8 [..., G/2] in GGML's Q4_0 nibble order."""
    low, high = (q + 8).to(torch.uint8).chunk(2, dim=-1)
    return low | (high << 4)


def unpack_int4(packed: Tensor) -> Tensor:
    """The inverse of `pack_int4`: uint8 [..., G/2] -> int8 [..., G]."""
    return torch.cat([packed & 15, packed >> 4], dim=-1).to(torch.int8) - 8


def unsigned(q: Tensor) -> Tensor:
    """int8 -> uint8, the value plus ZERO_POINT."""
    return q.view(torch.uint8) ^ ZERO_POINT


def signed(q: Tensor) -> Tensor:
    """The inverse of `unsigned`."""
    return (q ^ ZERO_POINT).view(torch.int8)


@torch.library.custom_op("lcsb::dequantize_int4", mutates_args=())
def dequantize_int4(packed: Tensor, scale: Tensor) -> Tensor:
    """uint8 [N, K/G, G/2], float16 or float32 [N, K/G] -> float32 [N, K]. Opaque, so that no tracer folds the float weight."""
    weight = torch.cat([packed & 15, packed >> 4], dim=-1).float()
    return weight.sub_(8).mul_(scale.float().unsqueeze(-1)).flatten(1)


@dequantize_int4.register_fake
def _(packed: Tensor, scale: Tensor) -> Tensor:
    return packed.new_empty((packed.shape[0], packed.shape[1] * packed.shape[2] * 2), dtype=torch.float32)


@torch.library.custom_op("lcsb::dequantize_int8", mutates_args=())
def dequantize_int8(packed: Tensor, scale: Tensor) -> Tensor:
    """int8 [N, K/G, G], float16 or float32 [N, K/G] -> float32 [N, K]."""
    return packed.float().mul_(scale.float().unsqueeze(-1)).flatten(1)


@dequantize_int8.register_fake
def _(packed: Tensor, scale: Tensor) -> Tensor:
    return packed.new_empty((packed.shape[0], packed.shape[1] * packed.shape[2]), dtype=torch.float32)


def dequantize(packed: Tensor, scale: Tensor) -> Tensor:
    """The op that fits the packing: uint8 holds int4 pairs, int8 holds int8."""
    op = torch.ops.lcsb.dequantize_int4 if packed.dtype == torch.uint8 else torch.ops.lcsb.dequantize_int8
    result: Tensor = op(packed, scale)
    return result


def dequantize_stored(packed: Tensor, scale: Tensor, columns: int) -> Tensor:
    """Rows as a bundle stores them, of a matrix with so many columns: where bytes hold an element each, uint8 is `unsigned`."""
    whole = packed.shape[1] * packed.shape[2] == columns
    return dequantize(signed(packed) if whole and packed.dtype == torch.uint8 else packed, scale)
