"""SmolLM2-135M-Instruct, 20 steps through a device core beside `lcsb simulate`, run in turn: `device_core.py android|ios`.

Needs `make models`, an idle machine, and what was built: for android `make .venv-onnxruntime/.installed` and `scripts/android/maven.sh
-pl cli -am -DskipTests package`; for ios `make .venv-onnxruntime-1.24.2/.installed`, the version that the Swift package pins, and
`scripts/ios/swift.sh build`. All read the same bundle and data, evaluate only at the ends, and report their own seconds and their own
peak, which a thread or a small process samples. glibc keeps freed blocks of an arena, Android's allocator gives large ones back; the
second row of the JVM asks that of glibc by MALLOC_MMAP_THRESHOLD_. No phone was measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import DEVICE_LCSB, MODELS, ROOT, lcsb, markdown_table, write_results

sys.path.insert(0, str(ROOT / "scripts/cores"))

from cores import JAR, swift

STEPS, ROUNDS = 20, 3
# As a phone's: a small heap that gives memory back, no optimizing compiler, which would hold 10 MB. A desktop's JVM takes what it finds.
JVM = (
    *("-Xms8m", "-Xmx64m", "-XX:+UseSerialGC", "-XX:MaxHeapFreeRatio=20", "-XX:MinHeapFreeRatio=10"),
    *("-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=16m"),
)
LARGE_BLOCKS_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1"}
OPTIONS = ("--steps", str(STEPS), "--method", "full", "--lr", "8e-4", "--threads", "2", "--checkpoint-every", "1000")


def python(bundle: Path, directory: Path, program: Path = DEVICE_LCSB) -> dict[str, Any]:
    paths = ("--checkpoint-dir", directory / "run", "--adapter", directory / "adapter.safetensors")
    return last_line([program, "simulate", bundle, "--data", MODELS / "fortunes.train.jsonl", *OPTIONS, *paths, "--json"])


def jvm(bundle: Path, directory: Path, **environment: str) -> dict[str, Any]:
    (jar,) = JAR.glob("cli-*.jar")
    program = ("java", *JVM, "-cp", f"{jar}:{JAR}/lib/*", "lcsbmobile.cli.MainKt")
    return last_line([*program, "train", bundle, MODELS / "fortunes.train.jsonl", directory / "run", *OPTIONS], environment)


def python_on_the_same_runtime(bundle: Path, directory: Path) -> dict[str, Any]:
    return python(bundle, directory, ROOT / ".venv-onnxruntime-1.24.2/bin/lcsb")


def core_in_swift(bundle: Path, directory: Path) -> dict[str, Any]:
    return last_line(swift().command("simulate", bundle, MODELS / "fortunes.train.jsonl", directory / "run", *OPTIONS))


def last_line(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> dict[str, Any]:
    variables = os.environ | (environment or {})
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, env=variables)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


VARIANTS: dict[str, dict[str, Callable[[Path, Path], dict[str, Any]]]] = {
    "android": {
        "`lcsb simulate`": python,
        "core on the JVM": jvm,
        "core on the JVM, large blocks given back": lambda bundle, directory: jvm(bundle, directory, **LARGE_BLOCKS_BACK),
    },
    "ios": {"`lcsb simulate`": python_on_the_same_runtime, "`lcsb-swift simulate`": core_in_swift},
}


def main(core: str) -> None:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS[core]}
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "bundle"
        lcsb("export", MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", "--output", bundle)
        for number in range(ROUNDS):
            for index, (name, measure) in enumerate(VARIANTS[core].items()):
                directory = Path(temporary) / f"{number}-{index}"
                directory.mkdir()
                found[name].append(measure(bundle, directory))
                print(name, statistics.median(found[name][-1]["step_seconds"]), found[name][-1]["peak_anonymous_bytes"], flush=True)
    rows = [row(name, results) for name, results in found.items()]
    table = [
        [r["name"], f"{r['seconds']:.2f} s", f"{r['peak_anonymous_bytes'] / 1e6:.0f} MB", f"{r['loss']:.6f}", r["runtime_version"]]
        for r in rows
    ]
    header = ["run", "median step", "peak anonymous memory", "last loss", "ONNX Runtime"]
    write_results(f"{core}_core", markdown_table(header, table), rows, f"device_core.py {core}")


def row(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all rounds: the median of all steps but each run's first, and the highest peak."""
    seconds = [value for result in results for value in result["step_seconds"][1:]]
    return {
        "name": name,
        "seconds": statistics.median(seconds),
        "peak_anonymous_bytes": max(result["peak_anonymous_bytes"] for result in results),
        "loss": results[-1]["losses"][-1],
        "runtime_version": results[-1]["runtime_version"],
    }


if __name__ == "__main__":
    main(sys.argv[1])
