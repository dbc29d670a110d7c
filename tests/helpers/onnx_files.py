"""What stands in an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from helpers.onnxruntime_bundles import Exported
from helpers.tiny_models import TinyModel


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """With those of loops and branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and constants, everywhere."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_tensors(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def load(case: Exported, file: str) -> onnx.ModelProto:
    return onnx.load(case.bundle.path / file, load_external_data=False)


def matrix_sizes(model: TinyModel) -> set[int]:
    return {t.shape[1] * t.shape[2] * model.quantization.group_size for t in model.table if t.per_layer and t.name.endswith(".packed")}
