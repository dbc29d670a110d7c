"""Activations that the simulator keeps, by number or by budget, and a budget that is watched within a step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import RandomBundle, lcsb, lcsb_error, lcsb_json, python

import lcsb_mobile.runs.session as session_module
import lcsb_mobile.runs.setup as run_setup_module
import lcsb_mobile.runs.simulate as simulate_module
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import BundleError, MemoryBudgetError, MemoryBudgetExceeded, OptionError
from lcsb_mobile.measuring import memory_watch
from lcsb_mobile.measuring.memory import process_memory
from lcsb_mobile.planning.plan import Plan
from lcsb_mobile.report.run import run_report
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner
from lcsb_mobile.runs.setup import Observer, SimulateOptions
from lcsb_mobile.runs.simulate import simulate

STEPS = 6
# What is kept is rounded to float16, 2^-11 of each value; it reaches a loss through a few updates of 1e-3.
KEPT_TOLERANCE = 2e-4


@pytest.fixture
def options(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> SimulateOptions:
    adapter = tmp_path / "runs" / "adapter.safetensors"
    return SimulateOptions(random_bundle.bundle, messages, steps=STEPS, adapter=adapter, threads=1, learning_rate=0.01, method="full")


def test_what_is_kept_changes_no_result(options: SimulateOptions) -> None:
    """Nothing, one layer, everything (and more than there is): the same losses, to float16's rounding of what was kept."""
    options = dataclasses.replace(options, learning_rate=1e-3)
    nothing = simulate(options).result
    assert nothing.kept_layers == 0 and nothing.runtime == "onnxruntime"
    assert nothing.eval_loss_after < nothing.eval_loss_before
    for keep, kept in ((1, 1), (3, 3), (10**6, 3)):
        result = simulate(dataclasses.replace(options, keep=keep, force=True)).result
        assert result.kept_layers == kept
        np.testing.assert_allclose(result.losses, nothing.losses, rtol=KEPT_TOLERANCE)
        assert result.losses[0] == nothing.losses[0]  # a loss is the forward's, which keeps in full precision


def test_a_run_repeats_bit_for_bit(options: SimulateOptions) -> None:
    first = simulate(options).result
    adapter = options.adapter.read_bytes()
    second = simulate(dataclasses.replace(options, force=True)).result
    assert first.losses == second.losses and first.evaluations == second.evaluations
    assert options.adapter.read_bytes() == adapter


def test_no_state_is_left_behind(options: SimulateOptions) -> None:
    simulate(options)
    assert [path.name for path in options.adapter.parent.iterdir()] == [options.adapter.name]


def test_the_budget_decides_what_is_kept(options: SimulateOptions) -> None:
    """A budget is spent on keeping: far too much of it keeps every layer; without one nothing is kept."""
    result = simulate(dataclasses.replace(options, memory_budget=10**12)).result
    assert result.kept_layers == 3
    assert result.predicted_peak_anonymous_bytes is not None and result.predicted_peak_anonymous_bytes < 10**12


def test_a_budget_below_the_least_says_the_least(options: SimulateOptions) -> None:
    base, _ = process_memory()
    assert base is not None
    with pytest.raises(MemoryBudgetError, match=r"at least [\d.,]+ MB, .* nothing was run"):
        simulate(dataclasses.replace(options, memory_budget=base // 2))
    assert not options.adapter.exists()


def test_a_budget_is_watched_between_layers(options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that was wrong: the first step is stopped before it ends, and the adapter is as it was."""
    monkeypatch.setattr(run_setup_module, "plan_run", lambda *_: Plan(0, 1, 1))
    monkeypatch.setattr(run_setup_module, "WATCH_INTERVAL", 0.0)
    monkeypatch.setattr(simulate_module, "check_first_step", lambda *_: None)
    monkeypatch.setattr(session_module.Session, "_evaluate", lambda *_: None)
    with pytest.raises(MemoryBudgetExceeded, match=r"step 1: .* more than the 1\.0 MB"):
        simulate(dataclasses.replace(options, memory_budget=1_000_000))
    initial = Bundle.open(options.bundle).initial_adapter()
    assert np.array_equal(load_adapter(options.adapter, Bundle.open(options.bundle).manifest.adapter), initial)


# A run whose budget is the prediction for it, whatever this process has by then.
EDGE = """
import sys
from pathlib import Path
import lcsb_mobile.runs.setup as setup
import lcsb_mobile.runs.simulate as simulation
from lcsb_mobile.generation.sampling import SamplingConfig

watched = []

class Sampler(simulation.MemorySampler):
    def __init__(self, **options):
        super().__init__(**options)
        watched.append(self)

def at_the_edge(manifest, subsets, base, budget, *rest):
    plan = plan_run(manifest, subsets, base, None, *rest)
    watched[0].limit = plan.predicted_peak_bytes
    return plan

plan_run, setup.plan_run, simulation.MemorySampler = setup.plan_run, at_the_edge, Sampler
bundle, data, directory = map(Path, sys.argv[1:4])
keep, texts = int(sys.argv[4]), int(sys.argv[5])
options = setup.SimulateOptions(
    bundle, data, steps=4, adapter=directory / "a", threads=1, method="full", memory_budget=10**12, keep=keep, accumulation=1 + texts,
    checkpoint_directory=directory / "run", prompts=("the train",) * texts, sampling=SamplingConfig(max_tokens=9), evaluate_every=2,
    initial_adapter=bundle / "adapter.safetensors" if texts else None,
)
found = simulation.simulate(options).result
assert not watched[0].exceeded and len(found.losses) == 4 and len(found.samples) == texts
print(found.predicted_peak_anonymous_bytes - found.peak_anonymous_bytes)
"""


@pytest.mark.parametrize("texts", [0, 2])
@pytest.mark.parametrize("keep", [0, 3])
def test_what_the_plan_admits_runs_to_its_end(random_bundle: RandomBundle, messages: Path, tmp_path: Path, keep: int, texts: int) -> None:
    """Start-up, checkpoints, evaluations and text samples included."""
    done = python(EDGE, random_bundle.bundle, messages, tmp_path, keep, texts)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < int(done.stdout) < 6_000_000


class Warned(Observer):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not say how much memory is anonymous."""
    for way in ("exact", "quick"):
        monkeypatch.setattr(memory_watch, way, lambda pid: None)


def test_a_budget_that_cannot_be_watched_is_planned(no_figure: None, options: SimulateOptions) -> None:
    observer = Warned()
    simulation = simulate(dataclasses.replace(options, memory_budget=10**12), observer)
    result = simulation.result
    assert result.kept_layers == 3
    assert len(observer.warnings) == 1 and "cannot be watched" in observer.warnings[0] and "by an estimate" in observer.warnings[0]
    assert result.peak_anonymous_bytes is None and result.predicted_peak_anonymous_bytes is None and result.peak_rss_bytes > 1e6
    report = run_report(simulation)
    assert simulation.memory_timeline == [] and {record.memory_bytes for record in report.steps} == {None}
    assert "anonymous" not in report.facts["Peak memory"] and any("does not say" in note for note in report.notes)

    with pytest.raises(MemoryBudgetError, match=r"of it this process, by an estimate; more than the 1\.0 MB allowed; nothing was run"):
        simulate(dataclasses.replace(options, memory_budget=10**6, force=True))


def test_what_is_resident_exceeds_no_budget(no_figure: None, options: SimulateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for 1 MB that the run cannot have kept to: nobody saw it."""
    monkeypatch.setattr(run_setup_module, "plan_run", lambda *_: Plan(1, 1, 1))
    assert simulate(dataclasses.replace(options, memory_budget=10**6)).result.kept_layers == 1


def test_keeping_needs_no_figure(no_figure: None, options: SimulateOptions) -> None:
    observer = Warned()
    assert simulate(dataclasses.replace(options, keep=2), observer).result.kept_layers == 2
    assert observer.warnings == []


def test_a_budget_of_a_runner_that_cannot_be_predicted(no_figure: None, options: SimulateOptions) -> None:
    observer = Warned()
    simulate(dataclasses.replace(options, runner="eager", steps=1, memory_budget=10**6), observer)
    assert len(observer.warnings) == 1 and observer.warnings[0].endswith("of this runner nothing is predicted: it has no effect")


def test_memory_that_is_not_known_stays_so_in_a_checkpoint(no_figure: None, options: SimulateOptions, tmp_path: Path) -> None:
    options = dataclasses.replace(options, checkpoint_directory=tmp_path / "run")
    simulate(dataclasses.replace(options, steps=2))
    resumed = simulate(dataclasses.replace(options, resume=True))
    assert resumed.result.resumed_from == 2 and resumed.run.memory == [None] * STEPS


def test_the_reference_keeps_nothing(random_bundle: RandomBundle) -> None:
    with pytest.raises(OptionError, match="keep: expected none with runner eager"):
        make_runner(Bundle.open(random_bundle.bundle), "eager", keep=1)


def test_a_bundle_of_another_target(random_bundle: RandomBundle) -> None:
    with pytest.raises(BundleError, match="expected a bundle of target onnxruntime-training, found onnxruntime"):
        OnnxRuntimeTrainingRunner(Bundle.open(random_bundle.bundle))


def test_the_command(random_bundle: RandomBundle, messages: Path, tmp_path: Path) -> None:
    arguments = ("simulate", random_bundle.bundle, "--data", messages, "--steps", 2, "--adapter", tmp_path / "a", "--threads", 1)
    assert lcsb_json(*arguments, "--keep", "all")["kept_layers"] == 3
    assert "top 1 layers" in lcsb(*arguments, "--keep", 1, "--force")
    line = lcsb_error(2, *arguments, "--keep", "most", "--force")
    assert "keep: expected none, all or a number of layers, found 'most'" in line
    line = lcsb_error(2, *arguments, "--memory-budget", "1MB", "--force")
    assert "at least" in line and "nothing was run" in line
