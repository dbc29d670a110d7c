"""Captured graphs as ONNX files, and running them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor

from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.lowering import lower


def write(captured: CapturedGraph, path: Path) -> onnx.ModelProto:
    """The captured graph alone as a model, its inputs and outputs by their names."""
    b = GraphBuilder()
    inputs = {
        name: value(name, dtype(node.meta["val"]), node.meta["val"].shape)
        for name, node in zip(captured.inputs, captured.placeholders, strict=True)
    }
    outputs = lower(b, captured, inputs)
    results = [node.meta["val"] for node in captured.results]
    named = {name: (out, dtype(val), val.shape) for name, out, val in zip(captured.outputs, outputs, results, strict=True)}
    save_model(b, path, list(inputs.values()), named)
    return onnx.load(path)


def dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def run_file(path: Path, feeds: Mapping[str, Tensor]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, {i.name: feeds[i.name].numpy() for i in session.get_inputs()})
    return results
