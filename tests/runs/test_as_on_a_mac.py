"""The whole way as a Mac would run it: without /proc and without what macOS' Python lacks. The device's verbs: tests_device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.checkpoints import write_checkpoint

UNAVAILABLE = 3
SCRIPT = Path(__file__).parents[2] / "scripts/testing/as_on_a_mac.py"
LCSB = "from lcsb_mobile.cli import main; import sys; sys.argv[0] = 'lcsb'; main()"


def test_quickstart(tmp_path: Path, messages: Path) -> None:
    # As an export's own group size and subsets need them.
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_attention_heads": 4, "num_hidden_layers": 4}
    model = write_checkpoint(tmp_path / "checkpoint", "llama", tied=True, **sizes)
    options = ("--model", model, "--data", messages, "--output", tmp_path / "demo", "--steps", 4, "--threads", 1, "--json")
    command = [sys.executable, SCRIPT, sys.executable, "-c", LCSB, "quickstart", *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["export"]["peak_anonymous_bytes"] is None and found["export"]["peak_rss_bytes"] > 1e7
    assert found["simulate"]["peak_anonymous_bytes"] is None and len(found["simulate"]["losses"]) == 4
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["adapter.safetensors", "bundle", "report.html"]
