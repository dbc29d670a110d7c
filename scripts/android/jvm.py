"""How the scripts beside this one start the Android core on the JVM: `android_demo/cli`, as `mvn package` built it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

CLI = Path(__file__).resolve().parents[2] / "android_demo" / "cli" / "target"
# A short run never earns what the optimizing compiler costs; one thread collects, so that kills find the process in few states of its own.
FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")


def command(*arguments: object, cli: Path = CLI) -> list[str]:
    """Exits with what to do when the core was not built."""
    jar = next(iter(sorted(cli.glob("cli-*.jar"))), None)
    if jar is None:
        raise SystemExit(f"{cli}: holds no cli-….jar; build it: mvn -f android_demo/pom.xml -pl cli -am -DskipTests package")
    return ["java", *FLAGS, "-cp", os.pathsep.join((str(jar), str(cli / "lib" / "*"))), "lcsbmobile.cli.MainKt", *map(str, arguments)]


def run(*arguments: object, cli: Path = CLI) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the lines that were printed."""
    process = subprocess.run(command(*arguments, cli=cli), stdout=subprocess.PIPE, text=True, check=False)
    return process.returncode, [json.loads(line) for line in process.stdout.splitlines()]
