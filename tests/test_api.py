"""The Python API: its names, what asking for one imports, and the first page's example."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lcsb_mobile
from lcsb_mobile.tiny import MESSAGES

ROOT = Path(__file__).parents[1]
NEED_TORCH = {"export_bundle", "merge"}


def test_every_name_is_there() -> None:
    assert set(lcsb_mobile.__all__) == {*lcsb_mobile._HOMES, "__version__"} == set(dir(lcsb_mobile))
    for name in lcsb_mobile.__all__:
        assert getattr(lcsb_mobile, name) is not None


def test_types_are_of_the_same_names() -> None:
    """What a type checker reads is what is imported."""
    tree = ast.parse(Path(lcsb_mobile.__file__).read_text("utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {name: f"lcsb_mobile.{home}" for name, home in lcsb_mobile._HOMES.items()}


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'lcsb_mobile' has no attribute 'train'"):
        _ = lcsb_mobile.train  # type: ignore[attr-defined]


def test_the_device_half_stays_without_torch() -> None:
    names = sorted({*lcsb_mobile.__all__} - NEED_TORCH)
    program = f"""
import sys
import lcsb_mobile
assert "numpy" not in sys.modules
for name in {names}:
    getattr(lcsb_mobile, name)
found = [name for name in sys.modules if name in ("torch", "onnxruntime") or name.startswith("lcsb_mobile.export")]
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_first_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len(example.splitlines()) <= 10
    shutil.copy(MESSAGES, tmp_path / "messages.jsonl")
    monkeypatch.chdir(tmp_path)
    # The maintained runtime and that of the training API share a name; this environment has the latter, which runs block programs too.
    exec(compile(example, "README.md", "exec"), {})
    before, after = (float(figure) for figure in capsys.readouterr().out.splitlines()[0].split(" -> "))
    assert after < before
    assert (tmp_path / "my-peft" / "adapter_model.safetensors").is_file()
