"""Whether the systems and Pythons that the package is for have wheels of all that it asks for, as uv resolves it against the index.

Nothing is installed, and no other system is needed: `resolve.py`, with the uv of the environment that runs it. The closing line counts the
cases. Exit codes: 1, something has no wheel, or one that should not be had is; 3, the index cannot be reached.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
UNREACHABLE = "cause: Failed to fetch: "
NEW_LINUX = "x86_64-manylinux_2_34"
LINUX, ARM_LINUX, MAC, INTEL_MAC = "x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-apple-darwin"
OLDEST_MACOS = "14.0"  # that PyTorch 2.13 has wheels for


@dataclass(frozen=True)
class Case:
    """`brings`: a distribution that must be among what is resolved; `lacks`: one that must not be, or that has no wheel there."""

    platform: str
    python: str
    extras: tuple[str, ...]
    brings: str = ""
    lacks: str = ""


APPLE = ("coreai", "coreml")
EVERYTHING, DEVICE, TRAINING = ("export", "onnxruntime", "executorch", "gguf"), ("onnxruntime",), ("onnxruntime-training",)
CASES = (
    *(Case(platform, python, EVERYTHING, "torch") for platform in (LINUX, ARM_LINUX, MAC) for python in ("3.10", "3.14")),
    Case(LINUX, "3.12", EVERYTHING, "gguf", lacks="transformers"),
    Case(LINUX, "3.10", EVERYTHING, "onnxruntime", lacks="gguf"),
    Case(INTEL_MAC, "3.12", DEVICE, "onnxruntime", lacks="torch"),
    Case(INTEL_MAC, "3.12", EVERYTHING, lacks="torch"),
    *(Case(platform, "3.12", TRAINING, "onnxruntime-training-cpu") for platform in (LINUX, MAC)),
    Case(LINUX, "3.13", TRAINING, "torch", lacks="onnxruntime-training-cpu"),
    Case(ARM_LINUX, "3.12", TRAINING, "torch", lacks="onnxruntime-training-cpu"),
    Case(LINUX, "3.12", APPLE, lacks="coreai-core"),
    *(Case(NEW_LINUX, python, APPLE, "coreai-core") for python in ("3.11", "3.14")),
    Case(LINUX, "3.10", APPLE, "coremltools", lacks="coreai-core"),
    Case(ARM_LINUX, "3.12", APPLE, "torch", lacks="coremltools"),
    Case(MAC, "3.12", ("coreml",), "coremltools"),
)


def resolve(case: Case) -> tuple[set[str], str]:
    """The names that are resolved to wheels, or nothing and why not."""
    extras = [argument for extra in case.extras for argument in ("--extra", extra)]
    target = ("--python-platform", case.platform, "--python-version", case.python)
    quietly = ("--quiet", "--no-header", "--no-annotate")
    command = [UV, "pip", "compile", *quietly, "--only-binary", ":all:", *target, "pyproject.toml", *extras]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if done.returncode:
        return set(), " ".join(done.stderr.split())
    return {line.split("==")[0] for line in done.stdout.splitlines()}, ""


def fault(case: Case, found: set[str], why_not: str) -> str:
    if not case.brings:
        return "" if case.lacks in why_not else f"expected none for want of {case.lacks}, found {why_not or 'all of it'}"
    if case.brings not in found:
        return f"expected {case.brings}, found {why_not or 'it is not asked for'}"
    return f"expected no {case.lacks}, found it" if case.lacks in found else ""


def main(cases: Sequence[Case] = CASES) -> int:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(resolve, cases))
    unreachable = next((why for _, why in results if UNREACHABLE in why), "")
    if unreachable:
        print(unreachable)
        return 3
    failed = 0
    for case, result in zip(cases, results, strict=True):
        reason = fault(case, *result)
        failed += bool(reason)
        print(f"{case.platform:22} Python {case.python:4} [{','.join(case.extras)}]: {reason or (case.brings or f'no {case.lacks}')}")
    print(f"{len(cases) - failed} passed, {failed} failed, 0 skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
