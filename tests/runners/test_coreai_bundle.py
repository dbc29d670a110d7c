"""A bundle of target `coreai` as files: what its functions consist of, memory over many calls, a run on two runtimes, refusals."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.bundles import export_random, lcsb, lcsb_error, lcsb_json
from helpers.relays import relay
from helpers.target_bundles import TinyBundle, export_embedded

from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import BundleError, LcsbError
from lcsb_mobile.export.graphs.blocks import Setting, capture_blocks
from lcsb_mobile.export.graphs.captured import CapturedGraph, op_name
from lcsb_mobile.export.models import model_of
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runners.coreai import CoreAI
from lcsb_mobile.targets import AIMODEL, target_row

pytestmark = pytest.mark.coreai

PROGRAMS = target_row("coreai").program_file("")
# ATen and lcsb operators by what a program must compute as often as the captured graph does.
COUNTED = {"_softmax": "softmax", "dequantize_int4": "blockwise_shift_scale", "mm": "batch_matmul"}


@pytest.fixture(scope="session")
def coreai_bundle(tiny_bundle: TinyBundle) -> Path:
    return tiny_bundle("coreai")


# What was written


def functions_of(bundle: Path) -> dict[str, str]:
    """Name -> text of each function, as it lies on the disk."""
    from coreai.authoring import AIModelAsset

    text = str(AIModelAsset.load(bundle / AIMODEL).program)
    parts = re.split(r"(?m)^\s*coreai\.graph @", text)
    return {part.split("(", 1)[0]: part for part in parts[1:]}


def counts(captured: CapturedGraph) -> Counter[str]:
    names = ["mm" if op_name(node) == "bmm" else op_name(node) for node in captured.graph.nodes]
    return Counter(COUNTED[name] for name in names if name in COUNTED)


def test_nothing_is_merged(coreai_bundle: Path) -> None:
    """The compiler's rewriting finds equal expressions: a recomputation that it merged with what was computed before would be held in
    between. Every function computes what its graph says, as often."""
    manifest = Bundle.open(coreai_bundle).manifest
    written = functions_of(coreai_bundle)
    assert written.keys() == manifest.graphs.keys()
    setting = Setting(model_of(manifest.model), manifest.lora, manifest.quantization, manifest.seq_len)
    (graphs,) = capture_blocks(setting).kinds.values()
    for role in ("forward", "backward", "forward_keep", "backward_kept"):
        expected = counts(getattr(graphs, role))
        operations = re.findall(r"= coreai\.(?:decomposable\.broadcasting_)?(\w+)", written[f"block_{role}"])
        found = Counter(name for name in operations if name in COUNTED.values())
        assert found == expected, role
    assert counts(graphs.backward)["softmax"] == 1 and counts(graphs.forward)["blockwise_shift_scale"] == 7


def test_no_weight_is_in_the_file(coreai_bundle: Path) -> None:
    bundle = Bundle.open(coreai_bundle)
    content = (coreai_bundle / PROGRAMS).read_bytes()
    assert len(content) < 300_000
    for tensor in bundle.manifest.weights:
        stored = bundle.weights[tensor.name]
        for x in (stored, stored.astype(np.float32)):
            assert x.tobytes()[:256] not in content, tensor.name


def test_every_type_is_as_described(coreai_bundle: Path) -> None:
    """Integers are int32, weights what `weights.bin` holds, and nothing has rank 0."""
    types = {"uint8": "ui8", "int8": "si8", "int32": "si32", "float16": "f16", "float32": "f32"}
    written = functions_of(coreai_bundle)
    for name, graph in Bundle.open(coreai_bundle).manifest.graphs.items():
        heading = written[name].split("\n", 1)[0]
        expected = ["x".join(map(str, x.shape)) + "x" + types[x.dtype] for x in (*graph.inputs, *graph.outputs)]
        assert re.findall(r"tensor<(\w+)>", heading) == expected, name


def test_the_same_bytes_again(coreai_bundle: Path, tmp_path: Path) -> None:
    export_embedded(tmp_path / "again", "coreai")
    ours, theirs = (Bundle.open(path).manifest for path in (coreai_bundle, tmp_path / "again"))
    assert ours.files == theirs.files and ours.identity == theirs.identity


def test_commands(coreai_bundle: Path) -> None:
    lcsb("verify", coreai_bundle, "--eager")
    found = lcsb_json("inspect", coreai_bundle, "--calibrate")
    assert found["full"]["seconds"] > found["steps"][0]["seconds"] > 0
    assert {"block_backward", "head", "adamw, block"} <= found["calibration"]["seconds"].keys()
    assert lcsb("generate", coreai_bundle, "--prompt", "the train", "--max-tokens", "5")


def test_products_in_float16(tmp_path: Path) -> None:
    """Held to the trace within its own tolerance, and another thing than float32."""
    path = export_random(tmp_path, "qwen2", target="coreai", accuracy_level=2).bundle
    losses = lcsb_json("verify", path)
    assert losses["step_tolerance"] == 5e-2 and losses["step_gradient_norm"] > 1e-4
    assert "xf16" in functions_of(path)["block_backward"] and "xf16" not in functions_of(path)["head_end"]
    assert "needs target coreai or coreml" in lcsb_error(2, "export", "tiny", "--output", tmp_path / "x", "--accuracy-level", "2")


# Memory

CALLS = """
import sys
from pathlib import Path
import numpy as np
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.runners.coreai import CoreAI

def anonymous():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Anonymous"):
            return 1024 * int(line.split()[1])

bundle = Bundle.open(Path(sys.argv[1]))
runtime, graph = CoreAI(bundle), bundle.manifest.graphs["head_end"]
feeds = {x.name: np.ones(x.shape, x.dtype) for x in graph.inputs if x.weight is None}
outputs = {x.name: np.empty(x.shape, x.dtype) for x in graph.outputs}
for call in range(1200):
    if call == 200:
        before = anonymous()
    runtime.run("head_end", feeds, outputs, None)
print((anonymous() - before) / sum(x.nbytes for x in outputs.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_memory_stays_flat(coreai_bundle: Path) -> None:
    """Over 1,000 calls, in what a call returns: the binding keeps every dictionary that it returns."""
    process = subprocess.run([sys.executable, "-c", CALLS, str(coreai_bundle)], capture_output=True, text=True, check=True)
    assert float(process.stdout) < 50


# A run on two runtimes


def test_a_run_goes_on_with_the_bundle_of_another_target(coreai_bundle: Path, onnxruntime_bundle: Path, tmp_path: Path) -> None:
    """From ONNX Runtime to Core AI and back: the losses are those of a run on one (law 4); the run's checkpoints are one format."""
    assert Bundle.open(onnxruntime_bundle).manifest.identity == Bundle.open(coreai_bundle).manifest.identity
    bundles = {"onnxruntime": onnxruntime_bundle, "coreai": coreai_bundle}
    whole, parts = relay(bundles, ("onnxruntime", "coreai", "onnxruntime"), tmp_path)
    assert parts == pytest.approx(whole, rel=1e-5)


# Refusals


def refusal(bundle: Bundle) -> LcsbError:
    with pytest.raises(LcsbError) as error:
        make_runner(bundle).evaluate(Batch(*(np.zeros(bundle.manifest.seq_len, np.int64) for _ in range(4))), bundle.initial_adapter())
    assert str(error.value).isprintable()
    return error.value


def with_program(source: Path, directory: Path, content: bytes, **graphs: Any) -> Bundle:
    """A bundle with another program, or another description of it."""
    path = directory / "bundle"
    shutil.copytree(source, path)
    (path / PROGRAMS).write_bytes(content)
    manifest = Bundle.open(source).manifest
    return Bundle(path, msgspec.structs.replace(manifest, graphs=manifest.graphs | graphs))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_programs(coreai_bundle: Path, tmp_path: Path, part: float) -> None:
    content = (coreai_bundle / PROGRAMS).read_bytes()
    error = refusal(with_program(coreai_bundle, tmp_path, content[: int(part * len(content))]))
    assert isinstance(error, BundleError) and AIMODEL in str(error)


@pytest.mark.parametrize("content", [bytes(5000), b"PK\x03\x04" + bytes(5000), b"text\n" * 1000])
def test_foreign_files(coreai_bundle: Path, tmp_path: Path, content: bytes) -> None:
    assert isinstance(refusal(with_program(coreai_bundle, tmp_path, content)), BundleError)


def test_a_function_that_is_not_there(coreai_bundle: Path, tmp_path: Path) -> None:
    """Named."""
    content = (coreai_bundle / PROGRAMS).read_bytes().replace(b"eval_chunk", b"evil_chunk")
    bundle = with_program(coreai_bundle, tmp_path, content)
    (bundle.path / AIMODEL / "main.hash").write_bytes(hashlib.sha256(content).digest())
    assert "eval_chunk" in str(refusal(bundle))


def test_another_description(coreai_bundle: Path, tmp_path: Path) -> None:
    """Buffers are made by the manifest: a function of other shapes or types is refused before it is run."""
    content = (coreai_bundle / PROGRAMS).read_bytes()
    end = Bundle.open(coreai_bundle).manifest.graphs["eval_end"]
    for number, change in enumerate(({"shape": (7,)}, {"dtype": "float16"})):
        changed = msgspec.structs.replace(end.inputs[0], **change)  # type: ignore[arg-type]
        other = msgspec.structs.replace(end, inputs=(changed, *end.inputs[1:]))
        bundle = with_program(coreai_bundle, tmp_path / str(number), content, eval_end=other)
        assert "eval_end: other than the manifest says: inputs: 'x'" in str(refusal(bundle))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("shape", (7, 5, 32), "'packed': expected int8 [264, 5, 32], found int8 [7, 5, 32]"),
        ("weight", "norm.weight", "'packed': expected float32"),
        ("weight", None, "graphs.head_chunk: inputs: 'packed': expected none"),
    ],
)
def test_a_chunk_of_another_table(coreai_bundle: Path, tmp_path: Path, field: str, value: object, expected: str) -> None:
    """What a chunk is fed is rows of a table of the manifest."""
    shutil.copytree(coreai_bundle, tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "manifest.json"
    content = json.loads(manifest.read_text())
    (packed,) = (x for x in content["graphs"]["head_chunk"]["inputs"] if x["name"] == "packed")
    packed[field] = value
    manifest.write_text(json.dumps(content))
    with pytest.raises(BundleError) as error:
        Bundle.open(tmp_path / "bundle")
    assert expected in str(error.value)


def test_what_was_lowered_is_removed(coreai_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runtime = CoreAI(Bundle.open(coreai_bundle))
    assert list(tmp_path.iterdir())
    runtime.close()
    assert not list(tmp_path.iterdir())


def test_an_operator_without_a_rule() -> None:
    """Named with its program."""
    import torch

    from lcsb_mobile.errors import UnsupportedModelError
    from lcsb_mobile.export.coreai.lowering import lower
    from lcsb_mobile.export.graphs.captured import capture

    graph = capture(lambda x: (torch.erf(x),), [torch.zeros(3)], ("x",), ("y",))
    with pytest.raises(
        UnsupportedModelError, match=r"operator aten\.erf\.default in program block_forward has no Core AI lowering; supported: "
    ):
        lower("block_forward", graph.graph, graph.inputs, {"x": None})
