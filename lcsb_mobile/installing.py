"""How to install what is missing: one line that works where it is printed.

The package is on no index, so an extra is installed from wherever the package itself came from. `onnxruntime` and
`onnxruntime-training-cpu` install the same module, and the later one overwrites the other, so no line puts one beside the other.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lcsb_mobile.errors import MissingDependencyError

NAME = "lcsb_mobile"
SOURCE = Path(__file__).resolve().parents[1]  # the clone, unless the package was copied into site-packages
GGUF_PYTHON = (3, 11)  # from it on there is transformers 5.23, which the tests compare with
APPLE = {  # extra -> where there are wheels of what it brings
    "coreai": "Linux x86-64 with glibc 2.34 and macOS 26 on Apple silicon, with Python 3.11 to 3.14,",
    "coreml": "Linux x86-64 and macOS, with Python up to 3.13,",
}
# Extra -> the distribution of its runtime. All of them install the module `onnxruntime`.
RUNTIMES = {"onnxruntime": "onnxruntime", "onnxruntime-training": "onnxruntime-training-cpu"}


def check_can_draw(what: str) -> None:
    """Raises MissingDependencyError: before what takes time, as it is imported after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise cannot_draw(what)


def cannot_draw(what: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what} needs matplotlib; install it with: {pip_install('matplotlib')}")


def how_to_install(extra: str) -> str:
    """What to do about something missing that an extra brings, as the end of a message."""
    if extra == "onnxruntime-training" and not training_runtime_exists():
        return "it exists for Linux x86-64 and macOS with Python up to 3.12 alone, so it cannot be had here; use target onnxruntime"
    if extra in APPLE and not apple_tools_exist(extra):
        return f"it has wheels for {APPLE[extra]} alone, so it cannot be had here; use such a machine, or target onnxruntime"
    if extra == "gguf" and sys.version_info < GGUF_PYTHON:
        return "GGUF files are read with Python 3.11 or newer; use one, or the model as a Hugging Face directory"
    others = [
        distribution for name, distribution in RUNTIMES.items() if extra in RUNTIMES and name != extra and _is_installed(distribution)
    ]
    if others:
        environment = f".venv-{extra}"
        if _is_clone():  # make knows which packages the two can share
            made = shlex.join(["make", "-C", str(SOURCE), f"{environment}/.installed"])
        else:
            made = shlex.join([_interpreter(), "-m", "venv", environment])
            made += f" && {pip_install(*requirement(extra), interpreter=f'{environment}/bin/python')}"
        return f"{others[0]} is installed here, and each would overwrite the other; make a second environment: {made}"
    return f"install what is missing with: {pip_install(*requirement(extra))}"


def pip_install(*requirements: str, interpreter: str | None = None) -> str:
    """A command line for a shell: into this interpreter's environment, whichever is active, or into another's."""
    return shlex.join([interpreter or _interpreter(), "-m", "pip", "install", *requirements])


def requirement(extra: str) -> tuple[str, ...]:
    """pip's arguments for this package with an extra: the clone, or what it was installed from."""
    if _is_clone():
        return ("-e", f"{SOURCE}[{extra}]")
    origin = _origin()
    if "url" not in origin:  # it was found by its name, so it is found again
        return (f"{NAME}[{extra}]",)
    url = str(origin["url"])
    if urlsplit(url).scheme == "file" and "vcs_info" not in origin:
        return (f"{unquote(urlsplit(url).path)}[{extra}]",)
    vcs = origin.get("vcs_info", {})
    return (f"{NAME}[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else f"{NAME}[{extra}] @ {url}",)


def training_runtime_exists(
    version: Sequence[int] = sys.version_info[:2], system: str = sys.platform, machine: str = platform.machine()
) -> bool:
    """Whether onnxruntime-training-cpu has wheels there, as the marker of the extra in pyproject.toml says."""
    return tuple(version) < (3, 13) and (machine == "x86_64" or system == "darwin")


def apple_tools_exist(
    extra: str, version: Sequence[int] = sys.version_info[:2], system: str = sys.platform, machine: str = platform.machine()
) -> bool:
    """Whether what the extra brings has wheels there, as its marker in pyproject.toml says. Versions of macOS and glibc are no markers."""
    if extra == "coreml":
        return tuple(version) < (3, 14) and (machine == "x86_64" or system == "darwin")
    return tuple(version) >= (3, 11) and (system, machine) in (("linux", "x86_64"), ("darwin", "arm64"))


def clone_folder() -> Path | None:
    """The clone that the package runs from, if it does."""
    return SOURCE if _is_clone() else None


def _is_clone() -> bool:
    return (SOURCE / "pyproject.toml").is_file()


def _interpreter() -> str:
    return sys.executable or "python3"


def _is_installed(distribution: str) -> bool:
    from importlib import metadata  # as below: a tenth of a second's imports, which only a message needs

    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


def _origin() -> dict[str, dict[str, str]]:
    """PEP 610's direct_url.json, which pip writes beside what it did not find by its name; else nothing."""
    from importlib import metadata

    try:
        text = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, dict[str, str]] = json.loads(text) if text else {}
    return found
