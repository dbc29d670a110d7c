"""A bundle of target `executorch` as a file: where its programs' values lie, and what is refused of a stranger's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.bundles import lcsb, lcsb_json
from helpers.relays import relay

from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle, training_identity
from lcsb_mobile.bundle.weights import WEIGHTS_FILE
from lcsb_mobile.errors import BundleError, LcsbError, RuntimeVersionError
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runners.executorch import import_runtime
from lcsb_mobile.targets import PTE_FILE

# What the file is


def test_where_values_lie(executorch_bundle: Path) -> None:
    """Inputs in the host's memory, so that weights are fed in place; every result in the program's, without which C++ crashes."""
    program = import_runtime()._load_program(str(executorch_bundle / PTE_FILE))
    for name in Bundle.open(executorch_bundle).manifest.graphs:
        meta = program.method_meta(name)
        assert not any(meta.input_tensor_meta(number).is_memory_planned() for number in range(meta.num_inputs()))
        assert all(meta.output_tensor_meta(number).is_memory_planned() for number in range(meta.num_outputs()))


def test_no_weight_is_in_the_file(executorch_bundle: Path) -> None:
    """Neither as it is stored nor as floats: the file would be another for other weights of the same shapes."""
    bundle = Bundle.open(executorch_bundle)
    content = (executorch_bundle / PTE_FILE).read_bytes()
    for tensor in bundle.manifest.weights:
        stored = bundle.weights[tensor.name]
        for x in (stored, stored.astype(np.float32)):
            assert x.tobytes()[:256] not in content, tensor.name


def test_commands(executorch_bundle: Path) -> None:
    """Held to its trace and the eager reference; its programs timed one by one; a text."""
    lcsb("verify", executorch_bundle, "--eager")
    found = lcsb_json("inspect", executorch_bundle, "--calibrate")
    assert found["full"]["seconds"] > found["steps"][0]["seconds"] > 0
    assert {"block_backward", "adamw, block"} <= found["calibration"]["seconds"].keys()
    assert lcsb("generate", executorch_bundle, "--prompt", "the train", "--max-tokens", "5")


# A run on two runtimes


def test_a_run_goes_on_with_the_bundle_of_another_target(executorch_bundle: Path, onnxruntime_bundle: Path, tmp_path: Path) -> None:
    """From ONNX Runtime to ExecuTorch and back: the losses are those of a run on one (law 4); the run's checkpoints are one format."""
    manifest = Bundle.open(onnxruntime_bundle).manifest
    assert manifest.identity == Bundle.open(executorch_bundle).manifest.identity
    other_seed = msgspec.structs.replace(manifest, seed=manifest.seed + 1)
    assert training_identity(manifest, manifest.files) == manifest.identity != training_identity(other_seed, manifest.files)
    changed = manifest.files | {WEIGHTS_FILE: msgspec.structs.replace(manifest.files[WEIGHTS_FILE], sha256="0" * 64)}
    assert training_identity(manifest, changed) != manifest.identity

    bundles = {"onnxruntime": onnxruntime_bundle, "executorch": executorch_bundle}
    whole, parts = relay(bundles, ("onnxruntime", "executorch", "onnxruntime"), tmp_path)
    assert parts == pytest.approx(whole, rel=1e-5)


# Refusals


def refusal(bundle: Bundle) -> LcsbError:
    with pytest.raises(LcsbError) as error:
        make_runner(bundle, threads=1).evaluate(
            Batch(*(np.zeros(bundle.manifest.seq_len, np.int64) for _ in range(4))), bundle.initial_adapter()
        )
    assert str(error.value).isprintable()
    return error.value


def with_program(source: Path, directory: Path, content: bytes, **graphs: Any) -> Bundle:
    """A bundle with another program, or another description of it."""
    path = directory / "bundle"
    shutil.copytree(source, path)
    (path / PTE_FILE).write_bytes(content)
    manifest = Bundle.open(source).manifest
    return Bundle(path, msgspec.structs.replace(manifest, graphs=manifest.graphs | graphs))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_programs(executorch_bundle: Path, tmp_path: Path, part: float) -> None:
    content = (executorch_bundle / PTE_FILE).read_bytes()
    error = refusal(with_program(executorch_bundle, tmp_path, content[: int(part * len(content))]))
    assert isinstance(error, BundleError) and PTE_FILE in str(error)


@pytest.mark.parametrize("content", [bytes(5000), b"PK\x03\x04" + bytes(5000), b"text\n" * 1000])
def test_foreign_files(executorch_bundle: Path, tmp_path: Path, content: bytes) -> None:
    assert isinstance(refusal(with_program(executorch_bundle, tmp_path, content)), BundleError)


def test_a_method_that_is_not_there(executorch_bundle: Path, tmp_path: Path) -> None:
    """Named."""
    content = (executorch_bundle / PTE_FILE).read_bytes().replace(b"head_eval", b"head_evil")
    assert "head_eval" in str(refusal(with_program(executorch_bundle, tmp_path, content)))


def test_an_operator_that_is_not_there(executorch_bundle: Path, tmp_path: Path) -> None:
    """A runtime built without it."""
    content = (executorch_bundle / PTE_FILE).read_bytes().replace(b"aten::index_select", b"aten::index_reject")
    error = refusal(with_program(executorch_bundle, tmp_path, content))
    assert isinstance(error, RuntimeVersionError) and "embed: executorch" in str(error)
    assert "it has no operator aten::index_reject" in str(error)


def test_another_description(executorch_bundle: Path, tmp_path: Path) -> None:
    """Buffers are made by the manifest: a method of other shapes or types is refused before it is run."""
    content = (executorch_bundle / PTE_FILE).read_bytes()
    head = Bundle.open(executorch_bundle).manifest.graphs["head_eval"]
    for number, change in enumerate(({"shape": (7,)}, {"dtype": "float16"})):
        changed = msgspec.structs.replace(head.inputs[0], **change)  # type: ignore[arg-type]
        other = msgspec.structs.replace(head, inputs=(changed, *head.inputs[1:]))
        bundle = with_program(executorch_bundle, tmp_path / str(number), content, head_eval=other)
        assert "head_eval: other than the manifest says: inputs: 'h'" in str(refusal(bundle))
