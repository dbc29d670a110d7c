"""The example of a host loop reproduces the recorded steps: the format says all that a loop in another language needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from device_bundles import BUNDLES
from processes import python

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace

EXAMPLE = Path(__file__).parent.parent / "examples/onnxruntime_step.py"
RUN = "import runpy; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
# The block_forward of the others has a session a layer, which the example leaves out.
WITH_ONE_SESSION = [path for path in BUNDLES if not Bundle.open(path).manifest.accuracy_level]


@pytest.mark.parametrize("bundle", WITH_ONE_SESSION, ids=lambda path: path.name)
def test_example_gives_the_recorded_steps(bundle: Path, tmp_path: Path) -> None:
    trace = read_trace(Bundle.open(bundle).golden_path)
    for number in range(len(trace.steps)):
        found = json.loads(python(tmp_path, RUN, EXAMPLE, bundle, number))
        assert found["loss"] == pytest.approx(found["recorded_loss"], rel=trace.step_tolerance)
        assert list(found["norms"].values()) == pytest.approx(found["recorded_norms"], rel=trace.step_tolerance)
