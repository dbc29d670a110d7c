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
    header = ["method", "layers kept", "0.5B shape: a step", "peak memory", f"SmolLM2: loss after {STEPS} steps", "time of these steps"]
    commands = "`python benchmarks/bench.py methods` and `python benchmarks/real_model.py`"
    return f"{markdown_table(header, cells)}\nLoss before: {before:.3f}. Measured on {methods['machine']}; {commands}."


def after_training(data: dict[str, Any], row: str) -> list[str]:
    """The loss that a run ends with, and the seconds of its steps; a dash for what was not measured."""
    run, steps = data["runs"].get(row), bench_row(data, row)
    loss = "–" if run is None else f"{final_loss(run):.3f}"
    return [loss, "–" if steps is None else f"{steps['step_seconds_mean'] * STEPS:.0f} s"]


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
