"""The registry of targets: what a row promises is there, and a target that is none is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from helpers.bundles import RandomBundle, StubRunner

from lcsb_mobile.bundle.directory import open_bundle
from lcsb_mobile.errors import OptionError
from lcsb_mobile.export.target import exporter
from lcsb_mobile.runners import make_runner, runner_module
from lcsb_mobile.targets import RUNNERS, TARGETS, RunnerName, Target, TargetRow, target_row, targets_of


def test_names_agree() -> None:
    """A type cannot be made of a table; so the names stand twice, side by side."""
    assert set(get_args(RunnerName)) == set(RUNNERS)
    assert set(TARGETS) == set(get_args(Target))
    assert all(name == row.name for name, row in TARGETS.items())


@pytest.mark.parametrize("name", TARGETS)
def test_a_row_leads_to_its_modules(name: str) -> None:
    assert callable(exporter(name).export_programs) and callable(exporter(name).runtime_settings) and callable(exporter(name).import_tools)
    assert isinstance(exporter(name).TOOLS, tuple)
    assert callable(runner_module(name).make_runner) and callable(runner_module(name).import_runtime)


def test_refusals() -> None:
    with pytest.raises(OptionError, match="target: expected one of .*, found 'tflite'"):
        target_row("tflite")
    with pytest.raises(OptionError, match="runner: expected one of .*, found 'tflite'"):
        runner_module("tflite")


def test_a_row_is_all_that_a_runner_needs(random_bundle: RandomBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the tables knows which runners there are."""
    module = ModuleType("another_runner")
    module.make_runner = lambda bundle, threads, keep, between_layers: StubRunner()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "another_runner", module)
    monkeypatch.setitem(TARGETS, "another", TargetRow("another", "another_exporter", "another_runner", "block programs"))  # type: ignore[arg-type]
    monkeypatch.setitem(RUNNERS, "another", "another_runner")
    assert "another" in targets_of("block programs")
    runner = make_runner(open_bundle(Path(random_bundle.bundle)), "another", keep=2)  # type: ignore[arg-type]
    assert isinstance(runner, StubRunner)
