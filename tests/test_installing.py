"""The lines that say how to install what is missing: each works where it is printed."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lcsb_mobile import installing
from lcsb_mobile.installing import apple_tools_exist, how_to_install, pip_install, requirement, training_runtime_exists

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")  # what is installed may be of another day
TRAINING = "onnxruntime-training"
ONLY_THE_FUNCTION = "pip" + " install"
MACHINES = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64")]
SHELLS = [shell for shell in ("sh", "bash", "zsh") if shutil.which(shell)]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The distributions of this environment, as the test wants them."""
    names: set[str] = set()
    monkeypatch.setattr(installing, "_is_installed", names.__contains__)
    monkeypatch.setattr(installing, "training_runtime_exists", lambda: True)
    return names


@pytest.fixture
def without_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(installing, "SOURCE", tmp_path)
    return tmp_path


def test_from_a_clone_into_this_environment(installed: set[str]) -> None:
    assert how_to_install("export") == f"install what is missing with: {sys.executable} -m pip install -e '{ROOT}[export]'"
    assert pip_install("peft", "torch") == f"{sys.executable} -m pip install peft torch"


@pytest.mark.parametrize("extra", ["export", "gguf", "onnxruntime", "coreai", "coreml", TRAINING])
def test_every_extra_that_is_named_is_one(extra: str) -> None:
    assert f"\n{extra} = [" in PROJECT.partition("[project.optional-dependencies]")[2]


@pytest.mark.parametrize("shell", SHELLS)
def test_pip_takes_the_line_from_a_shell(installed: set[str], shell: str) -> None:
    """Brackets are a pattern to zsh, and a path may have a space."""
    line = how_to_install("export").partition(": ")[2]
    done = subprocess.run(
        [shell, "-c", f"{line} --dry-run --no-deps --no-build-isolation --no-index"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Would install lcsb_mobile" in done.stdout, done.stderr


@pytest.mark.parametrize(("extra", "other"), [(TRAINING, "onnxruntime"), ("onnxruntime", "onnxruntime-training-cpu")])
def test_runtimes_do_not_stand_beside_each_other(installed: set[str], extra: str, other: str) -> None:
    assert how_to_install(extra).startswith("install what is missing with: ")
    installed.add(other)
    advice = how_to_install(extra)
    assert advice.startswith(f"{other} is installed here") and "make a second environment: " in advice
    command = shlex.split(advice.partition("environment: ")[2])
    assert command == ["make", "-C", str(ROOT), f".venv-{extra}/.installed"]
    subprocess.run([*command, "--dry-run"], check=True, capture_output=True)  # there is such a goal
    assert how_to_install("export").startswith("install what is missing with: ")  # brings no runtime


def test_a_runtime_that_cannot_be_had(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "training_runtime_exists", lambda: False)
    advice = how_to_install(TRAINING)
    assert "cannot be had here; use target onnxruntime" in advice and ONLY_THE_FUNCTION not in advice
    assert ONLY_THE_FUNCTION in how_to_install("onnxruntime")


def test_gguf_on_an_old_python(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    markers = {Requirement(text).marker for text in re.findall(r'"((?:transformers>=5.23|gguf>=|sentencepiece>=)[^"]*)"', PROJECT)}
    assert {str(marker) for marker in markers} == {'python_version >= "3.11"'}
    assert ONLY_THE_FUNCTION in how_to_install("gguf")
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert how_to_install("gguf").startswith("GGUF files are read with Python 3.11 or newer") and ONLY_THE_FUNCTION not in how_to_install(
        "gguf"
    )


@pytest.mark.parametrize(
    ("distribution", "exists"),
    [
        ("onnxruntime-training-cpu", training_runtime_exists),
        ("coreai-core", functools.partial(apple_tools_exist, "coreai")),
        ("coremltools", functools.partial(apple_tools_exist, "coreml")),
    ],
)
def test_where_it_can_be_had_is_what_the_extra_says(distribution: str, exists: Callable[..., bool]) -> None:
    text = re.findall(rf'"({distribution}==[^"]*)"', PROJECT)[0]
    marker = Requirement(text).marker
    assert marker is not None
    for minor, (system, machine) in product(range(10, 16), MACHINES):
        environment = {"python_version": f"3.{minor}", "sys_platform": system, "platform_machine": machine}
        assert marker.evaluate(environment) == exists((3, minor), system, machine), environment


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({}, "lcsb_mobile[gguf]"),
        ({"url": "file:///my%20code/lcsb", "dir_info": {}}, "/my code/lcsb[gguf]"),
        ({"url": "file:///dist/lcsb_mobile-0.1.0-py3-none-any.whl", "archive_info": {}}, "/dist/lcsb_mobile-0.1.0-py3-none-any.whl[gguf]"),
        ({"url": "https://host/lcsb.tar.gz", "archive_info": {}}, "lcsb_mobile[gguf] @ https://host/lcsb.tar.gz"),
        ({"url": "https://host/lcsb", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "lcsb_mobile[gguf] @ git+https://host/lcsb@abc"),
        ({"url": "file:///lcsb", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "lcsb_mobile[gguf] @ git+file:///lcsb@abc"),
    ],
)
def test_without_a_clone_it_is_what_it_was_installed_from(
    without_clone: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object], expected: str
) -> None:
    monkeypatch.setattr(installing, "_origin", lambda: origin)
    assert requirement("gguf") == (expected,)
    assert shlex.split(pip_install(*requirement("gguf")))[-1] == expected


def test_the_second_environment_of_no_clone_is_where_one_is(without_clone: Path, installed: set[str]) -> None:
    installed.add("onnxruntime")
    assert f"{sys.executable} -m venv .venv-{TRAINING} && .venv-{TRAINING}/bin/python -m pip" in how_to_install(TRAINING)


def test_no_other_line_of_the_package_says_how_to_install() -> None:
    for path in (*ROOT.glob("lcsb_mobile/**/*.py"), *ROOT.glob("export/**/*.py")):
        assert path.name == "installing.py" or ONLY_THE_FUNCTION not in path.read_text("utf-8"), path


def test_nobody_installs_the_package_by_a_name_that_no_index_has() -> None:
    by_name = re.compile(rf"{ONLY_THE_FUNCTION} [^\n]*['\" ]lcsb_mobile\b")
    pages = (
        path for pattern in ("*.md", "docs/**/*.md", "scripts/**/*", "tests/**/*.py", "benchmarks/*.py") for path in ROOT.glob(pattern)
    )
    assert not [str(path) for path in pages if path.is_file() and path != Path(__file__) and by_name.search(path.read_text("utf-8"))]


@pytest.mark.parametrize("extra", installing.APPLE)
def test_apples_tools_that_cannot_be_had(installed: set[str], monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    assert ONLY_THE_FUNCTION in how_to_install(extra)
    monkeypatch.setattr(installing, "apple_tools_exist", lambda extra: False)
    assert "it cannot be had here" in how_to_install(extra) and ONLY_THE_FUNCTION not in how_to_install(extra)
