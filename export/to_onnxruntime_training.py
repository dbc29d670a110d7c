"""ONNX Runtime's on-device training API (1.19.2): its four official artifacts, and a graph for generation.

One graph serves every subset: the step is chosen by the inputs `train` and `propagate`. The whole adapter is one parameter
[L, n]. Frozen weights stay outside the checkpoint, in `weights.bin`, which ONNX Runtime maps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.errors import MissingDependencyError, UnsupportedModelError
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.models import Model
from lcsb_mobile.export.onnx.graph_builder import IR_VERSION, MICROSOFT, OPSET, GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.products import export_gemm
from lcsb_mobile.export.onnx.settings import runtime_settings
from lcsb_mobile.export.onnx.step_graph import backward_loop, embed, forward_loop, head, next_token_logits, stacked_reads
from lcsb_mobile.export.target import ExportRequest
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.targets import CHECKPOINT_FILE

__all__ = ["TOOLS", "check_model", "export_programs", "import_tools", "runtime_settings"]

TOOLS = ("onnxruntime-training-cpu",)
TARGET = "onnxruntime-training"
PARAMETER = "adapter"
BUFFER = f"{PARAMETER}_grad.accumulation.buffer"
ACCUMULATED = f"{PARAMETER}_grad.accumulation.out"


def import_tools() -> Any:
    """onnxruntime's blocks, by which the optimizer and the checkpoint are written."""
    try:
        from onnxruntime.training import onnxblock
    except ImportError as error:
        raise MissingDependencyError(f"target {TARGET} needs onnxruntime-training 1.19.2 ({error}); {how_to_install(TARGET)}") from error
    return onnxblock


def check_model(model: Model) -> None:
    if len(model.kinds) > 1 or any(kind.takes or kind.gives for kind in model.kinds.values()):
        kinds = ", ".join(model.kinds)
        raise UnsupportedModelError(
            f"target {TARGET} computes layers of one kind in one loop; {model.config.model_type} has layers of kinds {kinds}; use --target "
            "onnxruntime"
        )


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the artifacts beside `weights.bin`. Returns the description of each graph, by its file's stem."""
    directory, parts = request.directory, request.parts
    return {
        "training_model": _training_model(directory / "training_model.onnx", parts),
        "eval_model": _eval_model(directory / "eval_model.onnx", parts),
        "logits_model": _logits_model(directory / "logits_model.onnx", parts),
        "optimizer_model": _optimizer_and_checkpoint(directory, request.adapter.reshape(parts.layout.num_layers, -1), request.optimizer),
        **export_gemm(directory),
    }


def _batch_inputs(parts: StepParts, labels: bool) -> list[GraphTensor]:
    t = (parts.seq_len,)
    tensors = [GraphTensor("input_ids", "int64", t, "tokens")]
    if labels:
        tensors.append(GraphTensor("labels", "int64", t, "the token to predict at each position; -100 is not counted"))
    return [
        *tensors,
        GraphTensor("position_ids", "int64", t, "position within the example, from 0"),
        GraphTensor("segment_ids", "int64", t, "which packed example a token belongs to; attention stays within it"),
    ]


def _adapter_tensor(parts: StepParts, name: str, meaning: str) -> GraphTensor:
    return GraphTensor(name, "float32", (parts.layout.num_layers, parts.layout.sizes[0]), meaning)


def _values(tensors: Sequence[GraphTensor]) -> dict[str, ir.Value]:
    return {tensor.name: value(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors}


def _save(
    b: GraphBuilder,
    path: Path,
    tensors: Sequence[GraphTensor],
    inputs: dict[str, ir.Value],
    results: dict[str, ir.Value],
    outputs: Sequence[GraphTensor],
) -> Graph:
    save_model(b, path, list(inputs.values()), {o.name: (results[o.name], o.dtype, o.shape) for o in outputs})
    return Graph(path.name, tuple(tensors), tuple(outputs))


def _training_model(path: Path, parts: StepParts) -> Graph:
    """The contract of the training API: user inputs, parameters, a gradient buffer for each, `lazy_reset_grad`; outputs are
    the loss and one InPlaceAccumulatorV2 a parameter."""
    layers = (parts.layout.num_layers,)
    tensors = [
        *_batch_inputs(parts, labels=True),
        GraphTensor("train", "bool", layers, "layers whose LoRA gradients are computed"),
        GraphTensor("propagate", "bool", layers, "layers whose true Jacobian the gradient passes through; contains train"),
        _adapter_tensor(parts, PARAMETER, "all layers' LoRA matrices; the one trainable parameter"),
        _adapter_tensor(parts, BUFFER, "the accumulated gradient"),
        GraphTensor("lazy_reset_grad", "bool", (1,), "overwrite the accumulated gradient instead of adding"),
    ]
    inputs, b = _values(tensors), GraphBuilder()
    reads = stacked_reads(b, parts, {name: inputs[name] for name in ("position_ids", "segment_ids")})
    h, saved = forward_loop(b, parts, embed(b, parts, inputs["input_ids"]), reads, inputs[PARAMETER], keep=True)
    loss, g = head(b, parts, h, inputs["labels"], gradient=True)
    gradients = backward_loop(b, parts, g, saved, reads, inputs[PARAMETER], inputs["train"], inputs["propagate"])
    accumulated = b.op("InPlaceAccumulatorV2", inputs[BUFFER], gradients, inputs["lazy_reset_grad"], name=ACCUMULATED, domain=MICROSOFT)
    outputs = [
        GraphTensor("loss", "float32", (), "mean cross-entropy over the counted labels"),
        GraphTensor(ACCUMULATED, "bool", (1,), "the gradient was accumulated"),
    ]
    return _save(b, path, tensors, inputs, {"loss": loss, ACCUMULATED: accumulated}, outputs)


def _eval_model(path: Path, parts: StepParts) -> Graph:
    tensors = [*_batch_inputs(parts, labels=True), _adapter_tensor(parts, PARAMETER, "all layers' LoRA matrices")]
    inputs, b = _values(tensors), GraphBuilder()
    reads = stacked_reads(b, parts, {name: inputs[name] for name in ("position_ids", "segment_ids")})
    (h,) = forward_loop(b, parts, embed(b, parts, inputs["input_ids"]), reads, inputs[PARAMETER], keep=False)
    (loss,) = head(b, parts, h, inputs["labels"], gradient=False)
    return _save(
        b, path, tensors, inputs, {"loss": loss}, [GraphTensor("loss", "float32", (), "mean cross-entropy over the counted labels")]
    )


def _logits_model(path: Path, parts: StepParts) -> Graph:
    tensors = [
        *_batch_inputs(parts, labels=False),
        GraphTensor("position", "int64", (1,), "where to predict the next token"),
        _adapter_tensor(parts, PARAMETER, "all layers' LoRA matrices"),
    ]
    inputs, b = _values(tensors), GraphBuilder()
    reads = stacked_reads(b, parts, {name: inputs[name] for name in ("position_ids", "segment_ids")})
    (h,) = forward_loop(b, parts, embed(b, parts, inputs["input_ids"]), reads, inputs[PARAMETER], keep=False)
    logits = next_token_logits(b, parts, h, inputs["position"])
    outputs = [GraphTensor("logits", "float32", (parts.config.vocab_size,), "of the token after `position`")]
    return _save(b, path, tensors, inputs, {"logits": logits}, outputs)


def _optimizer_and_checkpoint(directory: Path, adapter: Float32Array, config: AdamWConfig) -> Graph:
    """Both by onnxruntime's own blocks; what they cannot be told is set afterwards: torch's form of AdamW, the IR version."""
    onnxblock = import_tools()
    logging.getLogger("onnxruntime.training").setLevel(logging.WARNING)
    parameter = onnx.numpy_helper.from_array(adapter, PARAMETER)
    onnxblock.save_checkpoint(([parameter], []), directory / CHECKPOINT_FILE)
    adamw = onnxblock.optim.AdamW(
        betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, clip_grad=onnxblock.optim.ClipGradNorm(config.clip_norm)
    )
    with onnxblock.empty_base(opset_version=OPSET):
        adamw(([parameter], []))
        model = adamw.to_model_proto()
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "adam_mode":
                attribute.i = 0  # torch's: eps after the bias correction, decay before the update
    onnx.save(model, directory / "optimizer_model.onnx")
    sequence = (len(adapter), adapter.shape[1])
    inputs = (
        GraphTensor("learning_rate", "float32", (1,), "of this step"),
        GraphTensor("step", "int64", (1,), "counted from 1"),
        *(
            GraphTensor(name, "float32", sequence, "a sequence of one tensor")
            for name in ("params", "gradients", "first_order_moments", "second_order_moments")
        ),
    )
    return Graph("optimizer_model.onnx", inputs, (GraphTensor(model.graph.output[0].name, "bool", (1,), "the update was made"),))
