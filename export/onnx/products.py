"""Two matrix products alone, as programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.export.onnx.graph_builder import GraphBuilder, save_model, value


def export_gemm(directory: Path) -> dict[str, Graph]:
    """Two matrix products alone: with them a device measures its own speed at the model's shapes. A free dimension is -1."""
    written = {}
    for name, transposed, shapes, meaning in (
        ("gemm", 1, (("m", "k"), ("n", "k"), ("m", "n")), "a bᵀ, a forward's product with a weight"),
        ("gemm_backward", 0, (("m", "n"), ("n", "k"), ("m", "k")), "a b, a backward's product with a weight"),
    ):
        b = GraphBuilder()
        feeds = [value(name, "float32", shape) for name, shape in zip("ab", shapes)]
        outputs: dict[str, Any] = {"y": (b.op("Gemm", *feeds, transB=transposed), "float32", shapes[2])}
        save_model(b, directory / f"{name}.onnx", feeds, outputs)
        left, right, result = (
            GraphTensor(name, "float32", (-1, -1), f"[{', '.join(shape)}]{what}")
            for name, shape, what in zip("aby", shapes, ("", "", f": {meaning}"))
        )
        written[name] = Graph(f"{name}.onnx", (left, right), (result,))
    return written
