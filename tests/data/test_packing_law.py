"""A packed sequence is worth its examples apart: loss and gradients are their means, weighted by the counted labels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.data import dataset_of
from helpers.data import example as data_example
from helpers.tiny_models import MODELS, SEQ_LEN, MakeTiny, assert_steps_equal, example, pack, subset

from lcsb_mobile.bundle.batch import StepResult
from lcsb_mobile.data import packing


def weighted_mean(results: list[StepResult], counts: list[int]) -> StepResult:
    weights = np.array(counts, np.float32) / sum(counts)
    loss = sum(float(weight) * result.loss for weight, result in zip(weights, results, strict=True))
    layers = results[0].gradients
    return StepResult(loss, {k: sum(w * r.gradients[k] for w, r in zip(weights, results, strict=True)) for k in layers})


@pytest.mark.parametrize("step", [subset([0, 1, 2]), subset([1], [2]), subset([0, 2])], ids=lambda s: f"{s.train} {s.propagate}")
@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_apart(tiny: MakeTiny, name: str, step) -> None:
    model, adapter = tiny(name), tiny(name).adapter()
    examples = [example(seed, length) for seed, length in enumerate((6, 2, 9))]
    runner = model.runner()
    apart = [runner.step(step, part, adapter) for part in examples]
    expected = weighted_mean(apart, [part.counted_labels for part in examples])
    # float32 on both sides; sums over masked keys, and over the positions of all examples, round otherwise.
    tolerance = 2e-5 if name.startswith("gemma3") else 4e-6
    assert_steps_equal(runner.step(step, pack(examples), adapter), expected, tolerance)
    assert runner.evaluate(pack(examples), adapter) == pytest.approx(expected.loss, rel=1e-6)
    for number, part in enumerate(examples):  # and the order of the examples does not matter
        assert abs(apart[number].loss - expected.loss) > 1e-3, part
    assert_steps_equal(runner.step(step, pack(examples[::-1]), adapter), expected, tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_padding_costs_nothing(tiny: MakeTiny, name: str) -> None:
    """Neither what padding holds nor how much of it there is changes anything."""
    model, adapter, step = tiny(name), tiny(name).adapter(), subset([0, 1, 2])
    alone = example(5, 11)
    short, long = (model.runner().step(step, pack([alone], seq_len), adapter) for seq_len in (12, 20))
    assert_steps_equal(short, long, 2e-5 if name.startswith("gemma3") else 4e-6)
    packed = pack([alone])
    packed.input_ids[11:] = 77
    other = model.runner().step(step, packed, adapter)
    assert other.loss == long.loss
    assert all(np.array_equal(other.gradients[layer], long.gradients[layer]) for layer in step.train)


def test_these_are_the_sequences_that_packing_makes() -> None:
    parts = [example(seed, length) for seed, length in enumerate((6, 2, 9))]
    dataset = dataset_of(data_example(part.input_ids.tolist(), part.labels.tolist()) for part in parts)
    (made,) = packing.pack(dataset, SEQ_LEN, pad_id=3)
    for name, array in vars(pack(parts)).items():
        assert np.array_equal(getattr(made, name), array), name
