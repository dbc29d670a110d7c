"""The runtimes that a bundle's steps run on, each in a module of its own that is imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from lcsb_mobile.batch import StepRunner
from lcsb_mobile.bundle import Bundle
from lcsb_mobile.errors import BundleError, MissingDependencyError, OptionError
from lcsb_mobile.optimizer import UpdateLayer, update_layer

RunnerName = Literal["onnxruntime-training", "onnxruntime", "eager"]


def make_runner(
    bundle: Bundle,
    name: RunnerName | None = None,
    threads: int | None = None,
    keep: int = 0,
    between_layers: Callable[[], None] | None = None,
) -> StepRunner:
    """The runner called `name`, or the bundle's target's own. `keep` and `between_layers` are for those with a loop of their own over
    the layers (`onnxruntime`).

    Raises MissingDependencyError when its runtime is not installed, OptionError for a name that is none, BundleError for a bundle
    of another target.
    """
    name = name or bundle.manifest.target  # type: ignore[assignment]
    if threads is not None and threads < 1:
        raise OptionError(f"threads: expected at least 1, found {threads}")
    if keep and name != "onnxruntime":
        raise OptionError(f"keep: expected none with runner {name}, which cannot keep activations, found {keep} layers")
    if name == "onnxruntime-training":
        from lcsb_mobile.runners.onnxruntime_training import OnnxRuntimeTrainingRunner

        return OnnxRuntimeTrainingRunner(bundle, threads)
    if name == "onnxruntime":
        from lcsb_mobile.runners.onnxruntime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(bundle, threads, keep, between_layers or (lambda: None))
    if name == "eager":
        try:
            from lcsb_mobile.compress import weight_table
            from lcsb_mobile.runners import eager
        except ImportError as error:
            raise MissingDependencyError(
                f"the eager runner needs torch ({error}); install it with: pip install 'lcsb_mobile[export]'"
            ) from error
        manifest = bundle.manifest
        if manifest.weights != weight_table(manifest.model, manifest.quantization, manifest.seq_len):
            raise BundleError(f"{bundle.path}: its weights are not those of a {manifest.model.model_type}; export the bundle again")
        return eager.EagerRunner(manifest.model, manifest.adapter, bundle.weights, threads)
    raise OptionError(f"runner: expected one of {', '.join(get_args(RunnerName))}, found {name!r}")


def import_runtime(name: str) -> None:
    """Imports the runtime of a runner or target, so that a process's memory can be seen with it and nothing else."""
    if name == "onnxruntime-training":
        from lcsb_mobile.runners import onnxruntime_training

        onnxruntime_training.import_runtime()
    elif name == "onnxruntime":
        from lcsb_mobile.runners import onnxruntime

        onnxruntime.import_runtime()


def layer_update(runner: StepRunner) -> UpdateLayer:
    """AdamW's update of one layer: the runtime's own program where it has one, else NumPy's. They agree bit for bit,
    but for ONNX Runtime before 1.24, whose square root is off by a rounding or two."""
    update: UpdateLayer = getattr(runner, "update_layer", update_layer)
    return update
