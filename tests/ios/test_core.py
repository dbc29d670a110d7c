"""ios_demo's core beside the others: its folders stand in one order, and the tests of all four languages read the same golden files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "ios_demo/Sources/LCSBKit"
# In the order of the data flow, as android_demo/core's: each uses only what stands before it. With a capital, a file beside the folders.
ORDER = (
    *("Faults", "io", "text", "bundle", "adapter", "TrainingBundle", "data", "runtime", "training", "Verdict", "checkpoint"),
    *("Generate", "RunOptions", "RunRecords", "RunControl", "runs", "Compare", "TrainingRun"),
)
DECLARED = re.compile(
    r"^(?!(?:file)?private\b)(?:(?:@\w+(?:\([^)]*\))?|public|package|internal|final|indirect) )*"
    r"(?:class|struct|enum|protocol|typealias|func|let|var) (\w+)",
    re.MULTILINE,
)
LOCAL = (r"\b(?:let|var|func|case|enum|struct|class|typealias) (\w+)", r"[(,] ?(?:_ )?(\w+):")  # names that may mean something of their own
# In whose tests a golden file has to be read, and what those are written in.
READERS = {
    "Python": (ROOT / "tests", ROOT / "tests_device", ROOT / "scripts/golden", "*.py"),
    "Kotlin": (ROOT / "android_demo/core/src/test", "*.kt"),
    "Swift": (ROOT / "ios_demo/Tests", "*.swift"),
    "TypeScript": (ROOT / "web_demo/tests", "*.ts"),
}
NOT_YET = {
    "Swift": {"peft_imports.json"},  # the iOS app takes no adapters in
}


def code(path: Path) -> str:
    """Without comments and texts: a name in them uses nothing."""
    source = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', source)


def test_folders_of_the_core_stand_in_an_order() -> None:
    sources = {path.relative_to(SOURCES): code(path) for path in SOURCES.rglob("*.swift")}
    part = {path: path.parts[0] if len(path.parts) > 1 else path.stem for path in sources}
    assert set(part.values()) == set(ORDER)
    places: dict[str, set[str]] = {}
    for path, source in sources.items():
        for name in DECLARED.findall(source):
            places.setdefault(name, set()).add(part[path])
    assert len(places) > 150  # the pattern finds what there is
    faults = set[str]()
    for path, source in sources.items():
        local = {name for pattern in LOCAL for name in re.findall(pattern, source)}
        for name in set(re.findall(r"(?<![.\w])[A-Za-z]\w+", source)) & places.keys() - local:
            if all(ORDER.index(other) > ORDER.index(part[path]) for other in places[name]):
                faults.add(f"{path} uses {name} of {', '.join(sorted(places[name]))}, which stands after {part[path]}")
    assert not faults, sorted(faults)


@pytest.mark.parametrize("language", READERS)
def test_every_golden_file_is_read_in_every_language(language: str) -> None:
    *folders, pattern = READERS[language]
    tests = "".join(
        path.read_text("utf-8") for folder in folders for path in sorted(Path(folder).rglob(str(pattern))) if path != Path(__file__)
    )
    files = [path.name for path in sorted((ROOT / "tests/golden").iterdir())]
    assert len(files) > 4
    assert {name for name in [*files, "runtime.json"] if name not in tests} == NOT_YET.get(language, set())
