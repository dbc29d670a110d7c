"""Building ONNX graphs with nested subgraphs, on onnx_ir."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from lcsb_mobile.bundle.weights import WEIGHTS_FILE, WeightTensor

OPSET = 21
IR_VERSION = 10  # the newest that ONNX Runtime 1.19.2 reads
MICROSOFT = "com.microsoft"

DTYPES = {
    "bool": ir.DataType.BOOL,
    "int64": ir.DataType.INT64,
    "uint8": ir.DataType.UINT8,
    "int8": ir.DataType.INT8,
    "float16": ir.DataType.FLOAT16,
    "float32": ir.DataType.FLOAT,
}


def value(name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
    """A typed graph input or output; a str dimension is symbolic."""
    return ir.Value(name=name, type=ir.TensorType(DTYPES[dtype]), shape=ir.Shape(list(shape)))


class GraphBuilder:
    """Collects the nodes of one graph. Subgraphs share the root's constants, its weights and its counter of names.

    Every node and value has a name unique in the whole model: ONNX Runtime 1.19.2 breaks on two unnamed nodes in one fusion.
    """

    def __init__(self, parent: GraphBuilder | None = None, weights_as_inputs: bool = False) -> None:
        self.nodes: list[ir.Node] = []
        self.root: GraphBuilder = parent.root if parent else self
        self.initializers: dict[Any, ir.Value] = {}
        self.weight_inputs: dict[str, ir.Value] | None = {} if weights_as_inputs else None
        self.counter = 0
        self.label = ""

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Nodes made within are named `label.…`: a profile of the model tells what they are for."""
        before, self.label = self.label, f"{label}."
        yield
        self.label = before

    def subgraph(self) -> GraphBuilder:
        return GraphBuilder(self)

    def op(self, kind: str, *inputs: ir.Value | None, name: str | None = None, domain: str = "", **attributes: Any) -> ir.Value:
        """A node with one output."""
        return self.ops(kind, *inputs, names=(name,), domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: ir.Value | None, names: Sequence[str | None], domain: str = "", **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """A node with an output for each of `names` (None: named by the counter)."""
        self.root.counter += 1
        label = f"{self.label}{kind}_{self.root.counter}"
        outputs = [ir.Value(name=name or f"{label}_out{i}") for i, name in enumerate(names)]
        attrs = [ir.AttrGraph(k, v) if isinstance(v, ir.Graph) else ir.convenience.convert_attribute(k, v) for k, v in attributes.items()]
        self.nodes.append(ir.Node(domain, kind, inputs, attrs, outputs=outputs, name=label))
        return tuple(outputs)

    def const(self, array: npt.ArrayLike, dtype: npt.DTypeLike) -> ir.Value:
        """A constant, held once in the root graph however often it is asked for."""
        data = np.asarray(array, dtype)
        key = (data.dtype.str, data.shape, data.tobytes())
        if key not in self.root.initializers:
            name = f"const_{len(self.root.initializers)}"
            self.root.initializers[key] = _initializer(name, ir.tensor(data, name=name))
        return self.root.initializers[key]

    def ints(self, *values: int) -> ir.Value:
        return self.const(values, np.int64)

    def scalar(self, number: float) -> ir.Value:
        return self.const(number, np.float32)

    def weight(self, tensor: WeightTensor) -> ir.Value:
        """A tensor of `weights.bin`: an initializer in that file, which must lie beside the model and is mapped, or, with
        `weights_as_inputs`, an input of the root graph that the host feeds."""
        if self.root.weight_inputs is not None:
            return self.root.weight_inputs.setdefault(tensor.name, value(tensor.name, tensor.dtype, tensor.shape))
        return self._external(tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.nbytes)

    def layer_weight(self, name: str, tensor: WeightTensor) -> ir.Value:
        """The first layer's slice of a stacked tensor as an initializer; the host puts each layer's own in its place
        (`SessionOptions.add_external_initializers`)."""
        return self._external(name, tensor.dtype, tensor.shape[1:], tensor.offset, tensor.nbytes // tensor.shape[0])

    def _external(self, name: str, dtype: str, shape: Sequence[int], offset: int, size: int) -> ir.Value:
        if name not in self.root.initializers:
            external = ir.ExternalTensor(WEIGHTS_FILE, offset, size, DTYPES[dtype], shape=ir.Shape(shape), name=name)
            self.root.initializers[name] = _initializer(name, external)
        return self.root.initializers[name]

    def graph(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Graph:
        """This builder's nodes as a subgraph (a Loop's body or an If's branch)."""
        return ir.Graph(inputs, outputs, nodes=self.nodes, name=name)

    def loop(self, trips: ir.Value, carried: Sequence[ir.Value], body: ir.Graph, scans: int) -> tuple[ir.Value, ...]:
        """A counted Loop: the final carried values, then the scan outputs stacked along a new first dimension."""
        return self.ops("Loop", trips, None, *carried, names=[None] * (len(carried) + scans), body=body)

    def condition(self, test: ir.Value, then: ir.Graph, otherwise: ir.Graph, outputs: int) -> tuple[ir.Value, ...]:
        return self.ops("If", test, names=[None] * outputs, then_branch=then, else_branch=otherwise)


def loop_body(
    b: GraphBuilder,
    name: str,
    iteration: ir.Value,
    carried_in: Sequence[ir.Value],
    carried_out: Sequence[ir.Value],
    scans: Sequence[ir.Value],
) -> ir.Graph:
    """The body of `GraphBuilder.loop`; it never ends early. A value that is merely passed on gets a node of its own."""
    keep_going = value(f"{name}_condition", "bool", ())
    outputs = [b.op("Identity", v) for v in (keep_going, *carried_out, *scans)]
    return b.graph(name, (iteration, keep_going, *carried_in), outputs)


def _initializer(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)


def _output(b: GraphBuilder, name: str, result: ir.Value, dtype: str, shape: Sequence[int | str]) -> ir.Value:
    """The value under its output's name; one that is not a node's own, or is another output already, through a node of its own."""
    if result.name != name and (result.producer() is None or result.type is not None):
        result = b.op("Identity", result, name=name)
    result.name, result.type, result.shape = name, ir.TensorType(DTYPES[dtype]), ir.Shape(list(shape))
    return result


def save_model(
    b: GraphBuilder, path: Path, inputs: Sequence[ir.Value], outputs: Mapping[str, tuple[ir.Value, str, Sequence[int | str]]]
) -> None:
    """Writes the model. `outputs`: name -> (value, dtype, shape). Nodes that nothing uses are removed from every subgraph:
    one decompression left in a loop's body would run at each of its iterations. The first output's node is written last: ONNX
    Runtime walks back from the last node first, so all that leads to this output is run before what only others need."""
    results = [_output(b, name, *output) for name, output in outputs.items()]
    opsets = {"": OPSET, MICROSOFT: 1}
    graph = ir.Graph(inputs, results, nodes=b.nodes, initializers=list(b.initializers.values()), opset_imports=opsets, name=path.stem)
    graph.sort()
    if (last := results[0].producer()) is not None and last is not graph[-1]:
        graph.remove(last)
        graph.append(last)
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="lcsb_mobile")
    RemoveUnusedNodesPass()(model)
    ir.save(model, path)
