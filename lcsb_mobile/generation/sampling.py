"""One token out of logits."""

from __future__ import annotations

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError, RunFailure
from lcsb_mobile.ranges import check_ranges


class SamplingConfig(Record, frozen=True):
    """`temperature` 0 takes the likeliest token. `top_p`: sample from the smallest set of that probability (nucleus
    sampling, arXiv 1904.09751). `stop`: texts; the one that is complete first ends the text, and nothing of it is given out."""

    max_tokens: int = 64
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        check_ranges({"max-tokens": self.max_tokens, "temperature": self.temperature, "top-p": self.top_p, "seed": self.seed})
        if not all(self.stop):
            raise OptionError("stop: expected a text, found an empty one")


def sample(logits: Float32Array, config: SamplingConfig, generator: np.random.Generator) -> int:
    """A token id from logits float32 [V]: one draw of `generator`, none at temperature 0. Raises RunFailure for NaN and infinite logits."""
    if not np.isfinite(logits).all():
        raise RunFailure("the model's logits are not finite numbers; try without the adapter, and lcsb verify")
    if config.temperature == 0:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # at a temperature near 0 all but the likeliest become exp(-inf)
        probabilities = np.exp((logits.astype(np.float64) - logits.max()) / config.temperature)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), config.top_p)) + 1]
    return int(generator.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))
