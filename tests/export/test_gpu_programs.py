"""`--programs gpu`: the same weights and numbers, by operators that ONNX Runtime's WebGPU provider computes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, small_export
from helpers.lowered import run_file
from helpers.onnxruntime_bundles import CHUNK_ROWS, MakeExported
from helpers.tiny_models import packed_batch
from helpers.webgpu_kernels import nodes_without_kernel
from torch import from_numpy

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.checks import check_manifest
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import GOLDEN_FILE
from lcsb_mobile.errors import BundleError, OptionError
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.merge import BundleWeights
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.export.onnx.dequantize import dequantize_on_gpu
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.working_set import held_bytes
from lcsb_mobile.export.weights.quantization import dequantize, dequantize_stored
from lcsb_mobile.planning.inspection import inspect_bundle
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.onnxruntime import OnnxRuntime

# Model, bits of embedding and head: capped logits, a scaled embedding and windows; a head of its own, in nibbles; every table there is.
MODELS = [("gemma2", 8), ("qwen2-untied", 4), ("qwen3_5", 8)]


@pytest.fixture(scope="module")
def gpu_bundle(random_bundle: RandomBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the checkpoint of `random_bundle`."""
    path = tmp_path_factory.mktemp("gpu") / "bundle"
    lcsb("export", random_bundle.checkpoint, "--output", path, *EXPORT, "--programs", "gpu")
    return path


@pytest.mark.parametrize(("name", "embedding_bits"), MODELS)
def test_every_node_has_a_kernel(programs: MakeExported, name: str, embedding_bits: int) -> None:
    check_kernels(programs(name, 4, embedding_bits, on="gpu").bundle)


def test_every_node_of_a_bundle_has_a_kernel(gpu_bundle: Path) -> None:
    check_kernels(Bundle.open(gpu_bundle))


def check_kernels(bundle: Bundle) -> None:
    """And that no program takes or gives float16, or int8, which a page cannot put on a GPU."""
    for program, graph in bundle.manifest.graphs.items():
        assert not set(nodes_without_kernel(onnx.load(bundle.path / graph.file))), program
        assert not {"float16", "int8"} & {x.dtype for x in (*graph.inputs, *graph.outputs)}


def test_programs_for_the_cpu_have_such_nodes(random_bundle: RandomBundle) -> None:
    """So that the test above can fail."""
    for program, expected in (
        ("block_forward", {"BitwiseAnd(UINT8, UINT8)", "BitShift(UINT8, UINT8)", "Concat(UINT8, UINT8)", "Cast(FLOAT16, FLOAT)"}),
        ("embed", {"Gather(INT8, INT64)", "Equal(INT64, INT64)", "Reshape(INT64)"}),
        ("head", {"NonZero(BOOL)", "Loop(FLOAT, FLOAT, FLOAT)"}),
    ):
        assert expected <= set(nodes_without_kernel(onnx.load(random_bundle.bundle / f"{program}.onnx")))


@pytest.mark.parametrize("bits", [4, 8])
def test_decompression_is_exact(tmp_path: Path, bits: int) -> None:
    """Of every byte, and of scales of every exponent that float16 has."""
    packed, columns = np.arange(256, dtype=np.uint8).reshape(8, 8, 4), 8 * 4 * 8 // bits
    scale = np.float16(1.37) * np.exp2(np.linspace(-24, 15, 64)).astype(np.float16).reshape(8, 8)
    b = GraphBuilder()
    inputs = [value("packed", "uint8", packed.shape), value("scale", "float32", scale.shape)]
    save_model(b, tmp_path / "x.onnx", inputs, {"y": (dequantize_on_gpu(b, *inputs, bits, columns), "float32", (8, columns))})
    (found,) = run_file(tmp_path / "x.onnx", {"packed": from_numpy(packed), "scale": from_numpy(scale.astype(np.float32))})
    q = from_numpy(packed) if bits == 4 else from_numpy((packed.astype(int) - 128).astype(np.int8))
    assert np.array_equal(found, dequantize(q, from_numpy(scale)).numpy())
    assert np.array_equal(found, dequantize_stored(from_numpy(packed), from_numpy(scale), columns).numpy())


def open_both(programs: MakeExported, name: str, embedding_bits: int) -> tuple[BlockRunner, BlockRunner]:
    """On programs for the CPU and for a GPU."""
    cpu, gpu = (programs(name, 4, embedding_bits, on=on).bundle for on in ("cpu", "gpu"))
    return BlockRunner(cpu, OnnxRuntime(cpu, 1)), BlockRunner(gpu, OnnxRuntime(gpu, 1))


@pytest.mark.parametrize(("name", "embedding_bits"), MODELS)
def test_embeddings_and_tables_are_the_same(programs: MakeExported, name: str, embedding_bits: int) -> None:
    """Bit for bit, whatever numbers segments have."""
    runners = open_both(programs, name, embedding_bits)
    t = runners[0].manifest.seq_len
    batch = packed_batch(1, t)
    for number, segments in enumerate((batch.segment_ids, -1 - batch.segment_ids, np.where(batch.segment_ids == 0, -t, t - 1))):
        for program in ("embed", "decode_embed"):
            ids = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "segment_ids": segments}
            if program == "decode_embed":
                ids = {"input_ids": batch.input_ids[:1], "position_ids": np.array([(0, 1, t - 1)[number]])}
            found = [runner.programs.new_outputs(program) for runner in runners]
            for runner, outputs in zip(runners, found):
                runner.programs.run(program, ids, outputs)
            assert found[0].keys() == found[1].keys()
            assert all(np.array_equal(found[0][table], found[1][table]) for table in found[0])


@pytest.mark.parametrize(("name", "embedding_bits"), MODELS)
def test_the_heads_numbers_are_the_same(programs: MakeExported, name: str, embedding_bits: int) -> None:
    """To float32's rounding: loss, its gradient and logits, with none, one, some and all labels counted; what is not counted, and infinite
    in one place, has no part in it."""
    runners = open_both(programs, name, embedding_bits)
    config, t = runners[0].manifest.model, runners[0].manifest.seq_len
    generator = np.random.default_rng(0)
    h = generator.standard_normal((t, config.hidden_size), np.float32)
    every = generator.integers(0, config.vocab_size, t)
    every[:2] = 0, config.vocab_size - 1
    for counted in (np.zeros(t), np.arange(t) == 1, np.arange(t) % 3 == 0, np.ones(t)):
        labels = np.where(counted, every, IGNORED_LABEL)
        x = np.where((np.cumsum(counted == 0) == 1)[:, None] & (counted == 0)[:, None], np.float32(np.inf), h)
        (expected, g_expected), (found, g) = (_loss(runner, x, labels) for runner in runners)
        assert expected == 0 or counted.any()
        assert found == pytest.approx(expected, rel=5e-7) == runners[1].head.loss(x, labels)
        beside = np.isfinite(x).all(1)  # the norm's own gradient of an infinite row is NaN in both
        assert np.abs(g - g_expected)[beside].max() <= 2e-6 * np.abs(g_expected[beside]).max()
    logits = [runner.head.logits(h[3:4]) for runner in runners]
    assert np.abs(logits[1] - logits[0]).max() <= 1e-6 * np.abs(logits[0]).max()


def _loss(runner: BlockRunner, h: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    g = np.full_like(h, np.nan)
    return runner.head.loss(h, labels, g), g


def test_a_chunk_of_the_head_is_used_up_before_the_next(programs: MakeExported) -> None:
    """So that no more than one is there in float, however many there are."""
    bundle = programs("gemma2", on="gpu").bundle
    config = bundle.manifest.model
    for program in ("head", "head_eval", "logits"):
        model = onnx.load(bundle.path / bundle.manifest.graphs[program].file)
        held, largest = held_bytes(bundle.path / bundle.manifest.graphs[program].file)
        rows = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
        assert len(rows) == -(-config.vocab_size // CHUNK_ROWS) + (program != "logits")  # those of the labels too
        chunk, logits = CHUNK_ROWS * config.hidden_size * 4, bundle.manifest.seq_len * CHUNK_ROWS * 4
        hidden = bundle.manifest.seq_len * config.hidden_size * 4
        assert largest >= chunk
        # A chunk as bytes and twice as floats, before and after scaling; logits and what becomes of them; x, sums and what is between.
        beside = {"head": 3 * logits + 8 * hidden, "head_eval": 3 * logits + 4 * hidden, "logits": hidden}
        assert held < 2.5 * chunk + beside[program], program


def test_weights_are_the_same(random_bundle: RandomBundle, gpu_bundle: Path) -> None:
    """The values of matrices and scales; so an adapter of one fits the other, and what is merged is the same. A run does not go on from one
    to the other."""
    cpu, gpu = Bundle.open(random_bundle.bundle), Bundle.open(gpu_bundle)
    for tensor in cpu.manifest.weights:
        found, expected = gpu.weights[tensor.name], cpu.weights[tensor.name]
        assert found.dtype == {"float16": np.float32, "int8": np.uint8}.get(tensor.dtype, expected.dtype)
        assert np.array_equal(found.astype(int) - 128 if tensor.dtype == "int8" else found, expected)
    assert gpu.manifest.base == cpu.manifest.base and gpu.identity != cpu.identity
    assert (gpu_bundle / GOLDEN_FILE).read_bytes() == (random_bundle.bundle / GOLDEN_FILE).read_bytes()
    with open_checkpoint(random_bundle.checkpoint) as checkpoint:
        for name in checkpoint_weights(checkpoint.config):
            rows = [BundleWeights(bundle, checkpoint).read_rows(name, 0, 9) for bundle in (cpu, gpu)]
            assert torch.equal(*rows)
    assert inspect_bundle(gpu).embedding_and_head.parameters == inspect_bundle(cpu).embedding_and_head.parameters


def test_a_table_is_for_the_one_or_the_other(random_bundle: RandomBundle, gpu_bundle: Path) -> None:
    """Bytes of one kind with scales of the other are refused: a reader would take every weight for another."""
    for path, found, expected in ((random_bundle.bundle, "uint8", "int8"), (gpu_bundle, "int8", "uint8")):
        manifest = Bundle.open(path).manifest
        first = manifest.weights[0]
        assert first.name == "embed_tokens.weight.packed" and first.dtype == expected
        manifest = msgspec.structs.replace(manifest, weights=(msgspec.structs.replace(first, dtype=found), *manifest.weights[1:]))
        with pytest.raises(BundleError, match=rf"'embed_tokens.weight.packed': expected {expected} \[.*\], found {found} \["):
            check_manifest(manifest, path)


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
