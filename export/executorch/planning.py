"""Where a program's values lie: results in the program's memory, inputs where the host has them."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule


def planning_pass() -> Any:
    """Of ExecuTorch, but that what a loop's body is given from outside has no memory of its own: the stock pass makes room for all
    of it, the whole vocabulary too, which nothing uses."""
    from executorch.exir.graph_module import get_scan_submodules
    from executorch.exir.memory_planning import MemoryPlanningAlgorithmSuite
    from executorch.exir.passes import MemoryPlanningPass

    class Planning(MemoryPlanningPass):  # type: ignore[misc]
        def __init__(self) -> None:
            self.given: set[int] = set()
            # Planned inputs would be copied; outputs without a plan crash C++'s Module::execute, and Android's binding never sets them.
            super().__init__(self.plan, alloc_graph_input=False, alloc_graph_output=True)
            self.suite = MemoryPlanningAlgorithmSuite()

        def run(self, graph_module: GraphModule, graph_signature: Any = None) -> Any:
            for _, body, scan in get_scan_submodules(graph_module):
                carried, sliced = len(scan.args[1]), len(scan.args[2])
                inputs = [node for node in body.graph.nodes if node.op == "placeholder"]
                self.given |= {id(node.meta["spec"]) for node in (*inputs[:carried], *inputs[carried + sliced :])}
            return super().run(graph_module, graph_signature)

        def plan(self, alignment: int, specs: Any, graph_module: GraphModule, graph_signature: Any, extra_padding: int) -> list[int]:
            needed = type(specs)(spec for spec in specs if id(spec) not in self.given)
            sizes: list[int] = self.suite(alignment, needed, graph_module, graph_signature, extra_padding)
            return sizes

    return Planning()
