"""What XNNPACK is given to compute: all that its delegate takes, and three conversions that its serializer knows and its partitioner does
not offer. They are made by stock runtimes: the phone's binary needs nothing.

Packed weights become floats inside the delegate, where they are split into nibbles, exactly (`lowering.decompressed`); so they never
exist as floats in the program's own memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lcsb_mobile.export.executorch.tracing import values_are_known

BYTES = (torch.uint8, torch.int8)
HALF = (torch.float16, torch.float32)


# Of the delegate's own passes those that find something in these programs. Each traces a program anew, so the others cost a third of the
# time; and one of them takes a conversion of dtype for a copy that changes nothing.
PASSES = (
    "XNNPACKRemoveCloneOpsTransform",
    "DimOrderOpsRevertPass",
    "ConvertToLinearPass",
    "DecomposeConcatenate",
)


def partitioner(entered: Callable[[], None]) -> Any:
    """`entered` is called once for each graph that is partitioned."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.generic_node_configs import DeQuantizedPerTensorConfig, ToDimOrderCopyConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.graph_module import get_control_flow_submodules

    class BytesToFloat(DeQuantizedPerTensorConfig):  # type: ignore[misc]
        """Of any tensor, not only beside an operator that computes in integers."""

        def supported_precision_types(self) -> list[Any]:
            return [ConfigPrecisionType.FP32]

        def check_constraints(self, node: Node, ep: Any) -> bool:
            return node.all_input_nodes[0].meta["val"].dtype in BYTES

    class HalfToFloat(ToDimOrderCopyConfig):  # type: ignore[misc]
        """A conversion of dtype, which the partitioner leaves to a kernel that runs on one thread."""

        def check_constraints(self, node: Node, ep: Any) -> bool:
            return (node.all_input_nodes[0].meta["val"].dtype, node.meta["val"].dtype) == HALF

    class Partitioner(XnnpackPartitioner):  # type: ignore[misc]
        def partition(self, exported_program: Any) -> Any:
            """With the bodies of loops, which the stock partitioner leaves to the runtime's own kernels."""
            entered()
            result = super().partition(exported_program)
            for name, body, _ in get_control_flow_submodules(exported_program.graph_module):
                for part in self.generate_partitions(_Inside(exported_program, body)):
                    tag = f"{name}_{part.id}"
                    result.partition_tags[tag] = self.delegation_spec
                    for node in part.nodes:
                        node.meta["delegation_tag"] = tag
            return result

    _teach_backend()
    configs = [config for config in ALL_PARTITIONER_CONFIGS if config not in (DeQuantizedPerTensorConfig, ToDimOrderCopyConfig)]
    return Partitioner(
        configs=[*configs, BytesToFloat, HalfToFloat],
        config_precisions=ConfigPrecisionType.FP32,
        force_non_static_weights_for_f32_linear=True,
    )


class _Inside:
    """A program, by the graph of one of its loops."""

    def __init__(self, program: Any, body: GraphModule) -> None:
        self.program, self.graph_module = program, body

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)


@functools.cache
def _teach_backend() -> None:
    """The serializer writes every tensor of bytes as signed, and no conversion of float16; the runtime's compiler reads both."""
    from executorch.backends.xnnpack._passes import XNNPACKPassManager
    from executorch.backends.xnnpack.operators import node_visitor
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNConvert, XNNDatatype, XNode
    from executorch.backends.xnnpack.utils.utils import get_input_node

    serialized_dtype = node_visitor.NodeVisitor.get_serialized_dtype
    copies_layout: Any = node_visitor._node_visitor_dict["aten._to_copy.default"]

    def get_serialized_dtype(self: Any, quant_params: Any, node: Node, force_fp32: bool = False) -> Any:
        unsigned = quant_params is not None and quant_params.dtype == torch.uint8
        if unsigned and not quant_params.is_dynamic and not quant_params.per_channel:
            return XNNDatatype.xnn_datatype_quint8
        return serialized_dtype(self, quant_params, node, force_fp32)

    class Converts(copies_layout):  # type: ignore[misc]
        target = "aten._to_copy.default"

        def define_node(self, node: Node, xnn_graph: Any, vals_to_ids: dict[Node, int], debug_handle: int) -> None:
            source = get_input_node(node, 0)
            if source.meta["val"].dtype == node.meta["val"].dtype:
                super().define_node(node, xnn_graph, vals_to_ids, debug_handle)
                return
            self.define_nodes_tensor_inputs_outputs(node, xnn_graph, vals_to_ids)
            converted = XNNConvert(input_id=vals_to_ids[source], output_id=vals_to_ids[node], flags=0)
            xnn_graph.xnodes.append(XNode(xnode_union=converted, debug_handle=debug_handle))

    def select_passes(self: Any, exported_program: Any, passes: Any = None) -> None:
        all_passes(self, exported_program, passes)
        values_are_known(exported_program.graph_module)
        self.passes = [each for each in self.passes if each.__name__ in PASSES]

    all_passes = XNNPACKPassManager.__init__
    XNNPACKPassManager.__init__ = select_passes
    node_visitor.NodeVisitor.get_serialized_dtype = get_serialized_dtype
    node_visitor.register_node_visitor(Converts)
