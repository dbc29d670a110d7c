"""Draws which folders of the package import which, from the imports themselves, into docs/architecture.md: `draw_modules.py [--check]`.

The drawing is a Mermaid flowchart between two marks. FLOW is the order of the data flow: tests/test_layering.py holds the imports to
it. `--check` writes nothing and ends with 1 where the page is not current.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, EXPORT = ROOT / "lcsb_mobile", ROOT / "export"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: scripts/docs/draw_modules.py -->", "<!-- / -->"

# A folder imports only from folders that stand before it. Modules at the top of the package count as folders of one file.
FLOW = (
    *("errors", "config", "arrays", "formatting", "installing", "targets", "ranges"),
    *("measuring", "io", "text", "bundle", "mil", "data", "training", "runners", "generation", "planning", "runs", "adapters", "report"),
    *("devices", "tiny", "bench"),
    *(
        "export/models",
        "export/checkpoints",
        "export/weights",
        "export/graphs",
        "export/reference",
        "export/onnx",
        "export/executorch",
        "export/coreai",
        "export/coreml",
        "export",
    ),
    *("api", "cli", "__main__"),
)
API = "api"  # lcsb_mobile/__init__.py, which offers functions of all folders
MAIN = "__main__"  # where the command line begins
HALVES = (("lcsb_mobile/ (the device half, and what both halves share)", False), ("export/ (the export half, with torch)", True))
BASE = ("errors", "config", "arrays", "formatting", "installing", "targets", "ranges")  # drawn as one box


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package by its full name; those of `export/` are `lcsb_mobile.export.…`."""
    found = {}
    for root, prefix in ((PACKAGE, "lcsb_mobile"), (EXPORT, "lcsb_mobile.export")):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join((prefix, *parts)).removesuffix(".__init__")] = path
    return found


@functools.cache
def imports(path: Path, lazy: bool = True) -> tuple[str, ...]:
    """Full names of what a file imports, with `lazy` within functions too; `from a import b` gives `a.b`. Imports for type
    checkers alone are left out."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    found: list[str] = []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
        elif (lazy or not isinstance(node, ast.FunctionDef)) and not is_type_checking(node):
            pending.extend(ast.iter_child_nodes(node))
    return tuple(found)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported_modules(path: Path, lazy: bool = True) -> set[str]:
    """Those of this package: of `from a import b` the module `a.b` if there is one, else `a`."""
    known = modules()
    return {name if name in known else name.rpartition(".")[0] for name in imports(path, lazy) if name.startswith("lcsb_mobile")}


def folder(module: str) -> str:
    """`lcsb_mobile.bundle.files` -> `bundle`, `lcsb_mobile.export.onnx.lowering` -> `export/onnx`, `….export.merge` -> `export`."""
    parts = module.split(".")[1:]
    if not parts:
        return API
    inner = parts[0] == "export" and len(parts) > 1 and (EXPORT / parts[1]).is_dir()
    return "/".join(parts[:2]) if inner else parts[0]


def folder_imports() -> dict[tuple[str, str], list[str]]:
    """(folder, folder that it imports from) -> the imports, as `module <- module`."""
    found = defaultdict(list)
    for module, path in modules().items():
        for needed in imported_modules(path):
            if folder(module) != folder(needed):
                found[folder(module), folder(needed)].append(f"{module} <- {needed}")
    return dict(found)


def flowchart() -> str:
    """Arrows go from what is imported to what imports it; those that follow from others are left out."""
    needs: dict[str, set[str]] = defaultdict(set)
    for importer, imported in folder_imports():
        if (box := _box(importer)) != (needed := _box(imported)):
            needs[box].add(needed)
    boxes = list(dict.fromkeys(_box(name) for name in FLOW))
    count: dict[str, int] = defaultdict(int)
    for module, path in modules().items():
        if path.stat().st_size:
            count[_box(folder(module))] += path.name != "__init__.py" or folder(module) == API
    half = {name: name.startswith("export") for name in boxes}
    lines = ["```mermaid", "flowchart TB"]
    for title, wanted in HALVES:
        lines += [f'  subgraph {_id(title.partition(" ")[0].strip("/"))}_half["{title}"]']
        lines += [f'    {_id(name)}["{_label(name, count[name])}"]' for name in boxes if half[name] is wanted]
        lines += ["  end"]
    for name in boxes:
        direct = {x for x in needs[name] if not any(x in _all(needs, other) for other in needs[name] - {x})}
        lines += [f"  {_id(x)} --> {_id(name)}" for x in sorted(direct, key=boxes.index)]
    return "\n".join([*lines, "```"])


def _box(name: str) -> str:
    return "base" if name in BASE else name


def _id(name: str) -> str:
    return "box_" + name.replace("/", "_")


def _label(name: str, count: int) -> str:
    title = {"base": ", ".join(BASE), API: "import lcsb_mobile", MAIN: "python -m lcsb_mobile", "export": "export/*.py"}.get(
        name, f"{name}/"
    )
    return f"{title}<br/>{count} modules" if count > 1 and name != "base" else title


def _all(needs: dict[str, set[str]], name: str) -> set[str]:
    """What a box needs, directly or not."""
    found: set[str] = set()
    pending = [name]
    while pending:
        for needed in needs[pending.pop()] - found:
            found.add(needed)
            pending.append(needed)
    return found


def current_page(text: str) -> str:
    """The page with the drawing as it is now. Raises ValueError without the marks."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{PAGE}: expected the marks {BEGIN} and {END} after it")
    return f"{before}{BEGIN}\n{flowchart()}\n{END}{after}"


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    page = current_page(text)
    if sys.argv[1:] == ["--check"]:
        return int(page != text)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
