"""One Core AI asset of many functions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from lcsb_mobile.bundle.manifest import GraphTensor
from lcsb_mobile.bundle.programs import plain_name

Build = Callable[[dict[str, Any]], Sequence[Any]]  # inputs by name -> the outputs


class AssetWriter:
    """Functions are added one by one; on saving, all are rewritten by the compiler's own passes at once."""

    def __init__(self) -> None:
        from coreai import authoring

        self.ai: Any = authoring
        self.module = self.ai.Module.create()
        self._building = ExitStack()
        self._building.enter_context(self.module)

    def add(self, name: str, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor], build: Build) -> None:
        def body(*values: Any) -> tuple[Any, ...]:
            return tuple(build({x.name: value for x, value in zip(inputs, values)}))

        body.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(plain_name(x.name), inspect.Parameter.POSITIONAL_OR_KEYWORD) for x in inputs]
        )
        body.__annotations__ = {
            plain_name(x.name): Annotated[self.ai.Value, self.ai.TensorType(x.shape, np.dtype(x.dtype).type)] for x in inputs
        }
        results = tuple(
            Annotated[self.ai.Value, self.ai.TensorType(x.shape, np.dtype(x.dtype).type, name=plain_name(x.name))] for x in outputs
        )
        body.__annotations__["return"] = tuple[results]  # type: ignore[valid-type]
        self.ai.graph(body, provided_name=name)

    def save(self, path: Path) -> None:
        self._building.close()
        self.ai.AIProgram(self.module).save_asset(path)
        # An export is the same bytes again: without its time, and in one order.
        metadata = path / "metadata.json"
        entries = {key: value for key, value in json.loads(metadata.read_text()).items() if key != "creationDate"}
        metadata.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
