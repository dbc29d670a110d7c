"""Holds ONNX Runtime on ARM64, the instruction set of phones, to the golden traces of bundles: `verify_arm64.py BUNDLE...`

Runs the device half on each bundle here and on emulated ARM64 processors (arm64_python.sh) with the same packages, and prints how far
losses and gradient norms are from the trace at most, on each. Emulation proves numbers, not speed. Runs in an environment without torch.

Exit codes: 1, a bundle's trace does not hold, or something is broken; 3, what ARM64 needs is not to be had here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lcsb_mobile.errors import LcsbError
from lcsb_mobile.runs.verify import verify

ARM64_PYTHON = Path(__file__).with_name("arm64_python.sh")
LIMIT = 600  # seconds of the processor a bundle, whatever else runs; a fiftieth is usual
LONGEST = 7200  # seconds, for a process that hangs and computes nothing
# cortex-a76 is of 2018: NEON with dot products, as nearly every phone has. cortex-a710 is of 2021: products of int8 matrices, and SVE2.
# max has all that the emulator knows, SME too, for which ONNX Runtime has kernels of its own; with int8 activations it takes 15 times as
# long as the first.
CPUS = ("cortex-a76", "cortex-a710", "max")
FIGURES = ("step_loss", "step_gradient_norm", "run_loss")


def measure(bundles: Sequence[Path]) -> None:
    """What runs on each processor: prints one JSON object a bundle."""
    for bundle in bundles:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + LIMIT, resource.RLIM_INFINITY))
        try:
            result = verify(bundle, threads=1)
        except LcsbError as error:
            found: dict[str, object] = {"error": str(error)}
        else:
            found = {name: getattr(result, name) for name in ("runtime_version", *FIGURES)}
        print(json.dumps({"bundle": bundle.name} | found), flush=True)


def run(processor: str, command: Sequence[object], bundles: Sequence[Path], cpu: str = "") -> list[dict[str, object]]:
    """`measure` on a processor. One that crashes or hangs at a bundle has that as its error."""
    arguments = [*command, Path(__file__).resolve(), "--measure", *(bundle.resolve() for bundle in bundles)]
    environment = os.environ | {"LCSB_ARM64_CPU": cpu}
    try:
        done = subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE, check=False, timeout=LONGEST, env=environment)
        computed = done.returncode == -signal.SIGXCPU
        printed, end = done.stdout, f"computed for {LIMIT} seconds" if computed else f"the process ended with {done.returncode}"
    except subprocess.TimeoutExpired as expired:
        printed, end = expired.stdout or b"", f"the process had not ended after {LONGEST} seconds"
    rows = [json.loads(line) for line in printed.splitlines()]
    if len(rows) < len(bundles):
        rows.append({"bundle": bundles[len(rows)].name, "error": end})
    return [{"processor": processor} | row for row in rows]


def show(rows: Sequence[dict[str, object]]) -> None:
    from rich.console import Console  # not on the emulated processor, where it takes seconds
    from rich.table import Table

    table = Table("bundle", "processor", "a step's loss", "a gradient's norm", "the run's losses", box=None, pad_edge=False)
    for row in sorted(rows, key=lambda row: str(row["bundle"])):
        cells = ["failed"] if "error" in row else [f"{row[name]:.1e}" for name in FIGURES]
        table.add_row(str(row["bundle"]), str(row["processor"]), *cells)
    print("largest relative differences to the golden traces")
    Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(table)
    for row in rows:
        if "error" in row:
            print(f"error: {row['bundle']} on {row['processor']}: {row['error']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    help_cpu = f"a CPU of qemu-aarch64, and which of the bundles it runs (default: all); may be given again (default: {', '.join(CPUS)})"
    parser.add_argument("--cpu", action="append", metavar="CPU[:NAME,NAME]", help=help_cpu)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.bundles)
        return 0
    set_up = subprocess.run([ARM64_PYTHON], env=os.environ | {"LCSB_ARM64_LIKE": sys.executable}, check=False).returncode
    if set_up:
        return set_up
    os.environ["LCSB_ARM64_LIKE"] = sys.executable
    rows = run("x86-64", [sys.executable], args.bundles)

    def emulate(cpu: str) -> list[dict[str, object]]:
        name, _, only = cpu.partition(":")
        bundles = [bundle for bundle in args.bundles if not only or bundle.name in only.split(",")]
        return run(f"arm64 {name}", [ARM64_PYTHON], bundles, name)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each processor is a process of its own
        for found in pool.map(emulate, args.cpu or CPUS):
            rows += found
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    failed = sum("error" in row for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed, 0 skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
