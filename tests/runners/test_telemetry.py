"""What people write stays with them: the runtime is loaded so that it reports nothing, and leaves no identifier behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime

from lcsb_mobile.runners.onnxruntime import NO_TELEMETRY

OURS = "from lcsb_mobile.runners.onnxruntime import import_runtime; import_runtime()"
# What the runtime takes for a reason to be silent by itself.
SILENT = (NO_TELEMETRY, "CI", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS")


def left_behind(code: str, home: Path, **environment: str) -> list[str]:
    """The files that are below the home directory when `code` has run there."""
    others = {name: value for name, value in os.environ.items() if name not in SILENT and not name.startswith("XDG_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=others | {"HOME": str(home)} | environment)
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_the_runtime_reports_nothing(tmp_path: Path) -> None:
    assert left_behind(OURS, tmp_path) == []


def test_whoever_wants_reports_can_have_them(tmp_path: Path) -> None:
    """So this tells the one from the other, where the runtime reports at all."""
    reports = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 29)
    assert ("deviceid" in left_behind(OURS, tmp_path, **{NO_TELEMETRY: "0"})) == reports
