"""`--programs gpu`: the same weights and numbers, by operators that ONNX Runtime's WebGPU provider computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, small_export
from helpers.captured import MakeDecoding, MakeModelGraphs
from helpers.lowered import run_file
from helpers.onnxruntime_bundles import DEFAULTS, request
from helpers.tiny_models import MakeTiny
from helpers.webgpu_kernels import nodes_without_kernel
from torch import from_numpy

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GOLDEN_FILE, Graph
from lcsb_mobile.errors import OptionError
from lcsb_mobile.export import to_onnxruntime
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.export.onnx.dequantize import dequantize_on_gpu
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, save_model, value
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.export.weights.quantization import dequantize

ENDS = ("embed", "decode_embed", "head", "head_eval", "logits")  # these stay on the CPU


@pytest.fixture(scope="module")
def gpu_bundle(random_bundle: RandomBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the checkpoint of `random_bundle`."""
    path = tmp_path_factory.mktemp("gpu") / "bundle"
    lcsb("export", random_bundle.checkpoint, "--output", path, *EXPORT, "--programs", "gpu")
    return path


@pytest.mark.parametrize("name", ["gemma3", "qwen3_5"])
def test_every_node_of_the_blocks_has_a_kernel(
    tiny: MakeTiny, model_graphs: MakeModelGraphs, decoding: MakeDecoding, tmp_path: Path, name: str
) -> None:
    model = tiny(name)
    written = request(model, model_graphs(name), DEFAULTS, tmp_path, decoding(name))
    table = weight_table(model.config, model.quantization, model.seq_len, "float32")
    parts = dataclasses.replace(written.parts, table=table)
    graphs = to_onnxruntime.export_programs(dataclasses.replace(written, parts=parts, programs="gpu"))
    check_kernels(tmp_path, graphs)


def test_every_node_of_a_bundles_blocks_has_a_kernel(gpu_bundle: Path) -> None:
    check_kernels(gpu_bundle, Bundle.open(gpu_bundle).manifest.graphs)


def check_kernels(directory: Path, graphs: Mapping[str, Graph]) -> None:
    """Of the blocks, AdamW and the products, and that none of them takes float16."""
    for program, graph in graphs.items():
        missing = set(nodes_without_kernel(onnx.load(directory / graph.file)))
        assert bool(missing) == (program in ENDS), (program, missing)
        assert "float16" not in {x.dtype for x in (*graph.inputs, *graph.outputs)}


def test_programs_for_the_cpu_have_such_nodes(random_bundle: RandomBundle) -> None:
    """So that the test above can fail."""
    missing = set(nodes_without_kernel(onnx.load(random_bundle.bundle / "block_forward.onnx")))
    assert {"BitwiseAnd(UINT8, UINT8)", "BitShift(UINT8, UINT8)", "Concat(UINT8, UINT8)", "Cast(FLOAT16)"} <= missing


def test_decompression_is_exact(tmp_path: Path) -> None:
    """Of every byte, and of scales of every exponent that float16 has."""
    packed = np.arange(256, dtype=np.uint8).reshape(8, 8, 4)
    scale = np.float16(1.37) * np.exp2(np.linspace(-24, 15, 64)).astype(np.float16).reshape(8, 8)
    b = GraphBuilder()
    inputs = [value("packed", "uint8", packed.shape), value("scale", "float32", scale.shape)]
    save_model(b, tmp_path / "x.onnx", inputs, {"y": (dequantize_on_gpu(b, *inputs, columns=64), "float32", (8, 64))})
    (found,) = run_file(tmp_path / "x.onnx", {"packed": from_numpy(packed), "scale": from_numpy(scale.astype(np.float32))})
    assert np.array_equal(found, dequantize(from_numpy(packed), from_numpy(scale)).numpy())


def test_weights_are_the_same(random_bundle: RandomBundle, gpu_bundle: Path) -> None:
    """Bits of matrices, values of scales; so an adapter of one fits the other. A run does not go on from one to the other."""
    cpu, gpu = Bundle.open(random_bundle.bundle), Bundle.open(gpu_bundle)
    for tensor in cpu.manifest.weights:
        found, expected = gpu.weights[tensor.name], cpu.weights[tensor.name]
        assert found.dtype == (np.float32 if tensor.name.endswith(".scale") else expected.dtype)
        assert np.array_equal(found, expected)
    assert gpu.manifest.base == cpu.manifest.base and gpu.identity != cpu.identity
    assert (gpu_bundle / GOLDEN_FILE).read_bytes() == (random_bundle.bundle / GOLDEN_FILE).read_bytes()


def test_the_golden_trace_holds(random_bundle: RandomBundle, gpu_bundle: Path) -> None:
    """As closely as on programs for the CPU: only the order of sums within a product may differ."""
    found = lcsb_json("verify", gpu_bundle, "--eager")
    for field in ("step_loss", "step_gradient_norm", "run_loss", "eager_loss", "eager_gradient"):
        assert found[field] < 2e-6, field


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--target", "executorch"), "target executorch, 4 bits and accuracy level 0"),
        (("--bits", "8"), "target onnxruntime, 8 bits and accuracy level 0"),
        (("--accuracy-level", "4"), "target onnxruntime, 4 bits and accuracy level 4"),
    ],
)
def test_what_gpu_programs_cannot_have(tmp_path: Path, options: tuple[str, ...], found: str) -> None:
    error = lcsb_error(2, "export", "tiny", "--output", tmp_path / "bundle", "--programs", "gpu", *options)
    assert error == f"error: programs: gpu needs target onnxruntime, 4 bits and accuracy level 0, found {found}"
    assert not (tmp_path / "bundle").exists()


def test_other_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="programs: expected one of cpu, gpu, found 'npu'"):
        export_bundle(small_export(model="tiny", output=tmp_path / "bundle", programs="npu"))
