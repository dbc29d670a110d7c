"""The data flows one way, and the folder is the half. Practice 12 of the style, law of DESIGN.md's "Data flow"."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import draw_modules
import pytest
from draw_modules import FLOW, MAIN, folder, folder_imports, imported_modules, imports, modules

FORBIDDEN = {"torch", "transformers", "onnx", "onnx_ir", "networkx", "peft", "gguf"}  # the export half's
# Extras, imported inside a runner or an exporter.
RUNTIMES = {"onnxruntime", "onnxruntime_ep_webgpu", "executorch", "coreai", "coremltools"}
WITH_TORCH = {"lcsb_mobile.runners.executorch"}  # its runtime imports torch by itself and takes torch's tensors, within a function
DEVICE_HALF = sorted(name for name in modules() if not folder(name).startswith("export"))


def packages(path: Path, lazy: bool = True) -> set[str]:
    """Top-level names of what a file imports."""
    return {name.split(".")[0] for name in imports(path, lazy)}


def of_export_half(path: Path, lazy: bool = True) -> set[str]:
    return {name for name in imported_modules(path, lazy) if folder(name).startswith("export")}


@pytest.mark.parametrize("module", DEVICE_HALF)
def test_nothing_in_lcsb_mobile_needs_torch(module: str) -> None:
    assert not packages(modules()[module], lazy=module not in WITH_TORCH) & FORBIDDEN


@pytest.mark.parametrize("module", DEVICE_HALF)
def test_nothing_in_lcsb_mobile_imports_the_export_half(module: str) -> None:
    """But for the verbs of the command line, within the function that runs them. Else a module is named as text, in `targets`, or for
    the Python API."""
    assert not of_export_half(modules()[module], lazy=folder(module) != "cli")


def test_device_half_imports_without_torch() -> None:
    """In a fresh interpreter in which those packages cannot be imported."""
    program = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
try:
    import torch
except ImportError:
    pass
else:
    sys.exit("torch was imported")
for module in {DEVICE_HALF}:
    importlib.import_module(module)
assert not {FORBIDDEN} & set(sys.modules)
assert not {RUNTIMES} & set(sys.modules)  # runtimes are imported when a runner is made
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_folder_imports_back_up_the_flow() -> None:
    backward = [each for pair, each in folder_imports().items() if FLOW.index(pair[1]) > FLOW.index(pair[0])]
    assert not backward


def test_the_flow_names_every_folder() -> None:
    assert {folder(name) for name in modules()} == set(FLOW)


def test_nobody_imports_the_command_line() -> None:
    for name, path in modules().items():
        if folder(name) not in ("cli", MAIN):
            assert not {found for found in imported_modules(path) if folder(found) == "cli"}, name


def test_nobody_imports_tests_or_runtimes_at_the_top() -> None:
    for name, path in modules().items():
        assert not packages(path, lazy=False) & {"tests", "helpers", *RUNTIMES}, name


def test_imports_have_no_cycle() -> None:
    """A file imports only what stands before it in the data flow, within its folder too."""
    graph = {name: imported_modules(path) - {name} for name, path in modules().items()}
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph


def test_the_picture_of_the_modules_is_current() -> None:
    text = draw_modules.PAGE.read_text("utf-8")
    assert text == draw_modules.current_page(text), "run: python scripts/docs/draw_modules.py"
