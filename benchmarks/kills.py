"""The figures of docs/run_checkpoint.md: `scripts/testing/kill_test.py` with many kills, on both ONNX runners. Takes some minutes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from common import EXPORTERS, ROOT, RUNNERS, lcsb, markdown_table, write_results

from lcsb_mobile import tiny

KILLS = 200


def main() -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for target, runner in RUNNERS.items():
            bundle = Path(temporary) / target
            lcsb(
                "export",
                "tiny",
                "--quantizer",
                "search",
                "--target",
                target,
                "--output",
                bundle,
                "--seq-len",
                "64",
                program=EXPORTERS[target],
            )
            command = [runner.with_name("python"), ROOT / "scripts/testing/kill_test.py", bundle, "--data", tiny.MESSAGES, "--kills", KILLS]
            done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False)
            rows.append(json.loads(done.stdout))
    header = [
        "target",
        "killed",
        "before the first checkpoint",
        "while writing one",
        "runs that ended",
        "of them different from the unbroken run",
    ]
    cells = [[row["target"], *(str(row[name]) for name in ("kills", "early", "writing", "runs")), str(len(row["faults"]))] for row in rows]
    write_results("kills", markdown_table(header, cells), rows)


if __name__ == "__main__":
    main()
