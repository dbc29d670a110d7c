"""The verbs of a device as a Mac would run them: without /proc and without what macOS' Python lacks. Results are the same bits as here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcsb_mobile import tiny
from lcsb_mobile.bundle.directory import Bundle

NAME = "tiny"
UNAVAILABLE = 3
SCRIPT = Path(__file__).parents[1] / "scripts/testing/as_on_a_mac.py"
LCSB = "from lcsb_mobile.cli import main; import sys; sys.argv[0] = 'lcsb'; main()"
PROBE = """
import os
from lcsb_mobile.measuring.memory import process_memory
from lcsb_mobile.measuring.machine import available_memory, physical_cores
print(os.listdir("/proc"), hasattr(os, "posix_fallocate"), process_memory()[0], available_memory(), physical_cores() > 0)
"""
ESTIMATE = """
import json, sys
import lcsb_mobile.cli
from lcsb_mobile.measuring.memory import estimated_anonymous, process_memory
from lcsb_mobile.runners import import_runtime
import_runtime("onnxruntime")
anonymous, resident = process_memory()
print(json.dumps([anonymous, estimated_anonymous(resident), "torch" in sys.modules]))
"""
WARNING = "this system does not say how much of a process's memory is anonymous, so --memory-budget cannot be watched"


@pytest.fixture(scope="module")
def bundle(bundles: list[Path]) -> Path:
    return next(path for path in bundles if path.name == NAME)


def mac(*arguments: object) -> subprocess.CompletedProcess[str]:
    return ran(sys.executable, SCRIPT, sys.executable, "-c", *arguments)


def ran(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def this_system_can() -> None:
    done = mac(PROBE)
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.stdout.split("\n")[0] == "['cpuinfo'] False None None True", done.stderr


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def mac_json(*arguments: object) -> Any:
    return parsed(mac(LCSB, *arguments, "--json"))


def here_json(*arguments: object) -> Any:
    return parsed(ran(sys.executable, "-c", LCSB, *arguments, "--json"))


def run_of(bundle: Path, adapter: Path, steps: int, *more: object) -> tuple[object, ...]:
    data = ("--data", tiny.MESSAGES, "--eval-data", tiny.EVAL_MESSAGES, "--steps", steps, "--lr", 1e-3)
    return ("simulate", bundle, *data, "--adapter", adapter, "--threads", 1, *more)


def test_a_run_that_goes_on_and_what_it_learnt(bundle: Path, tmp_path: Path) -> None:
    """Three steps, then on to six from their checkpoint; then text. On this system the unbroken run gives the same."""
    checkpoints = ("--checkpoint-dir", tmp_path / "run", "--checkpoint-every", 2)
    first = mac_json(*run_of(bundle, tmp_path / "mac", 3, *checkpoints))
    report = tmp_path / "report.html"
    resumed = mac_json(*run_of(bundle, tmp_path / "mac", 6, *checkpoints, "--resume", "--report", report))
    here = here_json(*run_of(bundle, tmp_path / "here", 6))
    assert resumed["resumed_from"] == 3 and resumed["losses"][:3] == first["losses"]
    assert resumed["losses"] == here["losses"] and (tmp_path / "mac").read_bytes() == (tmp_path / "here").read_bytes()
    for run in (first, resumed):
        assert run["peak_anonymous_bytes"] is None and run["predicted_peak_anonymous_bytes"] is None and run["peak_rss_bytes"] > 1e7
    page = report.read_text("utf-8")
    assert "does not say how much of it is anonymous" in page and "MB, anonymous" not in page and "Memory over time" not in page

    text = ("--prompt", "ok so ", "--max-tokens", 8, "--temperature", 0, "--threads", 1)
    written = mac_json("generate", bundle, "--adapter", tmp_path / "mac", *text)["text"]
    assert written == here_json("generate", bundle, "--adapter", tmp_path / "here", *text)["text"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here, and its libraries are resident")
def test_a_budget_is_planned_and_not_watched(bundle: Path, tmp_path: Path) -> None:
    """Some 60 MB of anonymous memory, but 120 resident: 100 MB are enough for every layer to be kept, as they are on this system."""
    layers = Bundle.open(bundle).manifest.model.num_hidden_layers
    arguments = run_of(bundle, tmp_path / "a", 2, "--force", "--memory-budget")
    done = mac(LCSB, *arguments, "100MB")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: ") == 1 and WARNING in done.stderr and "by an estimate" in done.stderr
    assert f"top {layers} layers" in done.stdout and "MB anonymous" not in done.stdout
    assert here_json(*arguments, "100MB")["kept_layers"] == layers

    refused = mac(LCSB, *arguments, "30MB")
    assert refused.returncode == 2 and refused.stdout == ""
    assert "of it this process, by an estimate; more than the 30.0 MB allowed; nothing was run" in refused.stderr


def test_the_estimate_of_a_process() -> None:
    """On this system, which says what is anonymous: never less, and not much more, but for torch's libraries."""
    anonymous, estimated, torch = parsed(ran(sys.executable, "-c", ESTIMATE))
    assert anonymous < estimated < anonymous + (10**9 if torch else 40 * 10**6)


def test_inspect_and_bench(bundle: Path, tmp_path: Path) -> None:
    found = mac_json("inspect", bundle)
    assert found == here_json("inspect", bundle)
    measured = ("bench", bundle, "--methods", "full", "--steps", 1, "--rounds", 1, "--threads", 1)
    (row,) = mac_json(*measured, "--plot", tmp_path)
    assert row["peak_anonymous_bytes"] is None and row["predicted_peak_anonymous_bytes"] is None and row["peak_rss_bytes"] > 1e7
    assert row["losses"] and (tmp_path / "peak-memory.png").is_file()


def test_verify(bundle: Path) -> None:
    assert mac_json("verify", bundle, "--threads", 1) == here_json("verify", bundle, "--threads", 1)
