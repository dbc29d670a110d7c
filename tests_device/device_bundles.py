"""The bundles that these tests read: a directory of them, which the environment names."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "LCSB_TEST_BUNDLES"
BUNDLES = sorted(path.parent for path in Path(os.environ.get(VARIABLE) or "/nonexistent").glob("*/manifest.json"))
