"""Puts the tables of results/*.md, and the README's summary of two of them, into the READMEs and docs/*.md.

Each table stands between `<!-- NAME -->` and `<!-- / -->`. Run this after a benchmark.
"""

from __future__ import annotations

import json
import re
from typing import Any

from common import RESULTS, ROOT, markdown_table
from real_model import STEPS, bench_row, best_rates, final_loss

KEPT_TOO = ("full", "lcsb-exact")  # the methods whose row with everything kept stands in the summary


def results(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return data


def summary() -> str:
    """A row for each method: a step of the 0.5B shape, and SmolLM2 at the method's best rate."""
    methods, smollm2 = results("bench_methods"), results("real_model")
    runs = smollm2["rows"]["runs"]
    best = {row.split("@")[0]: row for row in best_rates(runs)}
    cells = []
    for row in methods["rows"]:
        name, kept = row["method"], "all" if row["kept_layers"] else "none"
        if kept == "none" or name in KEPT_TOO:
            step = [f"{row['step_seconds_mean']:.2f} s", f"{row['peak_anonymous_bytes'] / 1e6:,.0f} MB"]
            trained = after_training(smollm2["rows"], best[name].replace("@none", f"@{kept}")) if name in best else ["–", "–"]
            cells.append([f"`{name}`" if name in best else name, kept, *step, *trained])
    before = runs[best["full"]]["evaluations"][0][1]
    header = [
        "method",
        "layers kept",
        "0.5B shape: a step",
        "peak memory",
        f"SmolLM2: loss after {STEPS} steps",
        "a step over the first row's",
    ]
    sources = (
        f"The 0.5B shape: measured on {methods['machine']}; `python benchmarks/bench.py methods`. "
        f"SmolLM2: on {smollm2['machine']}; `python benchmarks/real_model.py`. Its loss before: {before:.3f}."
    )
    return f"{markdown_table(header, cells)}\n{sources}"


def after_training(data: dict[str, Any], row: str) -> list[str]:
    """The loss that a run ends with, and the mean time of a step over that of `full` with nothing kept, since the two models need not be
    measured on one machine; a dash for what was not measured."""
    run, steps, first = data["runs"].get(row), bench_row(data, row), bench_row(data, "full@–@none")
    loss = "–" if run is None else f"{final_loss(run):.3f}"
    return [loss, "–" if steps is None or first is None else f"{steps['step_seconds_mean'] / first['step_seconds_mean']:.2f}x"]


def main() -> None:
    tables = {path.stem: path.read_text().rstrip() for path in sorted(RESULTS.glob("*.md"))} | {"summary": summary()}
    readmes = [ROOT / folder / "README.md" for folder in (".", "android_demo", "ios_demo")]
    for page in (*readmes, *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        for name, table in tables.items():
            block = f"<!-- {name} -->\n{table}\n<!-- / -->"
            text = re.sub(rf"<!-- {name} -->.*?<!-- / -->", lambda _, block=block: block, text, flags=re.DOTALL)
        page.write_text(text)


if __name__ == "__main__":
    main()
