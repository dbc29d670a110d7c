"""What the tests of every runner share: the steps that they are held to, and runs of a training loop."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.tiny_models import packed_batch, subset
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import Batch, StepRunner
from lcsb_mobile.bundle.schedule import Method, ScheduleConfig, Subset, make_schedule
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.training.optimizer import AdamW, UpdateLayer, clip_gradients, gradient_norm, update_layer

# Relative to the largest element of a layer's gradient. float32 on both sides; ONNX Runtime sums its products and softmaxes in
# another order. Measured over 4 batches and 6 subsets of each model: 2e-6, Gemma 1.2e-5 (see tests/export/graphs/test_blocks.py).
TOLERANCE = {"llama": 6e-6, "qwen2": 6e-6, "qwen3": 6e-6, "gemma3_text": 4e-5}

# Law 4, relative, over 24 steps at a rate of 1e-3. Measured: 3.2e-7, Gemma 4.4e-5: AdamW divides an element's gradient by its own
# size, so that where the gradient is hardly more than its rounding error a whole step of the learning rate depends on it.
LOSS_TOLERANCE = {"llama": 2e-6, "qwen2": 2e-6, "qwen3": 2e-6, "gemma3_text": 2e-4}


def some_subsets(layers: int) -> list[Subset]:
    """All layers; single ones from top to bottom; identity, exact and mixed."""
    top = layers - 1
    return [
        subset(range(layers)),
        subset([top]),
        subset([0]),
        subset([0, top]),
        subset([0], range(layers)),
        subset([1], range(1, layers)),
        subset([0], [top]),
        subset([0, top], range(layers)),  # the gradients of layers between are computed and not asked for
        subset([1], [0, 1]),  # what lies below the lowest trained layer does not matter
    ]


def cycles(layers: int, method: Method) -> tuple[list[Subset], list[Batch]]:
    """24 steps: eight or six whole cycles of a layer a step, on two batches in turn."""
    cycle = make_schedule(ScheduleConfig(method=method, subsets=layers), layers)
    return [cycle[number % len(cycle)] for number in range(24)], [packed_batch(number % 2) for number in range(24)]


def run_losses(
    runner: StepRunner,
    layout: AdapterLayout,
    initial: Float32Array,
    steps: Sequence[Subset],
    batches: Sequence[Batch],
    rate: float,
    config: AdamWConfig,
    update: UpdateLayer = update_layer,
) -> tuple[list[float], Float32Array]:
    """The losses of optimizer steps as the trainer makes them, and the adapter after them."""
    adapter = initial.copy()
    optimizer = AdamW(adapter, layout.slices, config, update)
    losses = []
    for step, batch in zip(steps, batches, strict=True):
        result = runner.step(step, batch, adapter)
        losses.append(result.loss)
        norm = gradient_norm(result.gradients)
        clip_gradients(result.gradients, norm, config.clip_norm)
        optimizer.update(result.gradients, rate)
    return losses, adapter
