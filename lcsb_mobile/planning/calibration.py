"""A short calibration: how long each program of a step takes on this machine, and what any step will take by it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.layers import Kind
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.programs import UPDATE, Role, program_name
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import Record
from lcsb_mobile.errors import OptionError
from lcsb_mobile.planning.cost import backward_layers
from lcsb_mobile.runners import make_runner
from lcsb_mobile.runners.block_programs import BlockPrograms
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.heads import make_head
from lcsb_mobile.targets import TARGETS, targets_of

LAYER_PROGRAMS: tuple[Role, ...] = ("forward", "backward", "forward_keep", "backward_kept")
ONE_LABEL = "head, one label"  # beside the head with all labels: what it costs whatever is counted
REPEATS, ENOUGH_SECONDS = 5, 0.2  # a program is run so often, or until it has taken so long
ANY = 0.01  # of every float input: a program's time does not depend on its values


class Calibration(Record, frozen=True):
    """`seconds`: program -> median seconds of one run, on the weights of one layer of its kind. The head with all T labels counted, and
    with one. The update of a layer by its kind: "adamw, KIND"."""

    seconds: dict[str, float]


def calibrate_bundle(bundle: Bundle, threads: int | None = None) -> Calibration:
    """Raises OptionError for a target that has no block programs, MissingDependencyError where its runtime is not installed."""
    timed = [name for name in targets_of("block programs") if not TARGETS[name].evaluated]
    if bundle.manifest.target not in timed:
        raise OptionError(
            f"calibrate: needs a bundle of target {' or '.join(timed)}, whose programs can be timed one by one, found "
            f"{bundle.manifest.target}"
        )
    return calibrate(cast(BlockRunner, make_runner(bundle, threads=threads)).programs)


def calibrate(programs: BlockPrograms) -> Calibration:
    """Runs every program of a step once to warm up and a few times more, on the first layer of each kind: a second or two at 0.5B."""
    manifest = programs.manifest
    tokens, kinds = manifest.seq_len, [layer.kind for layer in manifest.layers]
    seconds = {"embed": _program_seconds(programs, "embed"), "head": _loss_seconds(programs, tokens)}
    for kind in manifest.kinds:
        first = kinds.index(kind.name)
        names = [program_name(kind.name, role) for role in LAYER_PROGRAMS]
        seconds |= {name: _program_seconds(programs, name, first) for name in names}
        seconds[_update(kind.name)] = _update_seconds(programs, kind)
    return Calibration(seconds | {ONE_LABEL: _loss_seconds(programs, 1)})


def _update(kind: str) -> str:
    return f"{UPDATE}, {kind}"


def predicted_seconds(
    manifest: Manifest, calibration: Calibration, subset: Subset, keep: int = 0, counted_labels: int | None = None
) -> float:
    """Of a step and its optimizer; arguments and errors as in `cost.step_cost`. Reading weights from the disk and the loop itself, both
    little, are left out."""
    seconds, kinds = calibration.seconds, [layer.kind for layer in manifest.layers]
    recomputed, kept = backward_layers(manifest, subset, keep)
    updated = range(len(kinds)) if manifest.optimizer.implicit_updates == "momentum" else subset.train
    roles: list[tuple[Role, Iterable[int]]] = [("forward", sorted(set(range(len(kinds))) - set(kept))), ("backward", recomputed)]
    roles += [("forward_keep", kept), ("backward_kept", kept)]
    return (
        seconds["embed"]
        + _head_seconds(manifest, calibration, counted_labels)
        + sum(seconds[program_name(kinds[layer], role)] for role, layers in roles for layer in layers)
        + sum(seconds[_update(kinds[layer])] for layer in updated)
    )


def _head_seconds(manifest: Manifest, calibration: Calibration, counted_labels: int | None) -> float:
    """A line through the two that were measured: decompression costs the same for any number of labels, products grow with it."""
    tokens = manifest.seq_len
    counted = tokens if counted_labels is None else counted_labels
    if not 0 <= counted <= tokens:
        raise OptionError(f"counted labels: expected 0 to {tokens} (the tokens of a sequence), found {counted}")
    one, every = calibration.seconds[ONE_LABEL], calibration.seconds["head"]
    return max(one, one + (every - one) * (counted - 1) / max(1, tokens - 1))


def _program_seconds(programs: BlockPrograms, program: str, layer: int = 0) -> float:
    graph = programs.manifest.graphs[program]
    feeds = {x.name: np.full(x.shape, 0 if x.dtype in ("int64", "int32") else ANY, x.dtype) for x in graph.inputs if x.weight is None}
    outputs = programs.new_outputs(program)
    return _median_seconds(lambda: programs.run(program, feeds, outputs, layer))


def _loss_seconds(programs: BlockPrograms, counted: int) -> float:
    """Of the head, whose programs are the target's own affair."""
    h, g = np.full(programs.hidden, ANY, np.float32), np.empty(programs.hidden, np.float32)
    labels = np.where(np.arange(len(h)) < counted, 0, IGNORED_LABEL)
    head = make_head(programs)
    return _median_seconds(lambda: head.loss(h, labels, g))


def _update_seconds(programs: BlockPrograms, kind: Kind) -> float:
    state = ("parameters", "first_moment", "second_moment")
    vectors, scalars = (*state, "gradient"), ("decay", "rate", "root")
    feeds = {name: np.full(kind.size, ANY, np.float32) for name in vectors} | {name: np.full((), ANY, np.float32) for name in scalars}
    outputs = {f"{name}_next": np.empty(kind.size, np.float32) for name in state}
    return _median_seconds(lambda: programs.update(kind.name, feeds, outputs))


def _median_seconds(run: Callable[[], object]) -> float:
    run()
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
