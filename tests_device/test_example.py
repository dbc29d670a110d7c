"""The example of a host loop reproduces the recorded steps: the format says all that a loop in another language needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from device_bundles import BUNDLES

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace

EXAMPLE = Path(__file__).parent.parent / "examples/onnxruntime_step.py"
# The block_forward of the others has a session a layer, which the example leaves out.
WITH_ONE_SESSION = [path for path in BUNDLES if not Bundle.open(path).manifest.accuracy_level]


@pytest.mark.parametrize("bundle", WITH_ONE_SESSION, ids=lambda path: path.name)
def test_example_gives_the_recorded_steps(bundle: Path) -> None:
    trace = read_trace(Bundle.open(bundle).golden_path)
    for number in range(len(trace.steps)):
        done = subprocess.run([sys.executable, EXAMPLE, bundle, str(number)], capture_output=True, text=True, check=True, timeout=300)
        found = json.loads(done.stdout)
        assert found["loss"] == pytest.approx(found["recorded_loss"], rel=trace.step_tolerance)
        assert list(found["norms"].values()) == pytest.approx(found["recorded_norms"], rel=trace.step_tolerance)
