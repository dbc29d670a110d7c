"""Target `executorch` on layers of several kinds: LFM2 and Qwen3.5. What crosses layers is the loop's, of any runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import RandomBundle, lcsb, small_export
from helpers.checkpoints import write_checkpoint
from helpers.tiny_models import example, largest_difference, pack, subset

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.autograd import reference_step
from lcsb_mobile.runners import make_runner

FAMILIES = {"lfm2": "lfm2", "qwen3_5": "qwen3_5_text"}
SEQ_LEN = 64  # two chunks of the delta rule

MakeBundle = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Made once."""
    made: dict[str, Path] = {}

    def export(name: str) -> Path:
        directory = tmp_path_factory.mktemp(name)
        checkpoint = write_checkpoint(directory / "checkpoint", FAMILIES[name], tied=True)
        options = small_export(model=str(checkpoint), output=directory / "bundle")
        export_bundle(dataclasses.replace(options, seq_len=SEQ_LEN, target="executorch"))
        return RandomBundle(checkpoint, directory / "bundle").bundle

    def once(name: str) -> Path:
        if name not in made:
            made[name] = export(name)
        return made[name]

    return once


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_and_text(name: str, exported: MakeBundle) -> None:
    """Laws 1 and 2 with nothing, some and all layers kept; the recorded run of two cycles (law 4); a text token by token."""
    bundle = Bundle.open(exported(name))
    layout, model, layers = bundle.manifest.adapter, model_of(bundle.manifest.model), len(bundle.manifest.layers)
    noise = 0.05 * np.random.default_rng(0).standard_normal(layout.size)
    adapter = bundle.initial_adapter() + noise.astype(np.float32)
    batch = pack([example(1, 9), example(2, 1), example(3, 14)], bundle.manifest.seq_len)
    runners = {keep: make_runner(bundle, threads=1, keep=keep) for keep in (0, 2, layers)}
    for step in (subset(range(layers)), subset([1, 2], range(layers)), subset([0, layers - 1]), subset([layers - 2], [layers - 1])):
        expected = reference_step(model, layout, bundle.weights, step, batch, adapter)
        for keep, runner in runners.items():
            found = runner.step(step, batch, adapter)
            assert found.loss == pytest.approx(expected.loss, rel=3e-5)
            assert largest_difference(found, expected) < (2e-3 if keep else 3e-5)
    eager, runner = make_runner(bundle, "eager"), runners[0]
    assert runner.evaluate(batch, adapter) == pytest.approx(eager.evaluate(batch, adapter), rel=1e-5)
    words = [int(token) for token in np.random.default_rng(2).integers(4, 131, 12)]
    ours, expected_decoder = runner.decoder(adapter), eager.decoder(adapter)
    for position in range(4, len(words)):
        logits, theirs = (x.start(words[:5]) if position == 4 else x.extend(words[position]) for x in (ours, expected_decoder))
        np.testing.assert_allclose(logits, theirs, rtol=0, atol=2e-5 * float(np.abs(theirs).max()))
    lcsb("verify", exported(name))
