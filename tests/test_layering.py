"""The data flows one way: what each half of the package may import. Practice 12 of the style, law of DESIGN.md's "Data flow"."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lcsb_mobile

PACKAGE = Path(lcsb_mobile.__file__).parent
EXPORT = PACKAGE.parent / "export"

# The export half (checkpoint -> bundle) needs torch. Every other module is the device half (bundle -> adapter): numpy,
# safetensors, tokenizers and one runtime, as on a phone. So a new module is held to that unless it is named here.
EXPORT_HALF = (
    "bench.torch_peer",
    "blocks",
    "calibrate_weights",
    "captured",
    "checkpoint",
    "compress",
    "export",
    "float_model",
    "gguf",
    "gptq",
    "head",
    "kept",
    "merge",
    "tiles",
    "models",
    "quantization",
    "reference",
    "runners.eager",
)

FORBIDDEN = {"torch", "transformers", "onnx", "onnx_ir", "networkx", "peft", "gguf"}


def modules() -> dict[str, Path]:
    """Every module of the package by its full name; the exporters are `lcsb_mobile.export.…`."""
    found = {}
    for root, prefix in ((PACKAGE, "lcsb_mobile"), (EXPORT, "lcsb_mobile.export")):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join((prefix, *parts)).removesuffix(".__init__")] = path
    return found


def imports(path: Path, lazy: bool = True) -> Iterator[str]:
    """Full names of what a file imports, with `lazy` within functions too; `from a import b` gives `a.b`. Imports for type
    checkers alone are left out."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (lazy or not isinstance(node, ast.FunctionDef)) and not is_type_checking(node):
            pending.extend(ast.iter_child_nodes(node))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported_modules(path: Path, lazy: bool = True) -> set[str]:
    """Those of this package: of `from a import b` the module `a.b` if there is one, else `a`."""
    known = modules()
    return {name if name in known else name.rpartition(".")[0] for name in imports(path, lazy) if name.startswith("lcsb_mobile")}


def packages(path: Path, lazy: bool = True) -> set[str]:
    """Top-level names of what a file imports."""
    return {name.split(".")[0] for name in imports(path, lazy)}


def closure(module: str) -> set[str]:
    """The package's modules that importing `module` runs, itself and packages included."""
    known, found, pending = modules(), set(), [module]
    while pending:
        name = pending.pop()
        if name in known and name not in found:
            found.add(name)
            pending += [*imported_modules(known[name], lazy=False), name.rpartition(".")[0]]
    return found


def device_half() -> list[str]:
    """Names below `lcsb_mobile.`; the command line's export verb imports its half when it runs."""
    names = sorted(name.removeprefix("lcsb_mobile.") for name in modules() if name != "lcsb_mobile")
    return [name for name in names if not f"{name}.".startswith(tuple(f"{half}." for half in EXPORT_HALF))]


@pytest.mark.parametrize("module", device_half())
def test_device_half_imports_nothing_of_the_export_half(module: str) -> None:
    """Itself neither at the top nor lazily; and nothing that it imports at the top does so there."""
    assert not packages(modules()[f"lcsb_mobile.{module}"]) & FORBIDDEN
    for name in closure(f"lcsb_mobile.{module}"):
        assert not packages(modules()[name], lazy=False) & FORBIDDEN, f"{module} imports {name}"


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
for module in {device_half()}:
    importlib.import_module("lcsb_mobile." + module)
assert not {FORBIDDEN} & set(sys.modules)
assert "onnxruntime" not in sys.modules  # runtimes are imported when a runner is made
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_core_does_not_import_exporters() -> None:
    """The command line alone does, to offer them."""
    for name, path in modules().items():
        if not name.startswith(("lcsb_mobile.export", "lcsb_mobile.cli")):
            assert not {found for found in imports(path) if f"{found}.".startswith("lcsb_mobile.export.")}, name


def test_nobody_imports_the_command_line() -> None:
    for name, path in modules().items():
        if not name.startswith("lcsb_mobile.cli"):
            assert not {found for found in imports(path) if f"{found}.".startswith("lcsb_mobile.cli.")}, name


def test_nobody_imports_tests_or_runtimes_at_the_top() -> None:
    """Each runtime is an extra, imported inside its exporter or runner."""
    for name, path in modules().items():
        assert not packages(path, lazy=False) & {"tests", "helpers", "onnxruntime", "executorch", "coremltools"}, name


def test_imports_have_no_cycle() -> None:
    """A file imports only what stands before it in the data flow."""
    graph = {name: imported_modules(path) - {name} for name, path in modules().items()}
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph


def test_every_name_of_the_export_half_is_a_module() -> None:
    assert not [name for name in EXPORT_HALF if f"lcsb_mobile.{name}" not in modules() and name != "export"]
    assert {"simulate", "trainer", "bundle", "runners.onnxruntime", "runners.onnxruntime_training"} <= set(device_half())
