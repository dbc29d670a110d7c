"""SmolLM2-135M-Instruct in the web page, in a headless Chromium, beside `lcsb simulate`: `web.py [BUNDLE]`.

Needs `make models`, `make test-device`, `make web`, a Chromium (`scripts/web/chromium.sh` says which) and an idle machine. Without a
BUNDLE, which has to be one of SmolLM2, it exports one of 128 tokens a sequence. `lcsb web` serves page and bundle, and a driver does in the
page what a person would: it adds the model, picks the data, chooses a method and 20 steps, and starts. After each run `lcsb simulate`
makes the same one: data, seed, steps, threads. The page's seconds and losses are those of the checkpoint that it keeps.

The memory is that of the page's process, sampled every few milliseconds from before the model is added to the end of the last run. The
copying, the check of the golden trace, the evaluations and the comparison are part of that, and not part of the seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from common import DEVICE_LCSB, MODELS, ROOT, device_lcsb, markdown_table, smollm2, write_results

from lcsb_mobile.measuring import memory_watch

DATA = MODELS / "fortunes.train.jsonl"
METHODS, THREADS = ("full", "lcsb-exact"), 2
EXAMPLES = 300  # of the data: what is held out of more is evaluated and compared for minutes, and that is not what is measured
INTERVAL = 0.005  # seconds between two samples
DRIVER = ROOT / "web_demo/build/tests/page/browser/measured.js"
AGREEMENT = 1e-4  # of losses, relative


class Talk:
    """A process that answers in lines of JSON."""

    def __init__(self, *command: str | Path, **environment: str) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, command)), env=os.environ | environment, **pipes)

    def hear(self) -> Any:
        line = pipe(self.process.stdout).readline()
        if not line:
            raise SystemExit(f"{self.process.args}: ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, question: str) -> Any:
        pipe(self.process.stdin).write(f"{question}\n")
        pipe(self.process.stdin).flush()
        return self.hear()

    def close(self) -> None:
        """Its standard input's end is its own."""
        self.process.communicate()


def pipe(found: IO[str] | None) -> IO[str]:
    assert found is not None
    return found


def page_process(pids: list[int]) -> int:
    """Of the browser's processes for pages the one in which a page has a worker."""
    names = {pid: [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/comm")] for pid in pids}
    return next(pid for pid, threads in names.items() if any(name.startswith("DedicatedWorker") for name in threads))


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """The address of the page, with the bundle."""
    server = Talk(DEVICE_LCSB, "web", bundle, "--site", ROOT / "web_demo/build/site", "--port", "0", "--json")
    try:
        yield server.hear()["address"]
    finally:
        server.process.terminate()
        server.process.wait()


def in_the_page(address: str, bundle: Path, chromium: str, directory: Path) -> dict[str, Any]:
    """Each method in the page and by `lcsb simulate`, in turn, and what the page's process took."""
    data = directory / DATA.name
    data.write_text("".join(DATA.read_text("utf-8").splitlines(keepends=True)[:EXAMPLES]), "utf-8")
    driver = Talk("node", DRIVER, address, bundle.name, data, str(THREADS), LCSB_CHROMIUM=chromium)
    try:
        empty = max(usage for pid in driver.hear()["renderers"] if (usage := memory_watch.exact(pid)))
        opened = driver.hear()
        if not opened["isolated"]:
            raise SystemExit("the page is not isolated, so it has one thread; see the headers of lcsb web")
        watcher = Talk(sys.executable, "-I", "-S", memory_watch.__file__, str(page_process(opened["renderers"])), str(INTERVAL))
        try:
            peaks = {"opened": watcher.ask("")["peak"]}
            driver.ask("add")
            peaks["added"] = watcher.ask("")["peak"]
            runs = []
            for method in METHODS:
                page = driver.ask(f"train {method}")
                peaks[method] = watcher.ask("")["peak"]
                runs.append(compared(method, page, simulated(bundle, data, method, len(page["losses"]), directory)))
        finally:
            watcher.close()
    finally:
        driver.close()
    return {"runs": runs, "empty": empty, "peaks": peaks, "load": os.getloadavg()}


def simulated(bundle: Path, data: Path, method: str, steps: int, directory: Path) -> dict[str, Any]:
    """The page's run: what it does not say stands in the page's own code (web_demo/page/worker/runs.ts)."""
    run = ("--method", method, "--steps", str(steps), "--threads", str(THREADS), "--keep", "none", "--eval-every", "20")
    return device_lcsb("simulate", bundle, "--data", data, *run, "--adapter", directory / f"{method}.safetensors")


def compared(method: str, page: dict[str, Any], desktop: dict[str, Any]) -> dict[str, Any]:
    """Seconds are medians of all steps but the first. Ends the benchmark where the two did not learn the same."""
    evaluations = difference(*([loss for _, loss in run["evaluations"]] for run in (page, desktop)))
    off = max(difference(page["losses"], desktop["losses"]), evaluations)
    if not off <= AGREEMENT:
        raise SystemExit(f"{method}: losses in the page and of lcsb simulate are apart by {off:.1e}, which is more than {AGREEMENT:.0e}")
    seconds, reference = (statistics.median(values[1:]) for values in (page["seconds"], desktop["step_seconds"]))
    return {
        "method": method,
        "steps": len(page["losses"]),
        "losses": page["losses"],
        "off": off,
        "seconds": seconds,
        "simulate_seconds": reference,
        "simulate_peak_anonymous_bytes": desktop["peak_anonymous_bytes"],
    }


def difference(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def main(given: str | None = None) -> None:
    chromium = subprocess.run(ROOT / "scripts/web/chromium.sh", check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    version = subprocess.run([chromium, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with smollm2(given) as bundle, tempfile.TemporaryDirectory() as temporary, served(bundle) as address:
        found = in_the_page(address, bundle, chromium, Path(temporary)) | {"browser": version}
    rows = [
        [
            f"`{run['method']}`",
            str(run["steps"]),
            f"{run['off']:.1e}",
            f"{run['seconds']:.2f}",
            f"{run['simulate_seconds']:.2f}",
            f"{run['seconds'] / run['simulate_seconds']:.1f}x",
            megabytes(found["peaks"][run["method"]]),
            f"{run['simulate_peak_anonymous_bytes'] / 1e6:.0f}",
        ]
        for run in found["runs"]
    ]
    header = ["method", "steps", "losses apart", "s a step in the page", "`simulate`", "ratio", "MB of the page", "MB of `simulate`"]
    notes = (
        f"MB: anonymous at most, resident in brackets. An empty page: {megabytes(found['empty'])}; this one when it was opened: "
        f"{megabytes(found['peaks']['opened'])}, while the model was copied: {megabytes(found['peaks']['added'])}. {version}, "
        f"{THREADS} threads; the load was {found['load'][1]:.1f} over the last five minutes."
    )
    write_results("web", f"{markdown_table(header, rows)}\n{notes}\n", found)


def megabytes(usage: Sequence[int]) -> str:
    return f"{usage[0] / 1e6:.0f} ({usage[1] / 1e6:.0f})"


if __name__ == "__main__":
    main(*sys.argv[1:])
