"""The runtimes that a bundle's steps run on, each in a module of its own that is imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

from lcsb_mobile.bundle.batch import StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.errors import MissingDependencyError, OptionError
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.targets import PROVIDERS, REFERENCE, RUNNERS, TARGETS, Provider, RunnerName
from lcsb_mobile.training.optimizer import UpdateLayer, update_layer


class RunnerModule(Protocol):
    """What a runner's module provides. Its runtime is an extra, so it is imported by these functions only."""

    def import_runtime(self) -> Any:
        """Raises MissingDependencyError, with the command that installs it."""
        ...

    def make_runner(self, bundle: Bundle, threads: int | None, keep: int, between_layers: Callable[[], None]) -> StepRunner:
        """`keep` is 0 and `between_layers` is not called where the form is a whole step. Raises BundleError for a bundle that is not of
        the target, MissingDependencyError."""
        ...


def runner_module(name: str) -> RunnerModule:
    """Raises OptionError for a name that is none of RUNNERS, MissingDependencyError for the eager reference without torch."""
    if name not in RUNNERS:
        raise OptionError(f"runner: expected one of {', '.join(RUNNERS)}, found {name!r}")
    try:
        return cast(RunnerModule, importlib.import_module(RUNNERS[name]))
    except ImportError as error:
        if name != REFERENCE:
            raise
        raise MissingDependencyError(f"the eager runner needs torch ({error}); {how_to_install('export')}") from error


def make_runner(
    bundle: Bundle,
    name: RunnerName | None = None,
    threads: int | None = None,
    keep: int = 0,
    between_layers: Callable[[], None] | None = None,
    provider: Provider = "cpu",
) -> StepRunner:
    """The runner called `name`, or the bundle's target's own. `keep` and `between_layers` are for those with a loop of their own over
    the layers (targets in the form of block programs). `provider`: of target `onnxruntime`, for bundles with programs for a GPU.

    Raises MissingDependencyError when its runtime is not installed, OptionError for a name that is none, BundleError for a bundle
    of another target, or without programs for the provider.
    """
    chosen: str = name or bundle.manifest.target
    check_ranges({"threads": threads})
    if keep and not (chosen in TARGETS and TARGETS[chosen].keeps_activations):
        raise OptionError(f"keep: expected none with runner {chosen}, which cannot keep activations, found {keep} layers")
    module = runner_module(chosen)
    if provider != "cpu":
        if provider not in PROVIDERS or name not in (None, bundle.manifest.target):
            expected = f"expected one of cpu, {', '.join(PROVIDERS)}, beside no other runner than the target's own"
            raise OptionError(f"provider: {expected}, found {provider!r} with runner {chosen}")
        module = cast(RunnerModule, importlib.import_module(PROVIDERS[provider]))
    return module.make_runner(bundle, threads, keep, between_layers or (lambda: None))


def import_runtime(name: str) -> None:
    """Imports the runtime of a runner or target, so that a process's memory can be seen with it and nothing else."""
    runner_module(name).import_runtime()


def layer_update(runner: StepRunner) -> UpdateLayer:
    """AdamW's update of one layer: the runtime's own program where it has one, else NumPy's. They agree bit for bit,
    but for ONNX Runtime before 1.24, whose square root is off by a rounding or two."""
    update: UpdateLayer = getattr(runner, "update_layer", update_layer)
    return update
