"""The package as it is built: what is in it, what an index shows of it, and every verb far from the checkout."""

from __future__ import annotations

import email.message
import email.parser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.bundles import write_lines
from helpers.checkpoints import write_checkpoint

import lcsb_mobile
from lcsb_mobile.tiny import MESSAGES

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"lcsb_mobile": "lcsb_mobile", "export": "lcsb_mobile/export"}
# A test is among them, which setuptools would take into an sdist if it were not told otherwise.
FILES = ("pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "docs/index_page.md", "tests/test_api.py")
NO_PART = shutil.ignore_patterns("__pycache__", "*.pyc")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of a copy, since setuptools takes up what an earlier build left, and the wheel of that sdist."""
    directory = tmp_path_factory.mktemp("package")
    copy, out = directory / "copy", directory / "dist"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=NO_PART)
    for name in FILES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    out.mkdir()
    run(sys.executable, "-c", BUILD, "sdist", out, cwd=copy)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    run(sys.executable, "-c", BUILD, "wheel", out, cwd=directory / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel)


def run(*command: object, cwd: Path, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metadata(built: Built) -> email.message.Message:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_the_wheel_has_every_file_and_nothing_else(built: Built) -> None:
    """Also when a new folder stands in the checkout and not in pyproject.toml's list of packages."""
    with zipfile.ZipFile(built.wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"{inside}/{path.relative_to(ROOT / folder)}"
        for folder, inside in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert found == expected


def test_the_sdist_has_no_tests(built: Built) -> None:
    """They need the repository; the wheel above was built from it, so it has all that a build needs."""
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in names if name.startswith("tests")]
    assert {"pyproject.toml", "LICENSE", "docs/index_page.md", "lcsb_mobile/py.typed"} <= names


def test_what_an_index_shows(built: Built) -> None:
    found = metadata(built)
    assert found["Version"] == lcsb_mobile.__version__ and found["License-Expression"] == "Apache-2.0"
    assert found["Description-Content-Type"] == "text/markdown"
    page = str(found.get_payload())
    assert page.startswith("# lcsb_mobile\n")
    links = [link for pair in re.findall(r"\]\(([^)]*)\)|(?:src|href)=\"([^\"]*)\"", page) for link in pair if link]
    assert links and all(link.startswith("https://") for link in links), links


def test_the_version_stands_in_one_place() -> None:
    for name in ("pyproject.toml", "CITATION.cff", "lcsb_mobile/cli/__init__.py"):
        assert lcsb_mobile.__version__ not in (ROOT / name).read_text("utf-8"), name


@pytest.fixture(scope="module")
def environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh one with the wheel, and with what this one has besides; the package of the checkout is not on its path."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory)
    python = directory / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", built.wheel, cwd=directory)
    (site,) = directory.glob("lib/python*/site-packages")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "others.pth").write_text("\n".join(others), encoding="utf-8")  # afterwards, so that pip replaces nothing in there
    where = run(
        python, "-c", "import lcsb_mobile, lcsb_mobile.export; print(lcsb_mobile.__file__, lcsb_mobile.export.__file__)", cwd=directory
    )
    assert where.split() == [f"{site}/lcsb_mobile/__init__.py", f"{site}/lcsb_mobile/export/__init__.py"]
    return directory


def test_every_verb_of_the_wheel(environment: Path, tmp_path: Path) -> None:
    """In a locale without UTF-8, so that no file of the package is read as the locale has it and nothing that is printed ends a verb."""

    def lcsb(*arguments: object) -> str:
        poor = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        return run(environment / "bin" / "lcsb", *arguments, cwd=tmp_path, **poor)

    shutil.copy(MESSAGES, tmp_path / "messages.jsonl")
    assert "Example: lcsb quickstart" in lcsb("--help")
    assert lcsb("--version") == f"lcsb_mobile {lcsb_mobile.__version__}\n"
    # On tiny it would take a minute.
    sizes = {"hidden_size": 96, "intermediate_size": 96, "head_dim": 32, "num_hidden_layers": 4}
    write_checkpoint(tmp_path / "small", "llama", tied=True, **sizes)
    write_lines(tmp_path / "lines.jsonl", [{"text": text} for text in ("the one", "the two", "the three")])
    small = ("--model", "small", "--data", "lines.jsonl")
    assert "evaluation loss" in lcsb("quickstart", *small, "--output", "quick", "--steps", 2)
    assert "<html" in (tmp_path / "quick" / "report.html").read_text("utf-8")
    lcsb("export", "tiny", "--quantizer", "search", "--seq-len", 32, "--subsets", 2, "--output", "b")
    assert "Steps of the cycle" in lcsb("inspect", "b", "--calibrate")
    assert "verified" in lcsb("verify", "b")
    assert "tokens" in lcsb("data", "messages.jsonl", "--bundle", "b")
    assert "evaluation loss" in lcsb("simulate", "b", "--data", "messages.jsonl", "--steps", 4)
    assert lcsb("generate", "b", "--adapter", "b-adapter.safetensors", "--prompt", "ok so ", "--max-tokens", 4).startswith("ok so ")
    assert "A step" in lcsb("bench", "b", "--methods", "full", "--subsets", 2)
    assert "matrices" in lcsb("adapter", "export", "b-adapter.safetensors", "--bundle", "b", "--output", "peft")
    assert "matrices" in lcsb("adapter", "import", "peft", "--bundle", "b", "--output", "back.safetensors")
    assert "merged" in lcsb("adapter", "merge", "back.safetensors", "--bundle", "b", "--model", "tiny", "--output", "merged")
    assert "Example: lcsb android push" in lcsb("android", "push", "--help")


def test_the_wheel_says_how_to_install_more(environment: Path, built: Built, tmp_path: Path) -> None:
    """pip takes the line; a name that is on no index would end here."""
    program = "from lcsb_mobile.installing import pip_install, requirement; print(pip_install(*requirement('export')))"
    line = run(environment / "bin" / "python", "-c", program, cwd=tmp_path).strip()
    assert f"'{built.wheel}[export]'" in line and line.startswith(f"{environment}/bin/python -m pip install")
    assert "lcsb_mobile" in run("sh", "-c", f"{line} --dry-run --no-deps --no-index --force-reinstall", cwd=tmp_path)
