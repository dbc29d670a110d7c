"""What a calibration times."""

from __future__ import annotations

from lcsb_mobile.planning.calibration import ONE_LABEL

COMMON = ("embed", "head", ONE_LABEL)


def timed_of(*kinds: str) -> tuple[str, ...]:
    """Of a model with layers of these kinds: four programs of each, and the update of its vector."""
    roles = ("forward", "backward", "forward_keep", "backward_kept")
    return (*COMMON, *(f"{kind}_{role}" for kind in kinds for role in roles), *(f"adamw, {kind}" for kind in kinds))


TIMED = timed_of("block")
