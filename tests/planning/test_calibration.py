"""A calibration of a small bundle, and predictions from made-up seconds. No measured time is judged."""

from __future__ import annotations

import json

import msgspec
import pytest
from helpers.bundles import RandomBundle, lcsb_error, lcsb_json
from helpers.calibrations import TIMED, timed_of
from helpers.random_bundles import small_random_bundle

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.errors import OptionError
from lcsb_mobile.planning.calibration import ONE_LABEL, Calibration, calibrate_bundle, predicted_seconds
from lcsb_mobile.planning.cost import full_subset

MADE_UP = Calibration(
    {
        "embed": 1.0,
        "block_forward": 10.0,
        "block_backward": 100.0,
        "block_forward_keep": 20.0,
        "block_backward_kept": 50.0,
        "head": 3100.0,
        ONE_LABEL: 0.0,
        "adamw, block": 0.5,
    }
)
FIXED = 1.0 + 3100.0 + 3 * 0.5  # embedding, head of all labels, optimizer of three layers


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(small_random_bundle(tmp_path_factory))


def test_every_program_of_a_step_is_timed(bundle: Bundle) -> None:
    calibration = calibrate_bundle(bundle, threads=1)
    assert set(calibration.seconds) == {*TIMED}
    assert all(seconds > 0 for seconds in calibration.seconds.values())
    assert predicted_seconds(bundle.manifest, calibration, full_subset(bundle.manifest)) > 0


@pytest.mark.parametrize(
    ("train", "propagate", "keep", "blocks"),
    [
        ((0, 1, 2), (0, 1, 2), 0, 3 * 10 + 3 * 100),
        ((2,), (2,), 0, 3 * 10 + 100),
        ((0,), (0, 1, 2), 1, 2 * 10 + 2 * 100 + 20 + 50),
        ((0, 1, 2), (0, 1, 2), 99, 3 * 20 + 3 * 50),
        ((0,), (0,), 2, 3 * 10 + 100),  # identities keep nothing
    ],
)
def test_a_step_takes_what_its_programs_do(
    bundle: Bundle, train: tuple[int, ...], propagate: tuple[int, ...], keep: int, blocks: float
) -> None:
    assert predicted_seconds(bundle.manifest, MADE_UP, Subset(train, propagate), keep) == pytest.approx(FIXED + blocks)


def test_the_head_costs_in_proportion_to_its_labels(bundle: Bundle) -> None:
    manifest, everything = bundle.manifest, full_subset(bundle.manifest)
    every = predicted_seconds(manifest, MADE_UP, everything)
    for counted in (1, 11, manifest.seq_len):
        expected = every - 3100.0 + 100.0 * (counted - 1)
        assert predicted_seconds(manifest, MADE_UP, everything, counted_labels=counted) == pytest.approx(expected)
    assert predicted_seconds(manifest, MADE_UP, everything, counted_labels=0) == pytest.approx(every - 3100.0)
    with pytest.raises(OptionError, match="counted labels: expected 0 to 32 .*, found 33"):
        predicted_seconds(manifest, MADE_UP, everything, counted_labels=33)


def test_without_implicit_updates_only_trained_layers_are_updated(bundle: Bundle) -> None:
    resting = msgspec.structs.replace(
        bundle.manifest, optimizer=msgspec.structs.replace(bundle.manifest.optimizer, implicit_updates="none")
    )
    top = Subset((2,), (2,))
    assert predicted_seconds(bundle.manifest, MADE_UP, top) - predicted_seconds(resting, MADE_UP, top) == pytest.approx(2 * 0.5)


def test_other_targets_and_thread_counts_are_refused(bundle: Bundle) -> None:
    training = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, target="onnxruntime-training"))
    with pytest.raises(
        OptionError, match="calibrate: needs a bundle of target onnxruntime or executorch or coreai, .* found onnxruntime-training"
    ):
        calibrate_bundle(training)
    with pytest.raises(OptionError, match="threads: expected at least 1, found 0"):
        calibrate_bundle(bundle, threads=0)


def test_inspect_predicts_seconds_when_asked(bundle: Bundle) -> None:
    told = lcsb_json("inspect", bundle.path, "--calibrate", "--threads", 1)
    assert set(told["calibration"]["seconds"]) == {*TIMED}
    assert all(step["seconds"] > 0 for step in [*told["steps"], told["cycle_mean"], told["full"], *told["keeping"]])
    untold = lcsb_json("inspect", bundle.path)
    assert untold["calibration"] is None and untold["full"]["seconds"] is None
    assert json.dumps(untold["keeping"]).count('"seconds": null') == len(untold["keeping"])


def test_inspect_refuses_threads_for_nothing(bundle: Bundle) -> None:
    assert "--calibrate" in lcsb_error(2, "inspect", bundle.path, "--threads", 1)


# Layers of several kinds


@pytest.fixture(scope="module")
def crossing(random_crossing_bundle: RandomBundle) -> Bundle:
    """Of six layers of two kinds, `full` and `shared` in turn."""
    return Bundle.open(random_crossing_bundle.bundle)


def test_the_programs_of_every_kind_are_timed(crossing: Bundle) -> None:
    calibration = calibrate_bundle(crossing, threads=1)
    assert set(calibration.seconds) == {*timed_of("full", "shared")}
    assert all(seconds > 0 for seconds in calibration.seconds.values())


@pytest.mark.parametrize(
    ("train", "propagate", "keep", "blocks"),
    [
        ((5,), (5,), 0, 3 * 10 + 3 * 1 + 2),
        ((4,), (4, 5), 0, 3 * 10 + 3 * 1 + 100 + 2),
        ((0,), (0, 3, 5), 2, 3 * 10 + 2 * 1 + 3 + 100 + 2 + 4),
        ((0, 1), (0, 1, 2, 3, 4, 5), 3, 2 * 10 + 20 + 1 + 2 * 3 + 2 * 100 + 50 + 2 + 2 * 4),
    ],
)
def test_a_step_takes_what_its_layers_programs_do(
    crossing: Bundle, train: tuple[int, ...], propagate: tuple[int, ...], keep: int, blocks: float
) -> None:
    full, shared = MADE_UP.seconds, {"forward": 1.0, "backward": 2.0, "forward_keep": 3.0, "backward_kept": 4.0}
    seconds = {name.replace("block", "full"): value for name, value in full.items()}
    seconds |= {f"shared_{role}": value for role, value in shared.items()} | {"adamw, shared": 0.25}
    updates = 3 * 0.5 + 3 * 0.25
    found = predicted_seconds(crossing.manifest, Calibration(seconds), Subset(train, propagate), keep)
    assert found == pytest.approx(1.0 + 3100.0 + updates + blocks)
    resting = msgspec.structs.replace(crossing.manifest.optimizer, implicit_updates="none")
    rested = msgspec.structs.replace(crossing.manifest, optimizer=resting)
    own = sum(0.25 if layer % 2 else 0.5 for layer in train)
    assert found - predicted_seconds(rested, Calibration(seconds), Subset(train, propagate), keep) == pytest.approx(updates - own)
