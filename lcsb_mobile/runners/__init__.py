"""The runtimes that a bundle's steps run on, each in a module of its own that is imported only when asked for."""

from __future__ import annotations

from typing import Literal, get_args

from lcsb_mobile.batch import StepRunner
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.errors import MissingDependencyError, OptionError

RunnerName = Literal["onnxruntime-training", "onnxruntime", "eager"]


def make_runner(bundle: Bundle, name: RunnerName | None = None, threads: int | None = None) -> StepRunner:
    """The runner called `name`, or the bundle's target's own.

    Raises MissingDependencyError when its runtime is not installed, OptionError for a name that is none.
    """
    name = name or bundle.manifest.target  # type: ignore[assignment]
    if threads is not None and threads < 1:
        raise OptionError(f"threads: expected at least 1, found {threads}")
    if name == "onnxruntime-training":
        from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner

        return OnnxRuntimeTrainingRunner(bundle, threads)
    if name == "onnxruntime":
        from lcsb_mobile.runners.onnxruntime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(bundle, threads)
    if name == "eager":
        try:
            from lcsb_mobile.runners import eager
        except ImportError as error:
            raise MissingDependencyError(
                f"the eager runner needs torch ({error}); install it with: pip install 'lcsb_mobile[export]'"
            ) from error
        return eager.EagerRunner(bundle.manifest.model, bundle.manifest.adapter, bundle.weights, threads)
    raise OptionError(f"runner: expected one of {', '.join(get_args(RunnerName))}, found {name!r}")
