"""The device half in other languages, and how the scripts beside this one start each: by its command line, as its build left it."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcsb_mobile.io.files import replace_atomically

ROOT = Path(__file__).resolve().parents[2]
JAR = ROOT / "android_demo" / "cli" / "target"
# A short run never earns what the optimizing compiler costs; one thread collects, so that kills find the process in few states of its own.
JVM_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # of the JVM's ONNX Runtime, which the JVM cannot set for it


@dataclass(frozen=True)
class Core:
    """`words`: its command line begins with them. `train`: what it calls a run. `starting`: seconds in which a process does nothing that
    could be broken. `locks`: it takes the lock that others see: Node has no call for it, and what a page has is its own."""

    name: str
    words: Callable[[], list[str]]
    train: str
    starting: float
    locks: bool = True

    def command(self, *arguments: object) -> list[str]:
        """Exits with what to do when the core was not built."""
        return [*self.words(), *map(str, arguments)]

    def run(self, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
        """The exit code, and the lines that were printed."""
        process = subprocess.run(self.command(*arguments), stdout=subprocess.PIPE, text=True, check=False)
        return process.returncode, [json.loads(line) for line in process.stdout.splitlines()]


def native_libraries(directory: Path) -> Path:
    """ONNX Runtime's, out of its archive in `directory`: a JVM would unpack them at each start, 28 MB, and leave them when it is killed."""
    libraries = directory / "native"
    libraries.mkdir(exist_ok=True)
    system = "osx" if sys.platform == "darwin" else "linux"
    place = f"/native/{system}-{'x64' if platform.machine() == 'x86_64' else 'aarch64'}/"
    (archive,) = (directory / "lib").glob("onnxruntime-*.jar")
    with zipfile.ZipFile(archive) as jar:
        for name in (name for name in jar.namelist() if place in name and name.endswith((".so", ".dylib"))):
            library = libraries / Path(name).name
            if not library.exists():
                with replace_atomically(library) as new:  # another process may do the same
                    new.write_bytes(jar.read(name))
    return libraries


def kotlin(directory: Path = JAR) -> Core:
    """android_demo/cli on the JVM, as Maven left it in `directory`."""

    @functools.cache
    def words() -> list[str]:
        jar = next(iter(sorted(directory.glob("cli-*.jar"))), None)
        if jar is None:
            raise SystemExit(f"{directory}: holds no cli-….jar; build it: mvn -f android_demo/pom.xml -pl cli -am -DskipTests package")
        native = f"-Donnxruntime.native.path={native_libraries(directory)}"
        return ["java", *JVM_FLAGS, native, "-cp", os.pathsep.join((str(jar), str(directory / "lib" / "*"))), "lcsbmobile.cli.MainKt"]

    return Core("kotlin", words, "train", 0.25)


def swift() -> Core:
    """ios_demo's lcsb-swift."""

    @functools.cache
    def words() -> list[str]:
        found = subprocess.run([ROOT / "scripts/ios/swift.sh", "command", "lcsb-swift"], stdout=subprocess.PIPE, text=True, check=True)
        program = found.stdout.split()
        if not Path(program[-1]).is_file():
            raise SystemExit(f"{program[-1]}: not there; build it: scripts/ios/swift.sh build")
        return program

    return Core("swift", words, "simulate", 0.02)


def web() -> Core:
    """web_demo's kit on Node, by WebAssembly."""

    def words() -> list[str]:
        program = ROOT / "web_demo/build/cli/main.js"
        if not program.is_file():
            raise SystemExit(f"{program}: not there; build it: scripts/web/kit.sh build")
        return ["node", str(program)]

    return Core("web", words, "train", 0.2, locks=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--core", choices=("kotlin", "swift", "web"), default="kotlin")
    parser.add_argument("--cli", type=Path, default=JAR, help="what Maven built of android_demo/cli, or a copy of it")


def chosen(arguments: argparse.Namespace) -> Core:
    if arguments.core == "kotlin":
        return kotlin(arguments.cli)
    return swift() if arguments.core == "swift" else web()
