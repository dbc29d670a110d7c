"""`verify`: is the bundle whole, and does a runtime compute what the reference computed?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.golden import read_trace
from lcsb_mobile.config import Record
from lcsb_mobile.runners import layer_update, make_runner
from lcsb_mobile.targets import Provider
from lcsb_mobile.training.golden import check_trace, check_update, compare_run_losses, compare_runners


class VerifyResult(Record, frozen=True):
    """`manifest_digest`: whether the manifest states one of its own, which was right then. The largest relative differences to the golden
    trace; `eager` ones are between the target's runtime and torch, one step of every subset. `official_run_loss`: the run by the training
    API's own Module and Optimizer (none where implicit updates are off)."""

    bundle: str
    files: int
    manifest_digest: bool
    runtime: str
    runtime_version: str
    steps: int
    step_loss: float
    step_gradient_norm: float
    step_tolerance: float
    run_tolerance: float
    run_loss: float
    official_run_loss: float | None
    eager_loss: float | None
    eager_gradient: float | None


def verify(
    path: Path,
    eager: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    provider: Provider = "cpu",
) -> VerifyResult:
    """Opens the bundle, which checks every file's SHA-256, then runs the golden trace on the target's runtime.

    Raises BundleError, IntegrityError, MissingDependencyError or GoldenTraceError, and as `make_runner` does.
    """
    bundle = Bundle.open(path)
    manifest, trace, adapter = bundle.manifest, read_trace(bundle.golden_path), bundle.initial_adapter()
    runner = make_runner(bundle, threads=threads, provider=provider)
    difference = check_trace(runner, trace, adapter, manifest.adapter.slices, manifest.optimizer, progress)
    check_update(runner.name, layer_update(runner), manifest.adapter.sizes, manifest.optimizer)
    official = None
    # A runtime with an optimizer of its own; that one knows no layers, so it cannot leave one alone.
    official_losses = getattr(runner, "official_losses", None)
    if official_losses is not None and manifest.optimizer.implicit_updates == "momentum":
        batches = [trace.batches[step.batch].batch() for step in trace.run]
        losses = official_losses([step.subset for step in trace.run], batches, trace.learning_rate)
        official = compare_run_losses("the training API's own loop", trace, losses)
    compared = None
    if eager:
        compared = compare_runners(runner, make_runner(bundle, "eager", threads), manifest.schedule, trace, adapter)
    return VerifyResult(
        bundle=str(path),
        files=len(manifest.files),
        manifest_digest=manifest.digest is not None,
        runtime=runner.name,
        runtime_version=runner.version,
        steps=difference.steps,
        step_loss=difference.step_loss,
        step_gradient_norm=difference.step_gradient_norm,
        step_tolerance=trace.step_tolerance,
        run_tolerance=trace.run_tolerance,
        run_loss=difference.run_loss,
        official_run_loss=official,
        eager_loss=compared[0] if compared else None,
        eager_gradient=compared[1] if compared else None,
    )
