"""The simulator and the trainer: what a run computes, and what it refuses before it starts."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundles import RandomBundle, StubRunner, use_runner, write_lines
from helpers.tiny_models import packed_batch

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter, save_adapter
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Method, ScheduleConfig, Subset, make_schedule
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.data.dataset import DataReport
from lcsb_mobile.errors import DataError, NonFiniteLossError, OptionError
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.report.page import layer_ranges
from lcsb_mobile.report.run import run_report
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.setup import Observer, SimulateOptions, default_learning_rate
from lcsb_mobile.runs.simulate import simulate
from lcsb_mobile.training.optimizer import AdamW
from lcsb_mobile.training.trainer import StepOutcome, TrainConfig, Trainer, evaluate


@pytest.fixture
def options(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> SimulateOptions:
    return SimulateOptions(random_bundle.bundle, messages, steps=4, adapter=tmp_path / "adapter.safetensors", threads=1, learning_rate=0.01)


def saved(options: SimulateOptions) -> Float32Array:
    return load_adapter(options.adapter, Bundle.open(options.bundle).manifest.adapter)


# Learning rate and trainer


@pytest.mark.parametrize(
    ("method", "layers", "subsets", "expected"),
    [("full", 8, 4, 4e-4), ("freeze", 8, 4, 4e-4), ("lcsb-exact", 8, 4, 8e-4), ("lcsb-identity", 8, 4, 4e-4), ("lcsb-exact", 9, 9, 12e-4)],
)
def test_default_learning_rate(method: Method, layers: int, subsets: int, expected: float) -> None:
    schedule = make_schedule(ScheduleConfig(method=method, subsets=subsets), layers)
    assert default_learning_rate(schedule, layers) == pytest.approx(expected)
    if method.startswith("lcsb"):
        shuffled = make_schedule(ScheduleConfig(method=method, subsets=subsets, order="shuffled"), layers)
        assert default_learning_rate(shuffled, layers) == pytest.approx(expected)


SIZES = (3, 4)
SLICES = [slice(0, 3), slice(3, 7)]


class ByBatch(StubRunner):
    """Loss and gradient of a batch: its first token, and that times the layer's number plus one; of layers with vectors of SIZES."""

    def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
        value = float(batch.input_ids[0])
        return StepResult(value, {layer: np.full(SIZES[layer], value * (layer + 1), np.float32) for layer in subset.train})

    def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
        return float(batch.input_ids[0])


def batch_of(value: int, counted: int) -> Batch:
    labels = np.full(10, IGNORED_LABEL, np.int64)
    labels[:counted] = 1
    return Batch(np.full(10, value, np.int64), labels, np.arange(10), np.zeros(10, np.int64))


def trainer_of(runner: StepRunner, accumulation: int) -> Trainer:
    optimizer = AdamW(np.zeros(sum(SIZES), np.float32), SLICES, AdamWConfig(clip_norm=1e9))
    return Trainer(runner, [Subset((0, 1), (0, 1))], optimizer, TrainConfig(steps=1, learning_rate=0.1, accumulation=accumulation))


def test_accumulation_is_the_mean_over_counted_labels() -> None:
    """Loss 8 over 3 labels and loss 2 over 1: 6.5. Not 5, the mean of means."""
    trainer = trainer_of(ByBatch(), 2)
    outcome = trainer.step(0, [batch_of(8, 3), batch_of(2, 1)])
    assert outcome.loss == 6.5
    assert outcome.gradient_norm == pytest.approx(math.sqrt(3 * 6.5**2 + 4 * 13**2))
    np.testing.assert_allclose(trainer.optimizer.first_moment, 0.1 * np.array([6.5] * 3 + [13] * 4), rtol=1e-6)


def test_accumulation_on_the_runtime(random_bundle: RandomBundle) -> None:
    """Two sequences a step give what the two gradients give, weighed by their labels."""
    bundle = Bundle.open(random_bundle.bundle)
    runner, adapter = make_runner(bundle, threads=1), bundle.initial_adapter()
    everything = Subset((0, 1, 2), (0, 1, 2))
    batches = [padded(packed_batch(0), 32), padded(packed_batch(1), 32)]
    batches[1].labels[:12] = IGNORED_LABEL
    counts = [batch.counted_labels for batch in batches]
    assert counts[0] != counts[1] > 0
    losses, gradients = [], []
    for batch in batches:
        result = runner.step(everything, batch, adapter)
        losses.append(result.loss)
        gradients.append({layer: gradient.copy() for layer, gradient in result.gradients.items()})  # the runtime's buffer, used again
    slices = bundle.manifest.adapter.slices
    optimizer = AdamW(adapter.copy(), slices, AdamWConfig(clip_norm=1e9))
    trainer = Trainer(runner, [everything], optimizer, TrainConfig(1, 0.1, accumulation=2))
    outcome = trainer.step(0, batches)
    assert outcome.loss == pytest.approx(sum(c * loss for c, loss in zip(counts, losses)) / sum(counts), rel=1e-6)
    for layer in range(3):
        mean = sum(c * part[layer].astype(np.float64) for c, part in zip(counts, gradients)) / sum(counts)
        np.testing.assert_allclose(trainer.optimizer.first_moment[slices[layer]], 0.1 * mean, rtol=1e-4, atol=1e-6 * np.abs(mean).max())


def test_freeze_from_a_trained_adapter(options: SimulateOptions, tmp_path: Path) -> None:
    """The layers that the method freezes keep their bits, whatever the weight decay; the top one moves."""
    layout = Bundle.open(options.bundle).manifest.adapter
    trained = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    save_adapter(tmp_path / "trained", layout, trained)
    simulate(dataclasses.replace(options, method="freeze", initial_adapter=tmp_path / "trained"))
    same = [saved(options)[part].tobytes() == trained[part].tobytes() for part in layout.slices]
    assert same == [True, True, False]


def padded(batch: Batch, length: int) -> Batch:
    more = length - len(batch.input_ids)
    last = int(batch.segment_ids[-1]) + 1
    return Batch(
        np.pad(batch.input_ids, (0, more)),
        np.pad(batch.labels, (0, more), constant_values=IGNORED_LABEL),
        np.concatenate([batch.position_ids, np.arange(more)]),
        np.pad(batch.segment_ids, (0, more), constant_values=last),
    )


def test_evaluation_is_the_mean_over_counted_labels() -> None:
    assert evaluate(ByBatch(), [batch_of(8, 3), batch_of(2, 1)], np.zeros(1, np.float32)) == 6.5


@pytest.mark.parametrize("stub", [StubRunner(loss=math.nan), StubRunner(loss=math.inf), StubRunner(gradient=math.nan)])
def test_nothing_is_updated_by_a_step_that_is_not_finite(stub: StubRunner) -> None:
    trainer = trainer_of(stub, 1)
    with pytest.raises(NonFiniteLossError, match="step 1: "):
        trainer.step(0, [batch_of(1, 1)])
    for state in (trainer.optimizer.adapter, trainer.optimizer.first_moment, trainer.optimizer.second_moment, trainer.optimizer.updates):
        assert not state.any()


# Whole runs


def test_a_run(options: SimulateOptions) -> None:
    observed: list[tuple[str, Any]] = []

    class Recorder(Observer):
        def phase(self, name: str) -> None:
            observed.append(("phase", name))

        def data(self, report: DataReport, held_out: int) -> None:
            observed.append(("held out", held_out))

        def evaluated(self, step: int, loss: float) -> None:
            observed.append(("evaluated", step))

        def stepped(self, outcome: StepOutcome, memory: int | None) -> None:
            observed.append(("stepped", outcome.step))
            assert memory is not None and memory > 1e6

    options = dataclasses.replace(options, steps=30, evaluate_every=10, prompts=("the ",), sampling=SamplingConfig(max_tokens=2))
    options = dataclasses.replace(options, evaluation_data=options.data)  # what it trains on: six lines teach a random model nothing else
    simulation = simulate(options, Recorder())
    result = simulation.result
    assert result.eval_loss_after < 0.85 * result.eval_loss_before
    assert [step for step, _ in result.evaluations] == [0, 10, 20, 30] == [step for kind, step in observed if kind == "evaluated"]
    assert [step for kind, step in observed if kind == "stepped"] == list(range(1, 31))
    assert ("held out", 6) in observed
    assert result.data.examples == 6 and 0 < result.packing_fill <= 1
    assert result.samples[0][0] == "the " and len(simulation.run.samples) == 1
    assert set(result.phase_seconds) == {"loading", "golden trace", "evaluation", "gradients", "optimizer", "text samples"}
    assert result.peak_rss_bytes > (result.peak_anonymous_bytes or 0) > 1e6
    assert not np.array_equal(saved(options), Bundle.open(options.bundle).initial_adapter())
    report = run_report(simulation)
    assert [record.loss for record in report.steps] == list(result.losses)
    assert layer_ranges(report.steps[0].train) == "2" and report.num_layers == 3


def test_a_run_repeats(options: SimulateOptions, tmp_path: Path) -> None:
    """The same seed, bit for bit; another seed is another order of the data."""
    again, other = (dataclasses.replace(options, adapter=tmp_path / f"{name}", seed=seed) for name, seed in (("again", 0), ("other", 1)))
    losses = [simulate(run).result.losses for run in (options, again, other)]
    assert losses[0] == losses[1] != losses[2]
    np.testing.assert_array_equal(saved(options), saved(again))


@pytest.mark.parametrize(("method", "schedule"), [("full", ((0, 1, 2),)), ("freeze", ((2,),)), ("lcsb-identity", ((0,), (1,), (2,)))])
def test_another_method(options: SimulateOptions, method: Method, schedule: tuple[tuple[int, ...], ...]) -> None:
    result = simulate(dataclasses.replace(options, method=method)).result
    assert (result.method, result.schedule) == (method, schedule)


def test_the_eager_runner_gives_the_same(options: SimulateOptions, tmp_path: Path) -> None:
    """Two cycles. The losses differ by rounding, about 1e-7 a step."""
    options = dataclasses.replace(options, steps=6, learning_rate=1e-3)
    eager = dataclasses.replace(options, runner="eager", adapter=tmp_path / "eager.safetensors")
    results = [simulate(run).result for run in (options, eager)]
    np.testing.assert_allclose(results[0].losses, results[1].losses, rtol=1e-5)
    assert results[1].predicted_peak_anonymous_bytes is None


def test_evaluation_data_of_its_own(options: SimulateOptions, tmp_path: Path) -> None:
    one = write_lines(tmp_path / "one.jsonl", [{"text": "the only one"}])
    with pytest.raises(DataError, match="--eval-data"):
        simulate(dataclasses.replace(options, data=one))
    result = simulate(dataclasses.replace(options, data=one, evaluation_data=one, steps=9)).result
    assert result.eval_loss_after < result.eval_loss_before


def test_held_out_examples_are_not_trained_on(options: SimulateOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of 25, rounded."""
    lines = [{"text": f"{number:02} " + "x" * 20} for number in range(25)]  # one a sequence
    options = dataclasses.replace(options, data=write_lines(tmp_path / "data.jsonl", lines), steps=40)
    trained: set[str] = set()
    evaluated: set[str] = set()
    tokenizer = Bundle.open(options.bundle).tokenizer

    class Watch(StubRunner):
        def step(self, subset: Subset, batch: Batch, adapter: Float32Array) -> StepResult:
            trained.add(tokenizer.decode(batch.input_ids.tolist())[:2])
            return super().step(subset, batch, adapter)

        def evaluate(self, batch: Batch, adapter: Float32Array) -> float:
            evaluated.add(tokenizer.decode(batch.input_ids.tolist())[:2])
            return 1.0

    use_runner(monkeypatch, Watch())
    simulate(options)
    assert len(evaluated) == 3
    assert trained == {f"{number:02}" for number in range(25)} - evaluated


def test_options_are_checked_before_data_is_read(options: SimulateOptions, tmp_path: Path) -> None:
    for changes in ({"steps": 0}, {"learning_rate": math.inf}, {"accumulation": 0}, {"warmup": -1}, {"sampling": SamplingConfig(top_p=0)}):
        with pytest.raises(OptionError):
            simulate(dataclasses.replace(options, data=tmp_path / "absent", **changes))


def test_the_result_is_json(options: SimulateOptions) -> None:
    import msgspec

    result = simulate(options).result
    assert json.loads(msgspec.json.encode(result))["losses"] == list(result.losses)
