"""A run's state with made-up numbers."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.layers import AdapterMatrix
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.runs.checkpoint import RunCheckpoint, RunIdentity, RunPlace
from lcsb_mobile.training.state import AdapterState
from lcsb_mobile.training.trainer import TrainConfig

MATRICES = (AdapterMatrix("q.lora_A", (1, 4), 0), AdapterMatrix("q.lora_B", (3, 1), 4))
LAYOUT = AdapterLayout(LoraConfig(rank=1), {"block": MATRICES}, ("block",) * 3)  # an odd number of elements: what follows is not aligned
IDENTITY = RunIdentity(
    bundle="a" * 64,
    data="b" * 64,
    evaluation_data=None,
    tokens="c" * 64,
    evaluation_tokens=None,
    date=datetime(2026, 2, 28, 23, 5, 9),
    hold_out=0.1,
    initial_adapter=None,
    schedule=(Subset((2,), (2,)), Subset((0, 1), (0, 1, 2))),
    train=TrainConfig(steps=40, learning_rate=1e-3, accumulation=2),
    seed=5,
)


def make_checkpoint(step: int = 4, evaluations: int = 2) -> RunCheckpoint:
    generator = np.random.default_rng(step)
    adapter, first, second = (generator.random(3 * 7).astype(np.float32) for _ in range(3))
    return RunCheckpoint(
        RunPlace(IDENTITY, step, 2 * step, "onnxruntime 1.32.0", kept_layers=1),
        AdapterState(adapter, first, second),
        np.array([step, 0, step], np.int64),
        generator.random((step, 6)),
        generator.random((evaluations, 2)),
    )


def assert_equal(found: RunCheckpoint, expected: RunCheckpoint) -> None:
    assert found.place == expected.place
    for name in ("adapter", "first_moment", "second_moment"):
        np.testing.assert_array_equal(getattr(found.state, name), getattr(expected.state, name))
    for name in ("updates", "steps", "evaluations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
