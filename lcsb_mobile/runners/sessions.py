"""How ONNX Runtime's sessions are made, for every target that it runs."""

from __future__ import annotations

from typing import Any

from lcsb_mobile.manifest import RuntimeSettings

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
    _with_arena.append(ort)
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, -1, initial_bytes, -1))
