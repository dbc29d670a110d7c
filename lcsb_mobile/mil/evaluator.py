"""A function of a package, evaluated in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lcsb_mobile.errors import BundleError, RuntimeVersionError
from lcsb_mobile.io.bounded import one_line
from lcsb_mobile.mil.operators import LISTS, RULES
from lcsb_mobile.mil.package import Blob, Function, Name, Operand, Operation, Package, TensorType

Values = Mapping[str, np.ndarray]


class Evaluator:
    """Holds no values and no weights between two runs: a weight is decompressed when an operation needs it, and freed with its last use.
    Raises RuntimeVersionError for an operator without a rule."""

    def __init__(self, package: Package, name: str) -> None:
        self.function: Function = package.function(name)
        self._weights, self._where = package.weights, f"{package.path}: function {name}"
        if unknown := dict.fromkeys(x.kind for x in self.function.operations if x.kind not in RULES):
            raise RuntimeVersionError(f"{self._where}: the evaluator has no operator {', '.join(unknown)}; known are {', '.join(RULES)}")
        self._last_uses = _last_uses(self.function)

    def run(self, feeds: Values) -> dict[str, np.ndarray]:
        """Its outputs by name. Raises BundleError for operands that an operator does not take, and results other than the function says."""
        values: dict[str, Any] = {}
        for name, expected in self.function.inputs.items():
            if name not in feeds or (found := _type(feeds[name])) != expected:
                raise BundleError(f"{self._where}: {name}: expected {expected}, found {found if name in feeds else 'nothing'}")
            values[name] = feeds[name]
        with np.errstate(all="ignore"):  # an overflow is infinite, and the loss tells
            for number, operation in enumerate(self.function.operations):
                values.update(self._results(operation, values))
                for name in self._last_uses[number]:
                    del values[name]
        return {name: values[name] for name in self.function.outputs}

    def _results(self, operation: Operation, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        types = tuple(operation.results.values())
        try:
            operands = {name: self._operand(x, values, name in LISTS) for name, x in operation.operands.items()}
            found = RULES[operation.kind](types, **operands)
        except BundleError:
            raise
        except Exception as error:  # whatever NumPy says of operands that do not fit
            raise BundleError(f"{self._where}: {operation.name}: {operation.kind} fails: {one_line(error)}") from error
        parts = found if isinstance(found, (list, tuple)) else [found]
        for part, expected in zip(parts, types, strict=True):
            if expected.dtype != "string" and _type(part) != expected:
                raise BundleError(f"{self._where}: {operation.name}: expected {expected}, found {_type(part)}")
        return dict(zip(operation.results, parts, strict=True))

    def _operand(self, operands: tuple[Operand, ...], values: Mapping[str, Any], several: bool) -> Any:
        found = [self._value(x, values) for x in operands]
        if not several and len(found) != 1:
            raise ValueError(f"expected one operand, found {len(found)}")
        return found if several else found[0]

    def _value(self, operand: Operand, values: Mapping[str, Any]) -> Any:
        if isinstance(operand, Name):
            return values[operand.name]
        return self._weights.read(operand.offset, operand.type.dtype, operand.type.shape) if isinstance(operand, Blob) else operand


def _type(x: np.ndarray) -> TensorType:
    return TensorType(x.dtype.name, x.shape)


def _last_uses(function: Function) -> list[list[str]]:
    """By operation: the values that nothing needs after it."""
    last: dict[str, int] = {}
    for number, operation in enumerate(function.operations):
        last.update(dict.fromkeys(operation.results, number))
        last.update({x.name: number for several in operation.operands.values() for x in several if isinstance(x, Name)})
    uses: list[list[str]] = [[] for _ in function.operations]
    for name, number in last.items():
        if name not in function.outputs:
            uses[number].append(name)
    return uses
