"""What ONNX Runtime is told when it loads a bundle's programs."""

from __future__ import annotations

from collections.abc import Mapping

from lcsb_mobile.bundle.manifest import Arena, Graph, RuntimeSettings
from lcsb_mobile.config import AccuracyLevel

# Found by measurement (docs/decisions.md): without the first entry, ONNX Runtime gives each consumer of a decompressed weight a
# decompression of its own; without the second, the threads of a program that has ended spin on while the next one needs the cores;
# one chunk large enough for all that a step needs keeps the arena from growing in pieces.
SETTINGS = RuntimeSettings(
    session_config={"session.disable_quant_qdq": "1", "session.force_spinning_stop": "1"}, arena=Arena(initial_bytes=256 * 2**20)
)
# KleidiAI, ONNX Runtime's default on ARM64, rounds activations by token where every other kernel does by group of 32.
INT8_SETTINGS = RuntimeSettings(session_config=SETTINGS.session_config | {"mlas.disable_kleidiai": "1"}, arena=SETTINGS.arena)


def runtime_settings(graphs: Mapping[str, Graph], accuracy_level: AccuracyLevel) -> RuntimeSettings:
    """The settings for these programs: the arena's first chunk has room for twice the largest working set, so that it is the only one."""
    settings = INT8_SETTINGS if accuracy_level else SETTINGS
    largest = max(graph.working_bytes or 0 for graph in graphs.values())
    return RuntimeSettings(settings.session_config, Arena(max(settings.arena.initial_bytes, 2 * largest)))
