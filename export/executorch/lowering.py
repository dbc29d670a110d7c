"""Captured graphs in operators that XNNPACK's delegate takes, and that the runtime's own kernels compute where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators of quantisation
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from lcsb_mobile.export.graphs.captured import CapturedGraph, op_name
from lcsb_mobile.export.graphs.order import sorted_module

# Of two tensors whose shapes may differ: there an operand need not be expanded.
BROADCASTING = {"mul", "add", "sub", "div", "where", "maximum"}


def decompressed(packed: Tensor, scale: Tensor) -> Tensor:
    """W float32 [N, K] of `packed` uint8 [N, K/G, G/2] or int8 [N, K/G, G] and `scale` float16 [N, K/G] (`weights.quantization`), exactly.

    Of a byte 16 h + l the delegate makes y = (16 h + l - 128) / 16 = (h - 8) + l / 16, of which floor takes the high nibble; there are no
    shifts of bytes in it. All values but the last product are small multiples of 1/16, so nothing is rounded.
    """
    to_float = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    s = scale.float().unsqueeze(-1)
    if packed.dtype == torch.int8:
        floats: Tensor = to_float(packed, 1.0, 0, -128, 127, torch.int8)
        return (floats * s).flatten(1)
    y = to_float(packed, 1 / 16, 128, 0, 255, torch.uint8)
    high = torch.floor(y)
    low = (y - high - 0.5) * (s * 16)
    return torch.cat([low, high * s], -1).flatten(1)


class Captured(torch.nn.Module):
    """A captured graph as a module: its inputs but `consts` in order -> its results."""

    def __init__(self, captured: CapturedGraph, consts: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.inputs = tuple(name for name in captured.inputs if name not in consts)
        self.names, self.module = captured.inputs, sorted_module(captured)
        self.held = {name: f"const_{number}" for number, name in enumerate(captured.inputs) if name in consts}
        for name, buffer in self.held.items():
            self.register_buffer(buffer, consts[name])

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        fed = dict(zip(self.inputs, args)) | {name: getattr(self, buffer) for name, buffer in self.held.items()}
        result: tuple[Tensor, ...] = _Rewriting(self.module).run(*(fed[name] for name in self.names))
        return result


def _sums_rows(node: Node) -> bool:
    """A mean or sum over the last dimension, which stays."""
    if op_name(node) not in ("mean", "sum") or len(node.args) < 3 or not node.args[2]:
        return False
    return list(node.args[1]) in ([-1], [node.args[0].meta["val"].dim() - 1])  # type: ignore[arg-type,union-attr]


def _is_transpose(node: Any) -> bool:
    return isinstance(node, Node) and op_name(node) == "permute" and list(node.args[1]) == [1, 0]  # type: ignore[arg-type]


def _has_whole_operand(node: Node) -> bool:
    whole = [x for x in node.all_input_nodes if op_name(x) != "expand" and x.meta["val"].shape == node.meta["val"].shape]
    return op_name(node) in BROADCASTING and bool(whole)


class _Rewriting(Interpreter):
    """Runs the graph under a trace, node by node, with the rules below in place of operators."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)

    def run_node(self, n: Node) -> Any:
        rule = RULES.get(op_name(n)) if n.op == "call_function" else None
        result = NotImplemented if rule is None else rule(self, n)
        return super().run_node(n) if result is NotImplemented else result

    def value(self, x: Any) -> Any:
        return self.env[x] if isinstance(x, Node) else x

    def decompress(self, n: Node) -> Tensor:
        packed, scale = (self.value(x) for x in n.args)
        return decompressed(packed, scale)

    def as_it_is(self, n: Node) -> Any:
        return self.value(n.args[0])

    def reshape(self, n: Node) -> Tensor:
        """A view in the captured graph may be of a clone, which is not made where it need not be."""
        result: Tensor = self.value(n.args[0]).reshape(n.args[1])
        return result

    def permute(self, n: Node) -> Any:
        """Two transposes that cancel, as autograd leaves them."""
        inner = n.args[0]
        return self.value(inner.args[0]) if _is_transpose(n) and _is_transpose(inner) else NotImplemented  # type: ignore[union-attr]

    def reduce(self, n: Node) -> Any:
        """As a product with ones, which is delegated and runs on all threads."""
        if not _sums_rows(n):
            return NotImplemented
        x = self.value(n.args[0])
        width = x.shape[-1]
        total = (x.reshape(-1, width) @ torch.ones(width, 1)).view(*x.shape[:-1], 1)
        return total * (1.0 / width) if op_name(n) == "mean" else total

    def power(self, n: Node) -> Any:
        x, exponent = self.value(n.args[0]), n.args[1]
        return x * x if exponent == 2 else x * x * x if exponent == 3 else NotImplemented

    def scalar(self, n: Node) -> Any:
        """A product with a number as one of tensors; the partitioner refuses the other form."""
        if not isinstance(n.args[1], (int, float)) or not self.value(n.args[0]).is_floating_point():
            return NotImplemented
        x, y = self.value(n.args[0]), float(n.args[1])
        return x * (y if op_name(n) == "mul" else 1.0 / y)

    def expand(self, n: Node) -> Any:
        """Left out where every user broadcasts it against an operand that has the whole shape."""
        return self.value(n.args[0]) if all(_has_whole_operand(user) for user in n.users) else NotImplemented

    def split(self, n: Node) -> list[Tensor]:
        x, sizes, axis = self.value(n.args[0]), n.args[1], n.args[2] if len(n.args) > 2 else 0
        starts = [sum(sizes[:number]) for number in range(len(sizes))]  # type: ignore[arg-type,index]
        return [x.narrow(axis, start, size) for start, size in zip(starts, sizes)]  # type: ignore[arg-type]


RULES: dict[str, Callable[[_Rewriting, Node], Any]] = {
    "dequantize_int4": _Rewriting.decompress,
    "dequantize_int8": _Rewriting.decompress,
    "computed_once": _Rewriting.as_it_is,
    "alias": _Rewriting.as_it_is,
    "clone": _Rewriting.as_it_is,
    "view": _Rewriting.reshape,
    "permute": _Rewriting.permute,
    "mean": _Rewriting.reduce,
    "sum": _Rewriting.reduce,
    "pow": _Rewriting.power,
    "mul": _Rewriting.scalar,
    "div": _Rewriting.scalar,
    "expand": _Rewriting.expand,
    "split_with_sizes": _Rewriting.split,
}
