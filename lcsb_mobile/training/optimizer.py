"""AdamW over the adapter's flat state, and the learning rate as a function of the step. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lcsb_mobile.arrays import Float32Array, Int64Array
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.errors import OptionError

LearningRateSchedule = Literal["constant", "cosine", "linear"]

# The largest float16, which whoever loads the adapter may compute in. LoRA's parameters are below 1 and move by some learning rates a step.
MOST_PARAMETER = 65504.0
MOST_MOMENT = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class LayerUpdate:
    """The scalars of one layer's update, float32 as they are used. Field names are those of the program `adamw`."""

    decay: np.float32
    rate: np.float32
    root: np.float32


# parameters, first and second moment float32[n], updated in place; the gradient float32[n], None for zero.
UpdateLayer = Callable[[Float32Array, Float32Array, Float32Array, Float32Array | None, LayerUpdate, AdamWConfig], None]


def update_layer(
    theta: Float32Array, m: Float32Array, v: Float32Array, gradient: Float32Array | None, scalars: LayerUpdate, config: AdamWConfig
) -> None:
    """AdamW in NumPy, operation by operation as `torch.optim.AdamW`."""
    beta1, beta2 = config.betas
    theta *= scalars.decay
    m *= np.float32(beta1)
    v *= np.float32(beta2)
    if gradient is not None:
        m += np.float32(1 - beta1) * gradient
        v += np.float32(1 - beta2) * (gradient * gradient)
    denominator = np.sqrt(v)
    denominator /= scalars.root
    denominator += np.float32(config.eps)
    np.divide(m, denominator, out=denominator)
    denominator *= scalars.rate
    theta -= denominator


class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), element for element as `torch.optim.AdamW`.

    State: `adapter`, `first_moment`, `second_moment` float32[N], updated in place, and `updates` int64[L], how often each
    layer was updated (with "momentum" all alike, and equal to the step number). `slices`: where each layer's vector lies
    (`AdapterLayout`). `update_layer` computes one layer's update: NumPy's, or a runtime's program. `moments`: where the moments are held,
    zeroed (None: in memory of its own).
    """

    def __init__(
        self,
        adapter: Float32Array,
        slices: Sequence[slice],
        config: AdamWConfig,
        update_layer: UpdateLayer = update_layer,
        moments: tuple[Float32Array, Float32Array] | None = None,
    ) -> None:
        self.config = config
        self.adapter, self.slices = adapter, slices
        self.first_moment, self.second_moment = moments or (np.zeros_like(adapter), np.zeros_like(adapter))
        self.updates: Int64Array = np.zeros(len(slices), np.int64)
        self._update_layer = update_layer

    def update(self, gradients: Mapping[int, Float32Array], learning_rate: float, trainable: Collection[int] | None = None) -> None:
        """One step. `gradients`: layer -> float32 of its vector's size for the trained layers. `trainable`: the layers that the method
        trains in any step (None: all); another one is no parameter of the run, and stays bit for bit, as torch's optimizer knows nothing
        of it: no momentum moves it, and no weight decay shrinks it."""
        for layer, part in enumerate(self.slices):
            moved = self.config.implicit_updates == "momentum" and (trainable is None or layer in trainable)
            if layer in gradients or moved:
                self.updates[layer] += 1
                state = self.adapter[part], self.first_moment[part], self.second_moment[part]
                self._update_layer(*state, gradients.get(layer), self._scalars(int(self.updates[layer]), learning_rate), self.config)

    def fault(self) -> str | None:
        """What is not finite, or of the parameters absurd, after an update, if anything. A second moment that overflowed would keep its
        parameter where it is, and no loss shows that."""
        for name, values, most in (
            ("a parameter", self.adapter, MOST_PARAMETER),
            ("a first moment", self.first_moment, MOST_MOMENT),
            ("a second moment", self.second_moment, MOST_MOMENT),
        ):
            peak = max(float(values.max()), -float(values.min()))
            if not peak <= most:  # NaN too, which max and min pass on
                return f"{name} of {peak:.3g}"
        return None

    def _scalars(self, count: int, learning_rate: float) -> LayerUpdate:
        beta1, beta2 = self.config.betas
        return LayerUpdate(
            decay=np.float32(1 - learning_rate * self.config.weight_decay),
            rate=np.float32(learning_rate / (1 - beta1**count)),
            root=np.float32(math.sqrt(1 - beta2**count)),
        )


def gradient_norm(gradients: Mapping[int, Float32Array]) -> float:
    """The Euclidean norm over all trained layers, summed in double precision: float32 sums differ from processor to processor."""
    return math.sqrt(sum(float(np.einsum("i,i->", g, g, dtype=np.float64)) for g in gradients.values()))


def clip_gradients(gradients: Mapping[int, Float32Array], norm: float, clip_norm: float) -> None:
    """Scales by `clip_norm / norm`, in place, where the norm exceeds it (`torch.nn.utils.clip_grad_norm_`)."""
    factor = np.float32(min(1.0, clip_norm / (norm + 1e-6)))
    if factor != 1:
        for gradient in gradients.values():
            gradient *= factor


def learning_rate(base: float, schedule: LearningRateSchedule, step: int, steps: int, warmup: int) -> float:
    """The rate of step `step` (from 0) of `steps`: a linear warm-up over `warmup` steps, then constant, or a cosine or a
    line down to zero."""
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return base * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return base * (1 - progress)
    raise OptionError(f"lr-schedule: expected constant, cosine or linear, found {schedule!r}")
