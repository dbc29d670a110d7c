"""The targets, one row each.

A new target is a row here, an exporter (`export/to_NAME.py`, an `export.target.Exporter`) and a runner (`runners/NAME.py`, a
`runners.RunnerModule`). Everything else asks the row. Rows name modules as text, so that neither half is imported before it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lcsb_mobile.errors import OptionError

Target = Literal["onnxruntime", "executorch", "onnxruntime-training", "coreai", "coreml"]

# "block programs": small programs with weights as inputs, which a loop of the host runs over the layers. So a run may keep
# activations, pause between two layers, and time each program. "whole step": one program computes a step.
Form = Literal["block programs", "whole step"]

CHECKPOINT_FILE = "checkpoint"  # of target onnxruntime-training
PTE_FILE = "programs.pte"  # of target executorch: all programs, as methods
AIMODEL = "programs.aimodel"  # of target coreai: a directory, all programs as functions
MIL_DATA = "Data/com.apple.CoreML"  # of it: where its model and weights lie
MLPACKAGE = "programs.mlpackage"  # of target coreml: a directory, all programs as functions, and their weights


@dataclass(frozen=True)
class TargetRow:
    """`exporter`, `runner`: names of modules. `files`, `programs`: what a bundle has besides the files of every bundle and the programs of
    its form. `shared_file`: the one file of all programs, where each has none of its own. `measures_products`: it has the programs `gemm`
    and `gemm_backward`. `imports_torch`: the runtime does so by itself, which a report of its memory says. `profiles_operators`: the runner
    takes `profile`, a directory for the runtime's own profiles. `int8_activations`: a forward may round its activations
    (`accuracy_level`). `half_products`: products may be computed in float16 (`compute`). `gpu_programs`: they may be written for a GPU
    (`programs`).

    `static_shapes`: every dimension is known, none is missing and integers are int32, as accelerators want it: AdamW is a program of each
    kind, scalars are [1], and the head is straight-line programs that the host calls chunk by chunk. `holds_weights`: they are constants
    of the programs, a layer's programs are functions of their own (`layer_function`), and there is no `weights.bin`. `stands_in`:
    what runs it on a desktop where a phone has something else, which is said of every run. `evaluated`: that is an evaluator in NumPy: it
    trains, but nothing is timed with it."""

    name: Target
    exporter: str
    runner: str
    form: Form
    files: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    shared_file: str | None = None
    measures_products: bool = True
    imports_torch: bool = False
    profiles_operators: bool = False
    int8_activations: bool = False
    half_products: bool = False
    gpu_programs: bool = False
    static_shapes: bool = False
    holds_weights: bool = False
    stands_in: str = ""
    evaluated: bool = False

    def program_file(self, name: str) -> str:
        return self.shared_file or f"{name}.onnx"

    @property
    def keeps_activations(self) -> bool:
        return self.form == "block programs"


TARGETS: dict[str, TargetRow] = {  # a test holds it to Target
    row.name: row
    for row in (
        TargetRow(
            "onnxruntime",
            exporter="lcsb_mobile.export.to_onnxruntime",
            runner="lcsb_mobile.runners.onnxruntime",
            form="block programs",
            profiles_operators=True,
            int8_activations=True,
            gpu_programs=True,
        ),
        TargetRow(
            "executorch",
            exporter="lcsb_mobile.export.to_executorch",
            runner="lcsb_mobile.runners.executorch",
            form="block programs",
            shared_file=PTE_FILE,
            measures_products=False,
            imports_torch=True,
        ),
        TargetRow(
            "coreai",
            exporter="lcsb_mobile.export.to_coreai",
            runner="lcsb_mobile.runners.coreai",
            form="block programs",
            files=(f"{AIMODEL}/main.hash", f"{AIMODEL}/metadata.json"),
            shared_file=f"{AIMODEL}/main.mlirb",
            measures_products=False,
            half_products=True,
            static_shapes=True,
            stands_in="Core AI's desktop build, which has no accelerator and is slow",
        ),
        TargetRow(
            "coreml",
            exporter="lcsb_mobile.export.to_coreml",
            runner="lcsb_mobile.runners.coreml",
            form="block programs",
            files=(f"{MLPACKAGE}/Manifest.json", f"{MLPACKAGE}/{MIL_DATA}/weights/weight.bin"),
            shared_file=f"{MLPACKAGE}/{MIL_DATA}/model.mlmodel",
            measures_products=False,
            half_products=True,
            static_shapes=True,
            holds_weights=True,
            stands_in="an evaluator in NumPy, which is slow",
            evaluated=True,
        ),
        TargetRow(
            "onnxruntime-training",
            exporter="lcsb_mobile.export.to_onnxruntime_training",
            runner="lcsb_mobile.runners.onnxruntime_training",
            form="whole step",
            files=(CHECKPOINT_FILE,),
            programs=("optimizer_model",),
            imports_torch=True,
        ),
    )
}

# What a user may name; a test holds it to RUNNERS.
RunnerName = Literal["onnxruntime", "executorch", "onnxruntime-training", "coreai", "coreml", "eager"]
REFERENCE: RunnerName = "eager"
RUNNERS = {name: row.runner for name, row in TARGETS.items()} | {REFERENCE: "lcsb_mobile.export.reference.eager"}

Provider = Literal["cpu", "webgpu"]  # what runs the programs of the layers, of a bundle with programs for a GPU
PROVIDERS = {"webgpu": "lcsb_mobile.runners.webgpu"}  # beside a target's own runner


def target_row(name: str) -> TargetRow:
    """Raises OptionError for a target that is none."""
    if name not in TARGETS:
        raise OptionError(f"target: expected one of {', '.join(TARGETS)}, found {name!r}")
    return TARGETS[name]


def targets_of(form: Form) -> list[str]:
    return [name for name, row in TARGETS.items() if row.form == form]
