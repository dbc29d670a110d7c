"""The parts of `make test`, in the order in which they run: what each runs, and what it needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]  # where the commands run
PYTHON, TRAINING_PYTHON, DEVICE_PYTHON = (f".venv{runtime}/bin/python" for runtime in ("", "-onnxruntime-training", "-onnxruntime"))
ENVIRONMENT = "scripts/testing/environment.sh"
BUNDLES = "build/device-bundles"
PARITY_BUNDLES = [f"{BUNDLES}/{name}" for name in ("llama", "qwen2", "qwen3", "gemma3", "lfm2", "qwen3_5")]
# Together they have every operator that any bundle has. The later processors differ in products of matrices, of int8 too, and in functions.
ARM64_BUNDLES = [f"{BUNDLES}/{name}" for name in ("llama", "llama-20-steps", "gemma2", "lfm2", "qwen3_5", "tiny-int8-activations")]
ARM64_CPUS = ("--cpu", "cortex-a76", "--cpu", "cortex-a710:llama,gemma2,tiny-int8-activations", "--cpu", "max:llama")
TEST_BUNDLES = f"-Dtest.bundles={ROOT / BUNDLES}"
REPORTS = "build/test-reports"
ARTIFACTS = "Maven's directory of artifacts, which has no locks"
DATA = "lcsb_mobile/tiny/messages_eval.jsonl"
# What may be missing on a Mac: an emulator of Linux', Debian's aapt2 (unless the Android SDK's is on the PATH) and what needs it,
# mounts of small disks; Core AI's packages, before macOS 26; a Chrome.
ANDROID = ("android-core", "android-app", "parity", "kills", "minified", "ios-parity")
MAC_MAY_SKIP = ("arm64", "coreai-packages", "coreai", *ANDROID, "web-page", "skipped-tests")
MODELS = os.environ.get("LCSB_MODELS", "models")  # as the tests read it
OF_NO_OTHER_PART = "not model and not training_api and not coreai"
# Of each package that has a lower bound, the tests in which it does the most; of the device's, whole runs on some of the bundles and every
# verb, its pictures and pages with it.
LOWEST_DEVICE_TESTS = ("tests_device", "-k", "tiny or gemma3 or qwen3_5 or test_as_on_a_mac")
COMMAND_LINE = tuple(f"tests/cli/test_cli.py::{name}" for name in ("test_the_whole_way", "test_json", "test_help_has_an_example"))
LOWEST_TESTS = (*COMMAND_LINE, "tests/export/checkpoints", "tests/export/onnx/test_lowering.py", "tests/report")
LANES = 2  # parts at a time, of those that may run beside others
# A part that runs beside others has its share of the cores; "0": pytest's own process, so that what tests import is imported once.
SHARE = (os.cpu_count() or 1) // LANES
PROCESSES = str(SHARE) if SHARE > 1 else "0"
# A file's tests share what they export; the files in the order that tests/conftest.py gives them.
PARALLEL = ("--dist", "loadfile", "--no-loadscope-reorder")


@dataclass(frozen=True)
class Command:
    """`can_be_unavailable`: its exit code 3 says that something is not to be had; of any other command (pytest: an internal error) it is a
    failure like others. `sets_up`: it fetches and installs, and tests nothing."""

    arguments: tuple[str, ...]
    can_be_unavailable: bool = False
    sets_up: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """`counted`: how its tests are counted: in the JUnit files of the pattern `reports`, by the plain closing line that it prints, or each
    command as one; a preparation has none. `along_with`: the part whose commands run this one's tests too. `suite`: parts of one suite run
    the same tests, each in another environment, so that one may skip what another runs. `only_by_name`: not of a run of all parts.
    `beside`: it does not use all cores, so that it may run beside another such part. `waits`: it mostly waits for the network, so that
    it may run beside any other that does not. `writes`: what no two parts may write to at a time."""

    name: str
    commands: tuple[Command, ...] = ()
    needs: tuple[str, ...] = ()
    counted: Literal["reports", "closing line", "commands", "not"] = "not"
    reports: str = ""
    along_with: str = ""
    suite: str = ""
    only_by_name: bool = False
    beside: bool = False
    waits: bool = False
    writes: str = ""


def command(*arguments: str, can_be_unavailable: bool = False) -> Command:
    return Command(arguments, can_be_unavailable)


def set_up(*arguments: str) -> Command:
    return Command(arguments, can_be_unavailable=True, sets_up=True)


def pytest(
    name: str,
    python: str,
    *arguments: str,
    needs: tuple[str, ...],
    suite: str = "",
    first: tuple[Command, ...] = (),
    only_by_name: bool = False,
    beside: bool = True,
) -> Part:
    """Skips are told with their reasons at the end of the table."""
    report = f"{REPORTS}/{name}.xml"
    processes = ("-n", PROCESSES if beside else "auto")
    words = (python, "-m", "pytest", *processes, *PARALLEL, f"--junitxml={report}", *arguments)
    # One thread each, of the programs that tests start too: the cores are shared already.
    run = Command(words, environment={"LCSB_TEST_BUNDLES": BUNDLES, "OMP_NUM_THREADS": "1"})
    return Part(name, (*first, run), needs, "reports", report, suite=suite, only_by_name=only_by_name, beside=beside)


def in_a_browser(name: str, mode: str, *, only_by_name: bool = False) -> Part:
    """The page that `web-kit` built. `mode`: of kit.sh."""
    tests = Command(("scripts/web/kit.sh", mode), can_be_unavailable=True, environment={"LCSB_TEST_BUNDLES": str(ROOT / BUNDLES)})
    commands, needs = (set_up("scripts/web/chromium.sh"), tests), ("device-bundles", "web-kit")
    return Part(name, commands, needs, "closing line", beside=True, only_by_name=only_by_name)


def marked(mark: str) -> tuple[str, ...]:
    """Selects the tests of a mark, and names the files in which it stands: to collect all others takes each process 9 seconds."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if f"mark.{mark}" in path.read_text("utf-8")]
    return "-m", mark, *(str(path.relative_to(ROOT)) for path in files)


def other_python(version: str) -> Part:
    """The device half on another Python, if one is here."""
    directory = f".venv-python{version}"
    install = set_up(ENVIRONMENT, "--any-of", version, directory, "device-test")
    python, needs = f"{directory}/bin/python", ("device-bundles",)
    return pytest(f"python-{version}", python, "tests_device", needs=needs, suite="tests_device", first=(install,), only_by_name=True)


PARTS = (
    Part("packages", (set_up(ENVIRONMENT, ".venv", "dev"),)),
    Part(
        "checks",
        (
            command(".venv/bin/ruff", "check", "."),
            command(".venv/bin/ruff", "format", "--check", "."),
            command("scripts/testing/mypy.sh"),
        ),
        needs=("packages",),
        counted="commands",
    ),
    pytest("python", PYTHON, "-m", OF_NO_OTHER_PART, needs=("packages",), beside=False),
    Part("device-packages", (set_up(ENVIRONMENT, ".venv-onnxruntime", "device-test"),), waits=True),
    Part(
        "training-packages",
        (set_up(ENVIRONMENT, "--over", ".venv", ".venv-onnxruntime-training", "onnxruntime-training"),),
        needs=("packages",),
        waits=True,
    ),
    Part(
        "coreai-packages",
        (set_up(ENVIRONMENT, "--over", ".venv", ".venv-coreai", "coreai"),),
        needs=("packages",),
        waits=True,
    ),
    # Other systems and Pythons have wheels of all that the package asks for.
    Part(
        "wheels",
        (command(PYTHON, "scripts/testing/resolve.py", can_be_unavailable=True),),
        needs=("packages",),
        counted="closing line",
        waits=True,
    ),
    # From here on they run two at a time: what others need and the longest first, so that neither lane is empty at the end.
    # Written anew each time, so that what is tested is what this source exports.
    Part(
        "device-bundles",
        (
            command("rm", "-rf", BUNDLES),
            command(PYTHON, "scripts/testing/export_test_bundles.py", BUNDLES),
            command(PYTHON, "scripts/golden/write_runtime_vectors.py", BUNDLES),
        ),
        needs=("packages",),
        beside=True,
    ),
    # While the bundles are exported: it needs none of them, and Maven not beside another Maven.
    Part(
        "gradle-names",
        (command("bash", "android_demo/gradle-check/check.sh", can_be_unavailable=True),),
        counted="closing line",
        beside=True,
        writes=ARTIFACTS,
    ),
    # One run of Maven. When a module fails, it goes on with those that do not need it.
    Part(
        "android-core",
        (command("scripts/android/maven.sh", "clean", "package", "--fail-at-end", TEST_BUNDLES, can_be_unavailable=True),),
        needs=("device-bundles",),
        counted="reports",
        reports="android_demo/core/target/surefire-reports/TEST-*.xml",
        beside=True,
        writes=ARTIFACTS,
    ),
    Part(
        "android-app",
        needs=("device-bundles",),
        counted="reports",
        reports="android_demo/app/target/surefire-reports/TEST-*.xml",
        along_with="android-core",
    ),
    Part(
        "ios-core",
        (
            set_up("scripts/ios/swift.sh", "prepare"),
            Command(("scripts/ios/swift.sh", "test"), can_be_unavailable=True, environment={"LCSB_TEST_BUNDLES": str(ROOT / BUNDLES)}),
        ),
        needs=("device-bundles",),
        counted="closing line",
        beside=True,
    ),
    pytest("coreai", ".venv-coreai/bin/python", *marked("coreai"), needs=("coreai-packages",)),
    pytest("training-api", TRAINING_PYTHON, *marked("training_api"), needs=("training-packages",)),
    pytest(
        "lowest-export",
        ".venv-lowest-export/bin/python",
        *("-m", OF_NO_OTHER_PART, *LOWEST_TESTS),
        needs=("packages",),
        suite="python",
        first=(set_up(ENVIRONMENT, "--over", ".venv", "--lowest", ".venv-lowest-export", "dev"),),
    ),
    # The device half on the newest ONNX Runtime, without torch.
    pytest("device-environment", DEVICE_PYTHON, "tests_device", needs=("device-packages", "device-bundles"), suite="tests_device"),
    # The golden traces on a phone's instruction set, emulated.
    Part(
        "arm64",
        (command(DEVICE_PYTHON, "scripts/testing/verify_arm64.py", *ARM64_BUNDLES, *ARM64_CPUS, can_be_unavailable=True),),
        needs=("device-packages", "device-bundles"),
        counted="closing line",
        beside=True,
    ),
    # The kit of the page, on Node, and the page's own parts that need no browser; then the page in one.
    Part(
        "web-kit",
        (
            set_up("scripts/web/kit.sh", "packages"),
            Command(("scripts/web/kit.sh", "test"), can_be_unavailable=True, environment={"LCSB_TEST_BUNDLES": str(ROOT / BUNDLES)}),
        ),
        needs=("device-bundles",),
        counted="closing line",
        beside=True,
    ),
    in_a_browser("web-page", "test-page"),
    # Whole runs of the page on a GPU that the processor plays, which takes minutes.
    in_a_browser("web-gpu", "test-gpu", only_by_name=True),
    Part(
        "minified",
        (command(PYTHON, "scripts/android/minified.py", f"{BUNDLES}/tiny", "--data", DATA, can_be_unavailable=True),),
        needs=("packages", "device-bundles", "android-core"),
        counted="closing line",
        beside=True,
        writes=ARTIFACTS,
    ),
    Part(
        "parity",
        (command(DEVICE_PYTHON, "scripts/cores/parity.py", *PARITY_BUNDLES, "--data", DATA, can_be_unavailable=True),),
        needs=("device-packages", "device-bundles", "android-core"),
        counted="closing line",
        beside=True,
    ),
    Part(
        "kills",
        (command(DEVICE_PYTHON, "scripts/cores/kill_test.py", f"{BUNDLES}/llama", "--data", DATA, "--kills", "50"),),
        needs=("device-packages", "device-bundles", "android-core"),
        counted="closing line",
        beside=True,
    ),
    pytest(
        "real-model",
        PYTHON,
        *marked("model"),
        needs=("packages",),
        first=(set_up(PYTHON, "scripts/models/fetch_models.py", "model", MODELS),),
    ),
    # The lowest versions that pyproject.toml allows: the device half on the lowest Python that is here; both halves on this one.
    pytest(
        "lowest-device",
        ".venv-lowest-device/bin/python",
        *LOWEST_DEVICE_TESTS,
        needs=("packages", "device-bundles"),
        suite="tests_device",
        first=(set_up(ENVIRONMENT, "--any-of", "3.10,3.11,3.12,3.13,3.14", "--lowest", ".venv-lowest-device", "device-test"),),
    ),
    Part(
        "ios-parity",
        (command(DEVICE_PYTHON, "scripts/cores/parity.py", *PARITY_BUNDLES, "--core", "swift", "--with-kotlin", "--data", DATA),),
        needs=("device-packages", "device-bundles", "android-core", "ios-core"),
        counted="closing line",
        beside=True,
    ),
    Part(
        "ios-kills",
        (command(DEVICE_PYTHON, "scripts/cores/kill_test.py", f"{BUNDLES}/llama", "--core", "swift", "--data", DATA, "--kills", "50"),),
        needs=("device-packages", "device-bundles", "ios-core"),
        counted="closing line",
        beside=True,
    ),
    *map(other_python, ("3.10", "3.11", "3.12", "3.13", "3.14")),
)
