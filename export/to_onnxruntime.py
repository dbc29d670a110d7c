"""Block programs for any maintained ONNX Runtime: small ONNX models whose weights are inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from lcsb_mobile.bundle.adapter import vector_size
from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.programs import ANY, Role, program_name
from lcsb_mobile.export.block_programs import BlockProgramWriter, Tensors
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.graphs.tables import TableGraph
from lcsb_mobile.export.models.kinds import BlockKind
from lcsb_mobile.export.onnx import gpu_ends
from lcsb_mobile.export.onnx.graph_builder import DTYPES, GraphBuilder, save_model, value
from lcsb_mobile.export.onnx.lowering import lower
from lcsb_mobile.export.onnx.products import export_gemm
from lcsb_mobile.export.onnx.settings import runtime_settings
from lcsb_mobile.export.onnx.step_graph import const_feeds, embed, final_norm, head, row_logits, tables
from lcsb_mobile.export.onnx.working_set import working_bytes
from lcsb_mobile.export.target import ExportRequest, any_kinds

__all__ = ["TOOLS", "check_model", "export_programs", "import_tools", "runtime_settings"]

TOOLS: tuple[str, ...] = ()
check_model = any_kinds

INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level

Build = Callable[[GraphBuilder, Mapping[str, ir.Value]], Sequence[ir.Value]]


def import_tools() -> None:
    """Nothing but what this module imports."""


def export_programs(request: ExportRequest) -> dict[str, Graph]:
    """Writes the programs beside `weights.bin`. Returns the description of each, by its file's stem."""
    return _Writer(request).write() | export_gemm(request.directory)


class _Writer(BlockProgramWriter):
    """A file a program, written at once; `written` describes those that are done."""

    def __init__(self, request: ExportRequest) -> None:
        super().__init__(request)
        self.written: dict[str, Graph] = {}
        self.on_gpu = request.programs == "gpu"

    def embedding(self, name: str, inputs: Tensors, outputs: Tensors, graph: TableGraph) -> None:
        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
            made = (gpu_ends.token_tables if self.on_gpu else tables)(b, self.parts, graph, feeds)
            return [embed(b, self.parts, feeds["input_ids"]), *made.values()]

        self.save(name, inputs, outputs, build)

    def block(self, kind: BlockKind, role: Role, captured: CapturedGraph, inputs: Tensors, outputs: Tensors) -> None:
        if role == "forward" and kind.name in self.parts.int8_forward:
            self.int8_forward(kind, self.parts.int8_forward[kind.name], inputs, outputs)
            return
        halves = {x.name for x in inputs if x.dtype == "float16" and x.weight is None}

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> list[ir.Value]:
            wide = {name: b.op("Cast", x, to=DTYPES["float32"].value) if name in halves else x for name, x in feeds.items()}
            results = lower(b, captured, {**wide, **const_feeds(b, captured, kind.consts)}, programs=self.request.programs)
            return [b.op("Cast", r, to=DTYPES["float16"].value) if o.dtype == "float16" else r for r, o in zip(results, outputs)]

        self.save(program_name(kind.name, role), inputs, outputs, build)

    def int8_forward(self, kind: BlockKind, captured: CapturedGraph, inputs: Tensors, outputs: Tensors) -> None:
        """A forward whose matrices are constants: without them ONNX Runtime computes in float whatever level is asked for."""
        stacks = {w.name: w for w in self.parts.table}
        fed = [x for x in inputs if x.weight is None or not x.name.endswith((".packed", ".scale"))]
        constant = [x for x in inputs if x not in fed]

        def build(b: GraphBuilder, feeds: Mapping[str, ir.Value]) -> Sequence[ir.Value]:
            matrices = {x.name: b.layer_weight(x.name, stacks[str(x.weight)]) for x in constant}
            return lower(b, captured, {**feeds, **matrices, **const_feeds(b, captured, kind.consts)}, INT8_ACTIVATIONS)

        self.save(program_name(kind.name, "forward"), fed, outputs, build, constant)

    def head(self, name: str, inputs: Tensors, outputs: Tensors, gradient: bool) -> None:
        build = gpu_ends.head if self.on_gpu else head
        self.save(name, inputs, outputs, lambda b, feeds: build(b, self.parts, feeds["h"], feeds["labels"], gradient))

    def logits(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        build = gpu_ends.row_logits if self.on_gpu else row_logits
        self.save(name, inputs, outputs, lambda b, feeds: [build(b, self.parts, final_norm(b, self.parts, feeds["h"]))])

    def update(self, name: str, inputs: Tensors, outputs: Tensors) -> None:
        """The same bits as `optimizer.update_layer` where the runtime rounds its square root correctly."""
        config = self.request.optimizer

        def build(b: GraphBuilder, x: Mapping[str, ir.Value]) -> list[ir.Value]:
            beta1, beta2 = config.betas
            gradient = x["gradient"]
            first = b.op("Add", b.op("Mul", x["first_moment"], b.scalar(beta1)), b.op("Mul", gradient, b.scalar(1 - beta1)))
            square = b.op("Mul", b.op("Mul", gradient, gradient), b.scalar(1 - beta2))
            second = b.op("Add", b.op("Mul", x["second_moment"], b.scalar(beta2)), square)
            denominator = b.op("Add", b.op("Div", b.op("Sqrt", second), x["root"]), b.scalar(config.eps))
            update = b.op("Mul", b.op("Div", first, denominator), x["rate"])
            return [b.op("Sub", b.op("Mul", x["parameters"], x["decay"]), update), first, second]

        sizes = [vector_size(matrices) for matrices in self.parts.layout.matrices.values()]
        self.save(name, inputs, outputs, build, free=max(sizes))

    def finish(self) -> dict[str, Graph]:
        return self.written

    def save(self, name: str, inputs: Tensors, outputs: Tensors, build: Build, initializers: Tensors = (), free: int | None = None) -> None:
        """`free`: the largest size that a dimension has which the program leaves open."""
        b = GraphBuilder(weights_as_inputs=True)
        feeds = {x.name: value(x.name, x.dtype, _open(x.shape)) for x in inputs}
        results = build(b, feeds)
        whole = [w for w in self.parts.table if w.name in (b.weight_inputs or {})]
        values = [*feeds.values(), *(b.weight(w) for w in whole)]
        path = self.request.directory / f"{name}.onnx"
        save_model(b, path, values, {o.name: (r, o.dtype, _open(o.shape)) for o, r in zip(outputs, results, strict=True)})
        described = (*inputs, *(GraphTensor(w.name, w.dtype, w.shape, "the whole tensor", w.name) for w in whole))
        self.written[name] = Graph(path.name, described, tuple(outputs), tuple(initializers), working_bytes(path, free))


def _open(shape: Sequence[int]) -> list[int | str]:
    """Free dimensions by a name."""
    return ["n" if size == ANY else size for size in shape]
