"""Layers of several kinds on any target: LFM2, Qwen3.5, and the made-up family whose values cross layers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import RandomBundle, small_export
from helpers.checkpoints import write_checkpoint
from helpers.crossing_bundle import export_crossing, known_architecture
from helpers.tiny_models import example, largest_difference, pack, subset
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.autograd import reference_step
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runs.verify import verify
from lcsb_mobile.targets import Target

FAMILIES = {"lfm2": "lfm2", "qwen3_5": "qwen3_5_text"}
SEQ_LEN = 64  # two chunks of the delta rule

KindsBundle = Callable[..., RandomBundle]  # as the fixture `kinds_bundle` is


def export_kinds(directory: Path, name: str, target: Target, seq_len: int = SEQ_LEN) -> RandomBundle:
    """`name`: of FAMILIES, or "crossing"."""
    if name == "crossing":
        return export_crossing(directory, target)
    checkpoint = write_checkpoint(directory / "checkpoint", FAMILIES[name], tied=True)
    options = small_export(model=str(checkpoint), output=directory / "bundle", target=target)
    export_bundle(dataclasses.replace(options, seq_len=seq_len))
    return RandomBundle.within(directory)


def check_steps_and_text(path: Path, weights: Path, tolerance: float = 3e-5) -> None:
    """Laws 1 and 2 with nothing, some and all layers kept; the recorded run of two cycles (law 4); a text token by token. `weights`: a
    bundle of the same model that has `weights.bin`. `tolerance`: of gradients, relative to a layer's largest element."""
    bundle, reference = Bundle.open(path), Bundle.open(weights)
    crossing = bundle.manifest.model.model_type.startswith("crossing")
    with known_architecture() if crossing else contextlib.nullcontext():
        _check(bundle, reference, tolerance)


def _check(bundle: Bundle, reference: Bundle, tolerance: float) -> None:
    layout, model, layers = bundle.manifest.adapter, model_of(bundle.manifest.model), len(bundle.manifest.layers)
    noise = 0.05 * np.random.default_rng(0).standard_normal(layout.size)
    adapter = bundle.initial_adapter() + noise.astype(np.float32)
    batch = pack([example(1, 9), example(2, 1), example(3, 14)], bundle.manifest.seq_len)
    runners = {keep: make_runner(bundle, threads=1, keep=keep) for keep in (0, 2, layers)}
    for step in (subset(range(layers)), subset([1, 2], range(layers)), subset([0, layers - 1]), subset([layers - 2], [layers - 1])):
        expected = reference_step(model, layout, reference.weights, step, batch, adapter)
        for keep, runner in runners.items():
            found = runner.step(step, batch, adapter)
            assert found.loss == pytest.approx(expected.loss, rel=3e-5)
            assert largest_difference(found, expected) < (2e-3 if keep else tolerance)
    eager, runner = make_runner(reference, "eager"), runners[0]
    assert runner.evaluate(batch, adapter) == pytest.approx(eager.evaluate(batch, adapter), rel=1e-5)
    words = [int(token) for token in np.random.default_rng(2).integers(4, 131, 12)]
    ours, theirs = runner.decoder(adapter), eager.decoder(adapter)
    for position in range(4, len(words)):
        found_logits, expected_logits = (x.start(words[:5]) if position == 4 else x.extend(words[position]) for x in (ours, theirs))
        np.testing.assert_allclose(found_logits, expected_logits, rtol=0, atol=2e-5 * float(np.abs(expected_logits).max()))
    verify(bundle.path)
