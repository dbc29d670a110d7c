"""RoPE's inverse frequencies, of each type that a checkpoint may ask for. All are float32, in the operations of transformers
(`modeling_rope_utils`) and in their order, so that they are equal bit for bit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lcsb_mobile.config import AttentionKind, RopeScaling


def inverse_frequencies(kind: AttentionKind, rotary_dim: int) -> Tensor:
    """float32 (rotary_dim / 2,). With a scaling that has a `longest` sequence they are those of sequences up to it."""
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
    scaling = kind.rope_scaling
    if scaling is not None and scaling.rope_type == "longrope":
        return 1.0 / (torch.tensor(scaling.short_factor, dtype=torch.float32) * kind.rope_theta**exponents)
    if scaling is not None and scaling.rope_type == "yarn":
        return _yarn(kind.rope_theta**exponents, kind.rope_theta, scaling)
    inverse = 1.0 / (kind.rope_theta**exponents)
    if scaling is None or scaling.rope_type == "dynamic":
        return inverse
    return inverse / scaling.factor if scaling.rope_type == "linear" else _llama3(inverse, scaling)


def _llama3(inverse: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1's rule: long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    low, high, context = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position_embeddings
    wavelength = 2 * math.pi / inverse
    smooth = (context / wavelength - low) / (high - low)
    between = (1 - smooth) * inverse / scaling.factor + smooth * inverse
    stretched = torch.where(wavelength > context / low, inverse / scaling.factor, between)
    return torch.where(wavelength < context / high, inverse, stretched)


def _yarn(frequencies: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): `frequencies` that turn more than `beta_fast` times within the original context are kept,
    those that turn less than `beta_slow` times divided by `factor`; between them a ramp over the frequencies' numbers."""
    count = len(frequencies)
    low, high = (_number_of(turns, 2 * count, theta, scaling) for turns in (scaling.beta_fast, scaling.beta_slow))
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * count - 1)
    ramp = (torch.arange(count, dtype=torch.float32) - low) / ((high if low != high else high + 0.001) - low)
    kept = 1 - torch.clamp(ramp, 0, 1)
    return 1.0 / (scaling.factor * frequencies) * (1 - kept) + 1.0 / frequencies * kept


def _number_of(turns: float, rotary_dim: int, theta: float, scaling: RopeScaling) -> float:
    """Of the frequency, a real number, that makes so many turns within the original context."""
    return rotary_dim * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))
