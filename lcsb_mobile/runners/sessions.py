"""How ONNX Runtime's sessions are made, for every target that it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Graph, RuntimeSettings
from lcsb_mobile.bundle.programs import ANY, Tensors, differences
from lcsb_mobile.bundle.weights import WEIGHTS_FILE
from lcsb_mobile.errors import BundleError, MemoryBudgetError
from lcsb_mobile.io.bounded import refused_as, some
from lcsb_mobile.io.onnx_external_data import check_external_data

MOST_INITIAL_BYTES = 2**31 - 1  # that ONNX Runtime's configuration of an arena can hold
TYPES = {"float": "float32", "float16": "float16", "int64": "int64", "uint8": "uint8", "int8": "int8", "bool": "bool"}

_with_arena: list[Any] = []  # the runtimes, one a process, that have their arena


def session_options(ort: Any, settings: RuntimeSettings, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    share_arena(ort, settings.arena.initial_bytes)
    options.add_session_config_entry("session.use_env_allocators", "1")
    for key, entry in settings.session_config.items():
        options.add_session_config_entry(key, entry)
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def share_arena(ort: Any, initial_bytes: int) -> None:
    """One memory arena for all sessions of the process; each with its own holds on to what the others could use (docs/decisions.md).

    ONNX Runtime takes one a process: it is as large as the first bundle says.
    """
    if any(runtime is ort for runtime in _with_arena):
        return
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with refused_as(MemoryBudgetError, f"onnxruntime cannot reserve its arena of {initial_bytes} bytes"):
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, -1, min(initial_bytes, MOST_INITIAL_BYTES), -1))
    _with_arena.append(ort)


def program_path(bundle: Bundle, name: str, external: Sequence[str] | None) -> Path:
    """A program's file, known to take no data but the bundle's weights, and these only in its initializers `external` (None: in any).
    Raises BundleError."""
    graph, weights = bundle.manifest.graphs[name], bundle.path / WEIGHTS_FILE
    check_external_data(bundle.path / graph.file, WEIGHTS_FILE, weights.stat().st_size, external)
    return bundle.path / graph.file


@contextmanager
def in_letters(path: Path) -> Iterator[Path]:
    """The file by a name that the runtime's binding takes: of one that is not UTF-8, or not in the locale's letters, by its open directory.
    (Linux; macOS has no such names.)"""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            yield Path(f"/proc/self/fd/{directory}", path.name)
        finally:
            os.close(directory)
    else:
        yield path


def check_signature(session: Any, graph: Graph, path: Path) -> None:
    """Raises BundleError unless the program takes and returns what the manifest says, by which buffers are made."""
    faults: list[str] = []
    for what, described, found in (("inputs", graph.inputs, session.get_inputs()), ("outputs", graph.outputs, session.get_outputs())):
        faults += differences(what, {x.name: (x.dtype, x.shape) for x in described}, _signature(found))
    if faults:
        raise BundleError(f"{path}: other than the manifest says: {some(faults)}; export the bundle again")


def _signature(tensors: Any) -> Tensors:
    types = {x.name: x.type.removeprefix("tensor(").removesuffix(")") for x in tensors}
    return {x.name: (TYPES.get(types[x.name], x.type), tuple(size if isinstance(size, int) else ANY for size in x.shape)) for x in tensors}
