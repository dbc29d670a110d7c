"""Laws 7 and 11 on stock ONNX Runtime: a run that SIGKILL, SIGTERM, SIGHUP, SIGINT or its terminal's closing ended at fifty random moments
comes to the unbroken run's bits, and all but SIGKILL left its adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lcsb_mobile import tiny

NAME = "llama"


def test_fifty_kills(bundles: list[Path]) -> None:
    bundle = next(path for path in bundles if path.name == NAME)
    script = Path(__file__).parents[1] / "scripts/testing/kill_test.py"
    command = [sys.executable, str(script), str(bundle), "--data", str(tiny.MESSAGES), "--kills", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 50 and figures["runs"] >= 2 and figures["faults"] == []
    assert 0 < figures["early"] < figures["kills"] and figures["saved"] > 0
