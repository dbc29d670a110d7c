"""`run.py SECONDS`: `fuzz.py` on every reader in turn, each with its share of the seconds. One line a reader; ends with 1 at a finding."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
READERS = sorted(path.name for path in (HERE / "corpus").iterdir())
FOUND = Path("build/fuzz")


def run(reader: str, seconds: int) -> bool:
    """Whether nothing was found. What the fuzzer printed is left in `build/fuzz/READER.log`."""
    FOUND.mkdir(parents=True, exist_ok=True)
    log = FOUND / f"{reader}.log"
    with log.open("wb") as file:
        code = subprocess.run([sys.executable, HERE / "fuzz.py", reader, str(seconds)], stdout=file, stderr=file, check=False).returncode
    text = log.read_text(errors="replace")
    inputs, peak = (re.findall(rf"{name}: *(\d+)", text)[-1:] or ["?"] for name in ("number_of_executed_units", "peak_rss_mb"))
    print(
        f"{reader:<20} {inputs[0]:>8} inputs {seconds:>5} s {peak[0]:>5} MB  {'a finding: ' + str(log) if code else 'nothing found'}",
        flush=True,
    )
    return code == 0


if __name__ == "__main__":
    share = max(1, int(sys.argv[1]) // len(READERS))
    clean = [run(reader, share) for reader in READERS]
    sys.exit(not all(clean))
