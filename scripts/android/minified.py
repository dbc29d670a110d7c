"""Holds the rules for R8 of android_demo/core-android: the core, shrunk and renamed under them alone, trains the same adapter.

`minified.py BUNDLE --data FILE.jsonl`, after `mvn package`. Two steps on the JVM, as `android_demo/cli` is and as R8 makes it. Without the
rules the native library of ONNX Runtime finds its classes no longer. Exit code 3: R8 is not to be had; it may be on Google's repository
only. Exit code 1: the two differ, or R8 or a run failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from apk import DEMO, R8, artifact, classes_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cores"))

from cores import JAR, JVM_FLAGS

MAIN = "-keep class lcsbmobile.cli.MainKt { public static void main(java.lang.String[]); }\n"
NOT_TO_BE_HAD = Path(__file__).resolve().parents[1] / "testing/not_to_be_had.sh"
RULES = DEMO / "core-android/consumer-rules.pro"


def fetch(log: Path) -> None:
    """R8. Exits with 3 where it is not to be had."""
    try:
        artifact(R8)
    except SystemExit as error:
        log.write_text(str(error))
        absent = "Could not find artifact com.android.tools" in str(error)
        if not absent and subprocess.run([NOT_TO_BE_HAD, log], stdout=subprocess.DEVNULL, check=False).returncode:
            raise
        print(f"minified: {R8} is not to be had: {error}", file=sys.stderr)
        sys.exit(3)


def minify(work: Path) -> list[Path]:
    """What R8 makes of the command line and all that it uses, and the runtime's native libraries beside it."""
    jars = [*sorted(JAR.glob("cli-*.jar")), *sorted((JAR / "lib").glob("*.jar"))]
    (work / "main.pro").write_text(MAIN)
    native = work / "native"
    inputs = []
    for jar in jars:
        inputs.append(classes_of(jar, work / jar.name) if jar.name.startswith("onnxruntime-") else jar)
        with zipfile.ZipFile(jar) as archive:
            archive.extractall(native, [name for name in archive.namelist() if "/native/linux-" in name])
    home = subprocess.run(["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True).stderr
    library = next(line.split("=")[1].strip() for line in home.splitlines() if line.strip().startswith("java.home"))
    output = work / "minified.jar"
    arguments = ["--release", "--classfile", "--lib", library, "--pg-conf", work / "main.pro", "--pg-conf", RULES, "--output", output]
    command = ["java", "-Xmx2g", "-cp", artifact(R8), "com.android.tools.r8.R8", *arguments, *inputs]
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"R8: {process.stderr.strip()}")
    return [output, native]


def train(classpath: list[Path], bundle: Path, data: Path, run: Path) -> bytes:
    """The adapter after two steps."""
    path = os.pathsep.join(map(str, classpath))
    options = ("--steps", "2", "--threads", "1")
    command = ["java", *JVM_FLAGS, "-cp", path, "lcsbmobile.cli.MainKt", "train", str(bundle), str(data), str(run), *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{run.name}: {process.stdout[-500:]}{process.stderr[-2000:]}")
    return (run / "adapter.safetensors").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        fetch(work / "log")
        whole = train([*JAR.glob("cli-*.jar"), JAR / "lib" / "*"], arguments.bundle, arguments.data, work / "whole")
        minified = train(minify(work), arguments.bundle, arguments.data, work / "minified")
    same = whole == minified
    print(f"{int(same)} passed, {int(not same)} failed, 0 skipped")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
