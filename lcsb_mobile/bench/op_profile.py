"""What ONNX Runtime's profiles say of decompression: the nodes whose names begin with DECOMPRESSION, also within a Loop's body."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from lcsb_mobile.bundle.manifest import DECOMPRESSION

KERNEL = "_kernel_time"  # what the name of a node's event ends with
RUN = "model_run"  # the name of a whole run's event


class ProfileEvent(msgspec.Struct):
    """Of the fields of an event those that are read. `dur`: microseconds."""

    name: str
    dur: int = 0

    @property
    def decompresses(self) -> bool:
        return self.name.startswith(f"{DECOMPRESSION}.") and self.name.endswith(KERNEL)


def read_profile(path: Path) -> list[ProfileEvent]:
    return msgspec.json.decode(path.read_bytes(), type=list[ProfileEvent])


def run_seconds(events: Sequence[ProfileEvent]) -> float:
    return sum(event.dur for event in events if event.name == RUN) / 1e6


def decompression_seconds(events: Sequence[ProfileEvent]) -> float:
    return sum(event.dur for event in events if event.decompresses) / 1e6
