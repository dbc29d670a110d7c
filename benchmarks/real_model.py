"""SmolLM2-135M-Instruct fine-tuned on real text: held-out loss against steps and seconds. `real_model.py [losses] [seconds]`, both without
arguments.

Needs `make models` and `make .venv-onnxruntime/.installed`, the environment of stock ONNX Runtime. `losses`: each run in a process of its
own on one thread, one seed, all with the same sequences in the same order; each method at three rates with nothing kept, then at its best
with everything kept. `seconds`: the mean step and the memory of each method and of what it keeps, by one `lcsb bench` of the same bundle,
all in turn on two threads: they are comparable, and only they need an idle machine. `METHOD@RATE@KEEP …` runs those rows alone and keeps
the others of the last results, and `export` the export alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from common import MODELS, RESULTS, ROOT, device_lcsb, lcsb, machine_now, markdown_table, write_results

RATES = {
    "full": ("4e-4", "8e-4", "1.6e-3"),
    "lcsb-exact": ("4e-4", "8e-4", "1.6e-3"),
    "lcsb-identity": ("2e-4", "4e-4", "8e-4"),
    "freeze": ("4e-4", "8e-4", "1.6e-3"),
}
STEPS, EVERY = 200, 50
PICTURE = ROOT / "docs/images/smollm2.png"


def run(bundle: Path, row: str) -> dict[str, Any]:
    method, rate, keep = row.split("@")
    return device_lcsb(
        *("simulate", bundle, "--data", MODELS / "fortunes.train.jsonl", "--eval-data", MODELS / "fortunes.eval.jsonl"),
        *("--steps", str(STEPS), "--eval-every", str(EVERY), "--method", method, "--lr", rate, "--keep", keep),
        *("--adapter", bundle.parent / "adapter.safetensors", "--threads", "1", "--force"),
    )


def final_loss(result: dict[str, Any]) -> float:
    return float(result["evaluations"][-1][1])


def best_rates(runs: dict[str, dict[str, Any]]) -> list[str]:
    """The row of each method that ends lowest, nothing kept."""
    rows = {method: [f"{method}@{rate}@none" for rate in rates if f"{method}@{rate}@none" in runs] for method, rates in RATES.items()}
    return [min(found, key=lambda row: final_loss(runs[row])) for found in rows.values() if found]


def bench_row(data: dict[str, Any], row: str) -> dict[str, Any] | None:
    """The steps of a run's method and of what it keeps, as the bench measured them."""
    method, _, keep = row.split("@")
    rows = data.get("steps", ())
    return next((found for found in rows if found["method"] == method and bool(found["kept_layers"]) == (keep == "all")), None)


def table(data: dict[str, Any]) -> str:
    runs, lines = data["runs"], []
    for row in sorted(runs, key=lambda row: (list(RATES).index(row.split("@")[0]), float(row.split("@")[1]), row)):
        method, rate, keep = row.split("@")
        losses = [f"{loss:.3f}" for _, loss in runs[row]["evaluations"]]
        figures = ["–", "–", "–"]
        if (found := bench_row(data, row)) is not None:
            seconds = found["step_seconds_mean"]
            figures = [f"{seconds:.2f}", f"{seconds * STEPS:.0f}", f"{found['peak_anonymous_bytes'] / 1e6:.0f} MB"]
        lines.append([method, rate, keep, *losses, *figures])
    checkpoints = [f"{step} steps" for step in range(EVERY, STEPS + 1, EVERY)]
    return markdown_table(["method", "rate", "kept", "before", *checkpoints, "s/step", "s in all", "peak anonymous"], lines)


def draw(data: dict[str, Any]) -> None:
    """Loss against seconds of training, each method at its best rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for number, row in enumerate(best_rates(data["runs"])):
        for keep, style in (("none", "-"), ("all", "--")):
            name = row.replace("@none", f"@{keep}")
            result, measured = data["runs"].get(name), bench_row(data, name)
            if result is not None and measured is not None:
                points = [(step * measured["step_seconds_mean"], loss) for step, loss in result["evaluations"]]
                label = f"{row.split('@')[0]}, rate {row.split('@')[1]}, {keep} kept"
                axes.plot(*zip(*points, strict=True), style, color=f"C{number}", marker="o", markersize=3, label=label)
    axes.set(xlabel="seconds of training steps", ylabel="held-out loss", title="SmolLM2-135M on fortunes, 200 steps of 256 tokens")
    axes.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    path, wanted = RESULTS / "real_model.json", sys.argv[1:] or ["losses", "seconds"]
    before = json.loads(path.read_text()) if sys.argv[1:] and path.exists() else {"machine": None, "rows": {"runs": {}}}
    data: dict[str, Any] = before["rows"]
    save = partial(save_results, data, None if "seconds" in wanted else before["machine"])  # the table's machine is that of its seconds
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "smollm2"
        data["export"] = lcsb("export", MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", "--output", bundle)
        data["export"]["machine"] = machine_now()
        save()
        if "seconds" in wanted:
            methods = ("--methods", ",".join(RATES), "--keep", "none", "--keep", "all", "--steps", "8", "--rounds", "3")
            data["steps"] = device_lcsb("bench", bundle, *methods)
            save()
        every_rate = [f"{method}@{rate}@none" for method, rates in RATES.items() for rate in rates]
        for row in [*(every_rate if "losses" in wanted else ()), *(name for name in wanted if "@" in name)]:
            data["runs"][row] = run(bundle, row)
            save()
        for row in best_rates(data["runs"]) if "losses" in wanted else ():
            kept = row.replace("@none", "@all")
            data["runs"][kept] = run(bundle, kept)
            save()
    draw(data)


def save_results(data: dict[str, Any], machine: str | None) -> None:
    """After every run: a long one that is stopped has lost nothing."""
    seconds = {stage: round(value, 1) for stage, value in data["export"]["seconds"].items()}
    export = f"\nExport from GGUF by `real_model.py export`, on {data['export']['machine']}: "
    footer = export + ", ".join(f"{stage} {value} s" for stage, value in seconds.items()) + ".\n"
    write_results("real_model", table(data) + footer, data, machine=machine)


if __name__ == "__main__":
    main()
