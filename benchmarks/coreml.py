"""What a package of Core ML takes to make at a published shape, what is in it, what products in float16 cost: `coreml.py [SHAPE]`.

Weights are random, so of the shape the cost is that of one layer's programs on random activations; `tiny`, the embedded model, is trained,
and is held to its golden trace.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from common import markdown_table, measured, write_results

from lcsb_mobile.bench.shapes import RandomBundleOptions
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.config import HALF_PRODUCTS, AccuracyLevel
from lcsb_mobile.export.bundle import Content, export_bundle, export_model
from lcsb_mobile.export.random_bundle import RandomModel, random_adapter, read_shape, write_random_weights
from lcsb_mobile.planning.inspection import inspect_bundle
from lcsb_mobile.runners.coreml import CoreMl
from lcsb_mobile.runs.verify import verify
from lcsb_mobile.targets import MIL_DATA, MLPACKAGE, Target

SEQ_LEN = 256
LEVELS: dict[str, AccuracyLevel] = {"float32": 0, "float16": HALF_PRODUCTS}


def make(shape: str, target: Target, level: str, path: str) -> None:
    """In a process of its own, so that its memory is the export's."""
    options = RandomBundleOptions(shape, target, seq_len=SEQ_LEN)
    config, content = read_shape(options), Content(write_random_weights, random_adapter, model=False)
    export = ExportOptions(options.name, Path(path), target, seq_len=SEQ_LEN, accuracy_level=LEVELS[level])
    export_model(lambda: RandomModel(config, options), export, lambda stage, done, total: None, content)


def coreml(shape: str = "qwen2.5-0.5b") -> None:
    with tempfile.TemporaryDirectory() as temporary:
        taken: dict[str, tuple[float, int]] = {}
        for target, level in (("onnxruntime", "float32"), ("coreml", "float32"), ("coreml", "float16")):
            path = Path(temporary) / f"{target}-{level}"
            taken[f"{target}, {level}"] = measured(sys.executable, __file__, "make", shape, target, level, path)
        bundles = {level: Bundle.open(Path(temporary) / f"coreml-{level}") for level in LEVELS}
        rows: dict[str, Any] = {name: {"seconds": seconds, "peak_rss_bytes": peak} for name, (seconds, peak) in taken.items()}
        rows |= {"sizes": sizes(bundles["float32"]), "a layer": layer_differences(bundles), "tiny": trace_differences(Path(temporary))}
        rows["functions"] = [msgspec.to_builtins(x) for x in inspect_bundle(bundles["float32"]).functions]
    write_results("coreml", page(shape, rows), rows, f"coreml.py {shape}")


def sizes(bundle: Bundle) -> dict[str, float]:
    """Bytes of the model and its weights, and of the blocks' matrices for each of their parameters."""
    data = bundle.path / MLPACKAGE / MIL_DATA
    matrices = [x for x in bundle.manifest.weights if x.per_layer and x.name.endswith((".packed", ".scale"))]
    parameters = sum(2 * int(np.prod(x.shape)) for x in matrices if x.name.endswith(".packed"))
    model, weights = ((data / name).stat().st_size for name in ("model.mlmodel", "weights/weight.bin"))
    return {"model": model, "weights": weights, "per parameter of the blocks": (model + sum(x.nbytes for x in matrices)) / parameters}


def layer_differences(bundles: dict[str, Bundle]) -> dict[str, float]:
    """Of layer 0 in float16 to the same in float32, relative to the largest element, on normal h and g as small as a mean's gradient."""
    generator, found = np.random.default_rng(0), {}
    manifest = bundles["float32"].manifest
    kind = manifest.layers[0].kind
    shape = (manifest.seq_len, manifest.model.hidden_size)
    feeds = {"h": generator.standard_normal(shape), "g": generator.standard_normal(shape) / manifest.seq_len / 100}
    adapter = bundles["float32"].initial_adapter()[: manifest.kinds[0].size]
    feeds["adapter"] = adapter + 0.01 * generator.standard_normal(adapter.size)
    for program in (f"{kind}_forward", f"{kind}_backward"):
        results = []
        for bundle in bundles.values():
            graph, runtime = manifest.graphs[program], CoreMl(bundle)
            tables = _tables(bundle, runtime)
            inputs = {x.name: np.asarray({**tables, **feeds}[x.name], np.float32) for x in graph.inputs}
            outputs = {x.name: np.empty(x.shape, x.dtype) for x in graph.outputs}
            runtime.run(program, inputs, outputs, 0)
            results.append(outputs)
        found |= {name: float(np.abs(results[1][name] - x).max() / np.abs(x).max()) for name, x in results[0].items()}
    return found


def _tables(bundle: Bundle, runtime: CoreMl) -> dict[str, np.ndarray]:
    """What layer 0 reads, of one segment."""
    manifest = bundle.manifest
    graph, count = manifest.graphs["embed"], np.arange(manifest.seq_len, dtype=np.int32)
    outputs = {x.name: np.empty(x.shape, x.dtype) for x in graph.outputs}
    runtime.run("embed", {x.name: count * (x.name == "position_ids") for x in graph.inputs}, outputs, None)
    return {name: outputs[table] for name, table in manifest.layers[0].reads.items()}


def trace_differences(directory: Path) -> dict[str, dict[str, float]]:
    found = {}
    for name, level in LEVELS.items():
        path = directory / f"tiny-{name}"
        export_bundle(ExportOptions(model="tiny", quantizer="search", output=path, target="coreml", seq_len=64, accuracy_level=level))
        result = verify(path)
        found[name] = {"loss of a step": result.step_loss, "gradient norm": result.step_gradient_norm, "losses of the run": result.run_loss}
    return found


def page(shape: str, rows: dict[str, Any]) -> str:
    header = ["target, products", "seconds", "peak MB resident"]
    cells = [[name, f"{x['seconds']:.0f}", f"{x['peak_rss_bytes'] / 1e6:,.0f}"] for name, x in rows.items() if "seconds" in x]
    found = rows["sizes"]
    text = markdown_table(header, cells)
    text += (
        f"\nExport of {shape} with random weights, {SEQ_LEN} tokens, rank 8, the process and its imports included. "
        f"`model.mlmodel` {found['model'] / 1e6:.1f} MB, `weight.bin` {found['weights'] / 1e6:.0f} MB; "
        f"{found['per parameter of the blocks']:.3f} bytes a parameter of the blocks, functions included.\n\n"
    )
    header, keys = ["program", "functions", "operations each", "weights decompressed"], ("functions", "operations", "decompressions")
    text += markdown_table(header, [[f"`{x['program']}`", *(str(x[key]) for key in keys)] for x in rows["functions"]])
    layer = ", ".join(f"`{name}` {value:.0e}" for name, value in rows["a layer"].items())
    text += f"\nProducts in float16, a layer of the shape, relative to the largest element: {layer}.\n"
    for name, found in rows["tiny"].items():
        text += f"`tiny` against its golden trace, {name}: {', '.join(f'{key} {value:.1e}' for key, value in found.items())}.\n"
    return text


if __name__ == "__main__":
    # executorch.py beside this file is not the package of that name, which coremltools imports.
    sys.path[:] = [x for x in sys.path if Path(x).resolve() != Path(__file__).resolve().parent]
    sys.modules.pop("executorch", None)
    if sys.argv[1:2] == ["make"]:
        make(*sys.argv[2:])  # type: ignore[arg-type]  # of a target's name
    else:
        coreml(*sys.argv[1:])
