"""A bundle of target `coreml` as files: what is in the package, for coremltools' own reader too, and what is refused of a stranger's."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bundles import lcsb, lcsb_error, lcsb_json
from helpers.relays import TINY_DATA, relay
from helpers.target_bundles import TinyBundle

from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import layer_function, plain_name
from lcsb_mobile.bundle.weights import TAIL
from lcsb_mobile.errors import BundleError, LcsbError, MissingDependencyError, RuntimeVersionError, UnsupportedModelError
from lcsb_mobile.export import to_coreml
from lcsb_mobile.export.coreml import lowering
from lcsb_mobile.export.coreml import package as writing
from lcsb_mobile.export.graphs.blocks import KindGraphs, Setting, capture_blocks
from lcsb_mobile.export.graphs.captured import capture, op_name
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.weights.quantization import dequantize
from lcsb_mobile.mil import protobuf
from lcsb_mobile.mil.evaluator import Evaluator
from lcsb_mobile.mil.package import Operation, Package
from lcsb_mobile.mil.protobuf import NAME
from lcsb_mobile.runners import make_runner
from lcsb_mobile.targets import MIL_DATA, MLPACKAGE

LAYERS = 8
ROLES = ("forward", "backward", "forward_keep", "backward_kept")
MODEL, WEIGHTS = f"{MLPACKAGE}/{MIL_DATA}/model.mlmodel", f"{MLPACKAGE}/{MIL_DATA}/weights/weight.bin"


@pytest.fixture(scope="session")
def coreml_bundle(tiny_bundle: TinyBundle) -> Path:
    return tiny_bundle("coreml")


@pytest.fixture(scope="module")
def blocks(coreml_bundle: Path) -> KindGraphs:
    """What its programs were written from."""
    manifest = Bundle.open(coreml_bundle).manifest
    (graphs,) = capture_blocks(Setting(model_of(manifest.model), manifest.lora, manifest.quantization, manifest.seq_len)).kinds.values()
    return graphs


# What was written


def test_commands(coreml_bundle: Path) -> None:
    """Held to its trace; a text; what the programs are; what needs weights.bin or a clock says so."""
    lcsb("verify", coreml_bundle)
    assert lcsb("generate", coreml_bundle, "--prompt", "the train", "--max-tokens", "5")
    functions = {x["program"]: x for x in lcsb_json("inspect", coreml_bundle)["functions"]}
    assert functions["block_backward"]["functions"] == LAYERS and functions["head_chunk"]["functions"] == 1
    assert functions["block_forward"]["decompressions"] == 7 and functions["block_backward"]["operations"] > 200
    assert "block_backward_kept" in lcsb("inspect", coreml_bundle)
    assert "expected a bundle with weights.bin, found one of target coreml" in lcsb_error(2, "verify", coreml_bundle, "--eager")
    assert "can be timed one by one, found coreml" in lcsb_error(2, "inspect", coreml_bundle, "--calibrate")
    assert "coreml is evaluated in NumPy here" in lcsb_error(2, "bench", coreml_bundle)


def test_a_run_goes_on_with_the_bundle_of_another_target(coreml_bundle: Path, onnxruntime_bundle: Path, tmp_path: Path) -> None:
    """From ONNX Runtime to the package and back: the losses are those of a run on one (law 4)."""
    ours, theirs = Bundle.open(coreml_bundle).manifest, Bundle.open(onnxruntime_bundle).manifest
    assert ours.identity == theirs.identity and "weights.bin" not in ours.files
    whole, parts = relay({"onnxruntime": onnxruntime_bundle, "coreml": coreml_bundle}, ("onnxruntime", "coreml", "onnxruntime"), tmp_path)
    assert parts == pytest.approx(whole, rel=1e-5)
    data = TINY_DATA
    assert "an evaluator in NumPy, which is slow" in simulate_notes(coreml_bundle, data, tmp_path / "again.safetensors")


def simulate_notes(bundle: Path, data: Path, adapter: Path) -> str:
    command = ["simulate", bundle, "--data", data, "--steps", 1, "--adapter", adapter]
    done = subprocess.run([sys.executable, "-m", "lcsb_mobile", *map(str, command)], capture_output=True, text=True, check=True)
    return done.stderr


def test_the_package_needs_no_torch(coreml_bundle: Path) -> None:
    """The device half: its reader, its evaluator, and coremltools' classes."""
    program = f"""
import sys
sys.modules["torch"] = None
from lcsb_mobile.__main__ import main
sys.argv = ["lcsb", "verify", {str(coreml_bundle)!r}]
try:
    main()
except SystemExit as done:
    assert not done.code
assert "coremltools" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_nothing_is_merged(coreml_bundle: Path, blocks: KindGraphs) -> None:
    """Every function of every layer computes what its graph says, as often: no softmax and no decompression is shared between what was
    computed again and what was not."""
    package = Package(coreml_bundle / MLPACKAGE)
    for role in ROLES:
        names = Counter(op_name(node) for node in getattr(blocks, role).graph.nodes)
        for layer in range(LAYERS):
            operations = package.function(layer_function(f"block_{role}", layer)).operations
            kinds = Counter(x.kind for x in operations)
            assert kinds["softmax"] == names["_softmax"] == 1
            assert sum(x.decompresses for x in operations) == names["dequantize_int4"]
            assert kinds["matmul"] + kinds["linear"] == names["mm"] + names["bmm"]
    assert not [x.kind for name in package.names for x in package.function(name).operations if x.kind in ("while_loop", "cond")]


def test_every_type_is_as_described(coreml_bundle: Path) -> None:
    """What a function takes and returns, what the package says of it to whoever loads it, and the manifest: an interface that holds no
    uint8 has turned it into int32 before."""
    bundle, package = Bundle.open(coreml_bundle), Package(coreml_bundle / MLPACKAGE)
    described: set[str] = set()
    for program, graph in bundle.manifest.graphs.items():
        expected = [{plain_name(x.name): (x.dtype, x.shape) for x in side} for side in (graph.inputs, graph.outputs)]
        names = [name for name in package.names if name == program or name.rpartition("_")[::2] == (program, name[-2:])]
        assert len(names) == (LAYERS if program.startswith("block") and program != "block_adamw" else 1)
        for name in names:
            function = package.function(name)
            assert [{key: (x.dtype, x.shape) for key, x in side.items()} for side in (function.inputs, function.outputs)] == expected
        described.update(names)
        assert {x.dtype for x in graph.inputs} <= {"float32", "float16", "int32"} and all(x.shape for x in (*graph.inputs, *graph.outputs))
    assert described == set(package.names)


def change(coreml_bundle: Path, tmp_path: Path, edit: Callable[[Any], None]) -> Bundle:
    """A copy whose model was edited."""
    path = tmp_path / "bundle"
    shutil.copytree(coreml_bundle, path)
    model = protobuf.protobuf("Model_pb2").Model.FromString((path / MODEL).read_bytes())
    edit(model)
    (path / MODEL).write_bytes(model.SerializeToString())
    return Bundle(path, Bundle.open(coreml_bundle).manifest)


def refusal(bundle: Bundle) -> LcsbError:
    with pytest.raises(LcsbError) as error:
        make_runner(bundle, threads=1).evaluate(
            Batch(*(np.zeros(bundle.manifest.seq_len, np.int64) for _ in range(4))), bundle.initial_adapter()
        )
    assert str(error.value).isprintable()
    return error.value


def test_a_silent_int32_is_refused(coreml_bundle: Path, tmp_path: Path) -> None:
    """In the description alone; and in the function as well, against the manifest."""

    def describe(model: Any) -> None:
        (function,) = [x for x in model.description.functions if x.name == "eval_chunk"]
        function.input[0].type.multiArrayType.dataType = 0x20000 | 32

    def make(model: Any) -> None:
        describe(model)
        function = model.mlProgram.functions["eval_chunk"]
        name = next(x for x in model.description.functions if x.name == "eval_chunk").input[0].name
        (taken,) = [x for x in function.inputs if x.name == name]
        taken.type.tensorType.dataType = protobuf.protobuf("MIL_pb2").DataType.Value("INT32")

    assert "its inputs are described as" in str(refusal(change(coreml_bundle, tmp_path / "described", describe)))
    assert "eval_chunk: other than the manifest says: inputs: 'x': expected float32" in str(
        refusal(change(coreml_bundle, tmp_path / "made", make))
    )


# Weights


def decoded(package: Package, function: str) -> list[np.ndarray]:
    """What each decompression of a function gives, in its order."""
    evaluator = Evaluator(package, function)
    values: dict[str, Any] = {}
    found = []
    for operation in evaluator.function.operations:
        if operation.kind.startswith("constexpr_"):
            values.update(evaluator._results(operation, values))
            found += [values[next(iter(operation.results))]] if operation.decompresses else []
    return found


def from_the_table(bundle: Bundle, layer: int) -> list[np.ndarray]:
    weights = bundle.weights.layer("block", layer)
    names = sorted({name.rpartition(".")[0] for name in weights if name.endswith(".packed")})
    parts = [[torch.from_numpy(np.array(weights[f"{name}.{part}"])) for part in ("packed", "scale")] for name in names]
    return [dequantize(*each).numpy() for each in parts]


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return sorted(x.tobytes() for x in found) == sorted(x.tobytes() for x in expected)


def test_every_4_bit_constant_is_the_tables(coreml_bundle: Path, onnxruntime_bundle: Path, tmp_path: Path) -> None:
    """Bit for bit, of every layer and program; and a single nibble is noticed."""
    package, table = Package(coreml_bundle / MLPACKAGE), Bundle.open(onnxruntime_bundle)
    for layer in range(LAYERS):
        expected = from_the_table(table, layer)
        assert len(expected) == 7
        for role in (*ROLES, "prefill", "decode"):
            assert same(decoded(package, layer_function(f"block_{role}", layer)), expected), (role, layer)
    shutil.copytree(coreml_bundle / MLPACKAGE, tmp_path / MLPACKAGE)
    place = metadata_of(package, first_weight(package))[3] + 5
    with (tmp_path / MLPACKAGE / MIL_DATA / "weights" / "weight.bin").open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))
    assert not same(decoded(Package(tmp_path / MLPACKAGE), "block_forward_00"), from_the_table(table, 0))


def first_weight(package: Package) -> Operation:
    return next(x for x in package.function("block_forward_00").operations if x.decompresses)


def metadata_of(package: Package, operation: Operation) -> tuple[int, ...]:
    """sentinel, type, bytes, place of the data, bits of padding."""
    (blob,) = operation.operands["data"]
    raw = package.weights.path.read_bytes()[blob.offset : blob.offset + 32]  # type: ignore[union-attr]
    return struct.unpack("<IIQQQ", raw)


def test_weights_are_there_once(coreml_bundle: Path, onnxruntime_bundle: Path) -> None:
    """Law 6: the tied table, read by six programs, and the matrices, of six programs a layer."""
    bundle, weights = Bundle.open(coreml_bundle), (coreml_bundle / WEIGHTS).stat().st_size
    stored = sum(tensor.nbytes for tensor in bundle.manifest.weights)
    count = Package(coreml_bundle / MLPACKAGE).weights.count
    assert stored <= weights <= stored + 128 * count + 20_000  # metadata, alignment, and what graphs bring: biases of zero, masks
    matrices = [x for x in bundle.manifest.weights if x.per_layer and x.name.endswith((".packed", ".scale"))]
    parameters = sum(2 * np.prod(x.shape) for x in matrices if x.name.endswith(".packed"))
    assert sum(x.nbytes for x in matrices) <= 0.60 * parameters
    assert weights < (onnxruntime_bundle / "weights.bin").stat().st_size + TAIL + 128 * count + 20_000


def test_coremltools_reads_the_same(coreml_bundle: Path) -> None:
    """Its own reader of packages takes every function, finds its operators valid, and decompresses weights to the same bits."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto import load
    from coremltools.libmodelpackage import ModelPackage

    package = Package(coreml_bundle / MLPACKAGE)
    root = ModelPackage(str(coreml_bundle / MLPACKAGE)).getRootModel()
    assert Path(root.path()) == coreml_bundle / MODEL
    spec = coremltools.utils.load_spec(str(coreml_bundle / MLPACKAGE))
    assert spec.specificationVersion == 9 and spec.description.metadata.userDefined["coremltools"] == coremltools.__version__
    for name in [x for x in spec.mlProgram.functions if x.startswith("block") and not x.endswith(("_00", "adamw"))]:
        del spec.mlProgram.functions[name]
    program = load.load(spec, spec.specificationVersion, file_weights_dir=str((coreml_bundle / WEIGHTS).parent))
    theirs = [
        operation.materialized_val_inference()
        for operation in program.functions["block_backward_00"].operations
        if operation.op_type.startswith("constexpr_") and operation.data.dtype.__name__ != "fp16"
    ]
    ours = decoded(package, "block_backward_00")
    assert len(ours) == 7 and all(x.tobytes() == y.astype(np.float32).tobytes() for x, y in zip(ours, theirs, strict=True))


# Refusals


METADATA = struct.Struct("<IIQQQ")


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 0xDEADBEE0), (1, 4), (1, 99), (2, 7), (2, 2**63), (3, 64), (3, 2**40), (3, 65), (4, 4)],
    ids=["sentinel", "type", "no type", "size", "huge size", "before it", "beyond the file", "alignment", "padding"],
)
def test_damaged_metadata(coreml_bundle: Path, tmp_path: Path, field: int, value: int) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(coreml_bundle, path)
    (blob,) = first_weight(Package(coreml_bundle / MLPACKAGE)).operands["data"]
    content = bytearray((path / WEIGHTS).read_bytes())
    fields = list(METADATA.unpack_from(content, blob.offset))  # type: ignore[union-attr]
    fields[field] = value
    METADATA.pack_into(content, blob.offset, *fields)  # type: ignore[union-attr]
    (path / WEIGHTS).write_bytes(content)
    error = refusal(Bundle(path, Bundle.open(coreml_bundle).manifest))
    assert isinstance(error, BundleError) and "weight.bin: damaged: the tensor at byte" in str(error)


@pytest.mark.parametrize("size", [0, 10, 64, 5000])
def test_truncated_weights(coreml_bundle: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(coreml_bundle, path)
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:size])
    assert isinstance(refusal(Bundle(path, Bundle.open(coreml_bundle).manifest)), BundleError)
    assert "changed since it was exported: programs.mlpackage" in lcsb_error(2, "verify", path)


@pytest.mark.parametrize("content", [b"", bytes(5000), b"text\n" * 1000])
def test_foreign_files(coreml_bundle: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(coreml_bundle, path)
    (path / MODEL).write_bytes(content)
    assert isinstance(refusal(Bundle(path, Bundle.open(coreml_bundle).manifest)), BundleError)


def test_a_function_that_is_not_there(coreml_bundle: Path, tmp_path: Path) -> None:
    error = refusal(change(coreml_bundle, tmp_path, lambda model: model.mlProgram.functions.pop("block_forward_03")))
    assert isinstance(error, BundleError) and "no function 'block_forward_03'" in str(error)


def test_an_operator_that_is_not_there(coreml_bundle: Path, tmp_path: Path) -> None:
    """Named, with its function."""

    def rename(model: Any) -> None:
        function = model.mlProgram.functions["block_forward_03"].block_specializations["CoreML8"]
        next(x for x in function.operations if x.type == "softmax").type = "sparsemax"

    error = refusal(change(coreml_bundle, tmp_path, rename))
    assert isinstance(error, RuntimeVersionError)
    assert "function block_forward_03: the evaluator has no operator sparsemax" in str(error)


def test_weights_elsewhere(coreml_bundle: Path, tmp_path: Path) -> None:
    """A file outside the package is never opened."""

    def lead_out(model: Any) -> None:
        function = model.mlProgram.functions["block_forward_00"].block_specializations["CoreML8"]
        operation = next(x for x in function.operations if x.type.startswith("constexpr_"))
        operation.inputs["data"].arguments[0].value.blobFileValue.fileName = "@model_path/../../../../etc/passwd"

    assert "expected weights in @model_path/weights/weight.bin, found" in str(refusal(change(coreml_bundle, tmp_path, lead_out)))


def test_a_missing_wheel(coreml_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is read or written; what a bundle is, is shown without."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    for name in [x for x in sys.modules if x.startswith(NAME)]:
        monkeypatch.delitem(sys.modules, name)
    assert "read with the classes of coremltools" in lcsb_error(2, "verify", coreml_bundle)
    error = lcsb_error(2, "export", "tiny", "--target", "coreml", "--output", tmp_path / "none")
    assert "target coreml needs coremltools 9.0" in error and "[coreml]" in error and not (tmp_path / "none").exists()
    assert lcsb_json("inspect", coreml_bundle)["functions"] == []


def test_another_version_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    import coremltools

    monkeypatch.setattr(coremltools, "__version__", "8.3.0")
    with pytest.raises(MissingDependencyError, match=r"target coreml needs coremltools 9\.0, found 8\.3\.0"):
        to_coreml.import_tools()


def program(function: Callable[..., Any], *inputs: GraphTensor, outputs: tuple[GraphTensor, ...] = ()) -> lowering.Program:
    examples = [torch.zeros(x.shape, dtype=getattr(torch, x.dtype)) for x in inputs]
    graph = capture(lambda *args: (function(*args),), examples, tuple(x.name for x in inputs), ("y",))
    return lowering.Program("block_forward", graph, {}, inputs, outputs or (GraphTensor("y", "float32", inputs[0].shape, ""),), {})


def test_an_operator_without_a_rule() -> None:
    """Named with its program."""
    with pytest.raises(UnsupportedModelError, match=r"block_forward: operator aten\.erf\.default has no rule for Core ML; supported: "):
        lowering.lower(program(torch.erf, GraphTensor("x", "float32", (3,), "")))


def test_more_dimensions_than_the_format_holds() -> None:
    graph = program(lambda x: x.view(1, 1, 1, 1, 1, 6) * 2, GraphTensor("x", "float32", (6,), ""))
    with pytest.raises(UnsupportedModelError, match="block_forward: coremltools refuses it: .*rank"):
        writing._translated(lowering.lower(graph), "block_forward")


def test_a_border_that_the_format_does_not_hold() -> None:
    """uint8 would become int32."""
    graph = program(lambda x: x.float(), GraphTensor("x", "uint8", (3,), ""))
    with pytest.raises(UnsupportedModelError, match="block_forward: .* takes and returns float32, float16, int32, found x of uint8"):
        lowering.lower(graph)


@pytest.mark.parametrize("name", ["Data/com.apple.CoreML/weights/more.bin", "Data/link", ".hidden"])
def test_what_the_manifest_does_not_list(coreml_bundle: Path, tmp_path: Path, name: str) -> None:
    """Core ML opens the directory as one, and may take up what nobody has looked at."""
    bundle = Path(shutil.copytree(coreml_bundle, tmp_path / "bundle"))
    added = bundle / MLPACKAGE / name
    added.symlink_to(tmp_path) if name.endswith("link") else added.write_bytes(b"x")
    with pytest.raises(BundleError, match=f"{MLPACKAGE}/{name} is not listed in the manifest; remove it"):
        Bundle.open(bundle)
