"""`inspect`: what is in a bundle and what its steps will cost, from the manifest and the files' sizes, and from a calibration if there
is one. Nothing is run here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.layers import BlockWork, Kind
from lcsb_mobile.bundle.manifest import MANIFEST_FILE, Graph, Manifest
from lcsb_mobile.bundle.programs import Role, layer_function, program_name
from lcsb_mobile.bundle.schedule import ScheduleConfig, Subset
from lcsb_mobile.bundle.weights import WeightTensor, layer_tensor
from lcsb_mobile.config import LoraConfig, QuantizationConfig, Record
from lcsb_mobile.errors import MissingDependencyError
from lcsb_mobile.formatting import layer_ranges
from lcsb_mobile.mil.package import COMPRESSED, Package
from lcsb_mobile.planning.calibration import Calibration, predicted_seconds
from lcsb_mobile.planning.cost import full_subset, matrix_parameters, step_cost, time_share
from lcsb_mobile.planning.memory import kept_bytes, predicted_peak
from lcsb_mobile.targets import MLPACKAGE, TARGETS

EMBEDDING_AND_HEAD = ("embed_tokens.weight", "lm_head.weight")


class ModelSummary(Record, frozen=True):
    """The decoder's shape. `attention_windows`: of each layer type that attends, None where attention sees the whole
    prefix."""

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    attention_windows: tuple[int | None, ...]


class KindSummary(Record, frozen=True):
    """The layers of one kind, and what one of them takes. `parameters`: of its frozen weights, `adapter_parameters`: of its adapter. FLOPs
    of the matrix products by program. Bytes: float weights decompressed in a backward that recomputes, what a forward keeps for a backward
    that does not, what its programs hold while they run; the latter two None for a target without programs by layer."""

    name: str
    layers: str
    parameters: int
    adapter_parameters: int
    flops: BlockWork
    decompressed_bytes: int
    kept_bytes: int | None
    working_bytes: int | None


class WeightSummary(Record, frozen=True):
    """Frozen weights as stored. `nbytes`: packed values, scales, norms and biases. `bytes_per_parameter`: of all of them."""

    parameters: int
    nbytes: int
    bytes_per_parameter: float


class StepSummary(Record, frozen=True):
    """One step of the cycle, or the mean over it, nothing kept. Layers as ranges, such as "0–3, 7". FLOPs of the matrix products, all
    labels counted; shares are of a full step; `time_share` is predicted (`planning.cost`). `decompressed_bytes`: of float32 weights.
    `predicted_peak_bytes` as in Inspection, of a run of this step alone, or of the whole cycle. `seconds`: predicted by a calibration.
    """

    name: str
    train: str
    propagate: str
    flops: float
    flops_share: float
    time_share: float
    decompressed_bytes: float
    predicted_peak_bytes: int
    seconds: float | None


class KeepSummary(Record, frozen=True):
    """The cycle with the activations of the `keep` top layers kept: means of its steps, in shares of a full step that keeps nothing."""

    keep: int
    flops_share: float
    time_share: float
    predicted_peak_bytes: int
    seconds: float | None


class FunctionSummary(Record, frozen=True):
    """A program in a package of Core ML. `functions`: how many it is, one a layer where it is a layer's. Of one of them: the operations
    that run, and the decompressions of weights."""

    program: str
    functions: int
    operations: int
    decompressions: int


class Inspection(Record, frozen=True):
    """What `lcsb inspect --json` prints. Sizes in bytes.

    `reconstruction_error`: ‖W - Ŵ‖ / ‖W‖ by matrix, averaged over the layers. `cycle_steps`: steps of one cycle, of which `steps`
    holds the distinct ones. `predicted_peak_bytes`: anonymous memory beyond what the process occupies once its runtime is imported, an
    estimate that is mostly high (`planning.plan`). `keeping`: by how many layers keep their
    activations; empty for a target that cannot. `calibration`: what the predicted seconds rest on, None where nothing was run.
    `functions`: of a package of Core ML; empty where there is none, or nothing to read it with.
    """

    path: str
    source: str
    target: str
    model: ModelSummary
    kinds: tuple[KindSummary, ...]
    blocks: WeightSummary
    embedding_and_head: WeightSummary
    quantization: QuantizationConfig
    reconstruction_error: dict[str, float]
    lora: LoraConfig
    adapter_parameters: int
    seq_len: int
    schedule: ScheduleConfig
    cycle_steps: int
    steps: tuple[StepSummary, ...]
    cycle_mean: StepSummary
    full: StepSummary
    predicted_peak_bytes: int
    keeping: tuple[KeepSummary, ...]
    calibration: Calibration | None
    file_sizes: dict[str, int]
    graphs: dict[str, Graph]
    tools: dict[str, str]
    functions: tuple[FunctionSummary, ...]


def inspect_bundle(bundle: Bundle, calibration: Calibration | None = None) -> Inspection:
    """Describes an open bundle, with predicted seconds if its programs were timed (`calibration.calibrate_bundle`)."""
    manifest = bundle.manifest
    distinct = list(dict.fromkeys(manifest.schedule))
    summaries = {subset: _step(manifest, subset, f"step {number}", calibration) for number, subset in enumerate(distinct, start=1)}
    return Inspection(
        path=str(bundle.path),
        source=manifest.source,
        target=manifest.target,
        model=_model(manifest),
        kinds=tuple(_kind(manifest, kind) for kind in manifest.kinds),
        blocks=_weights(manifest, [tensor for tensor in manifest.weights if tensor.per_layer]),
        embedding_and_head=_weights(manifest, [tensor for tensor in manifest.weights if tensor.name.startswith(EMBEDDING_AND_HEAD)]),
        quantization=manifest.quantization,
        reconstruction_error=manifest.reconstruction_error,
        lora=manifest.lora,
        adapter_parameters=manifest.adapter.size,
        seq_len=manifest.seq_len,
        schedule=manifest.schedule_config,
        cycle_steps=len(manifest.schedule),
        steps=tuple(summaries.values()),
        cycle_mean=_mean(manifest, [summaries[subset] for subset in manifest.schedule]),
        full=_step(manifest, full_subset(manifest), "full", calibration),
        predicted_peak_bytes=predicted_peak(manifest, manifest.schedule, 0, 0),
        keeping=_keeping(manifest, calibration),
        calibration=calibration,
        file_sizes={name: entry.size for name, entry in manifest.files.items()}
        | {MANIFEST_FILE: (bundle.path / MANIFEST_FILE).stat().st_size},
        graphs=manifest.graphs,
        tools=manifest.tools,
        functions=_functions(bundle) if manifest.target == "coreml" else (),
    )


def _functions(bundle: Bundle) -> tuple[FunctionSummary, ...]:
    try:
        package = Package(bundle.path / MLPACKAGE)
    except MissingDependencyError:
        return ()
    layers = [layer.kind for layer in bundle.manifest.layers]
    firsts = {
        program_name(kind.name, role): (layers.index(kind.name), layers.count(kind.name))
        for kind in bundle.manifest.kinds
        for role in get_args(Role)
    }
    summaries = []
    for name in bundle.manifest.graphs:
        first, count = firsts.get(name, (None, 1))
        operations = package.function(name if first is None else layer_function(name, first)).operations
        running = sum(x.kind not in ("const", COMPRESSED) for x in operations)
        summaries.append(FunctionSummary(name, count, running, sum(x.decompresses for x in operations)))
    return tuple(summaries)


def _model(manifest: Manifest) -> ModelSummary:
    model = manifest.model
    return ModelSummary(
        model_type=model.model_type,
        layers=model.num_hidden_layers,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        attention_heads=model.num_attention_heads,
        key_value_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        vocab_size=model.vocab_size,
        tied=model.tie_word_embeddings,
        attention_windows=tuple(kind.window for kind in model.attention_kinds.values()),
    )


def _kind(manifest: Manifest, kind: Kind) -> KindSummary:
    layers = [number for number, layer in enumerate(manifest.layers) if layer.kind == kind.name]
    own = [tensor for tensor in manifest.weights if tensor.name.startswith(layer_tensor(kind.name, ""))]
    programs = [manifest.graphs.get(program_name(kind.name, role)) for role in ("forward", "backward", "forward_keep", "backward_kept")]
    known = [program.working_bytes or 0 for program in programs if program is not None]
    return KindSummary(
        name=kind.name,
        layers=layer_ranges(layers),
        parameters=_weights(manifest, own).parameters // len(layers),
        adapter_parameters=kind.size,
        flops=kind.flops,
        decompressed_bytes=kind.decompressed_bytes.backward,
        kept_bytes=kept_bytes(manifest, kind.name) if known else None,
        working_bytes=max(known) if known else None,
    )


def _weights(manifest: Manifest, tensors: Sequence[WeightTensor]) -> WeightSummary:
    vectors = [tensor for tensor in tensors if not tensor.name.endswith((".packed", ".scale"))]
    parameters = matrix_parameters(tensors, manifest.quantization.group_size) + sum(math.prod(tensor.shape) for tensor in vectors)
    nbytes = sum(tensor.nbytes for tensor in tensors)
    return WeightSummary(parameters, nbytes, nbytes / parameters)


def _step(manifest: Manifest, subset: Subset, name: str, calibration: Calibration | None) -> StepSummary:
    cost, full = step_cost(manifest, subset), step_cost(manifest, full_subset(manifest))
    return StepSummary(
        name=name,
        train=layer_ranges(subset.train),
        propagate=layer_ranges(subset.propagate),
        flops=cost.flops,
        flops_share=cost.flops / full.flops,
        time_share=time_share(manifest, subset),
        decompressed_bytes=cost.decompressed_bytes,
        predicted_peak_bytes=predicted_peak(manifest, [subset], 0, 0),
        seconds=predicted_seconds(manifest, calibration, subset) if calibration else None,
    )


def _mean(manifest: Manifest, steps: Sequence[StepSummary]) -> StepSummary:
    means = {field: _over(steps, field) for field in ("flops", "flops_share", "time_share", "decompressed_bytes")}
    peak = predicted_peak(manifest, manifest.schedule, 0, 0)
    seconds = _over(steps, "seconds") if steps[0].seconds is not None else None
    return StepSummary(name="mean of the cycle", train="", propagate="", predicted_peak_bytes=peak, seconds=seconds, **means)


def _over(steps: Sequence[StepSummary], field: str) -> float:
    return math.fsum(getattr(step, field) for step in steps) / len(steps)


def _keeping(manifest: Manifest, calibration: Calibration | None) -> tuple[KeepSummary, ...]:
    """With no layer kept, a quarter, half and all of them."""
    if not TARGETS[manifest.target].keeps_activations:
        return ()
    layers, steps = manifest.model.num_hidden_layers, manifest.schedule
    full = step_cost(manifest, full_subset(manifest)).flops
    return tuple(
        KeepSummary(
            keep=keep,
            flops_share=math.fsum(step_cost(manifest, subset, keep=keep).flops for subset in steps) / len(steps) / full,
            time_share=math.fsum(time_share(manifest, subset, keep) for subset in steps) / len(steps),
            predicted_peak_bytes=predicted_peak(manifest, steps, keep, 0),
            seconds=math.fsum(predicted_seconds(manifest, calibration, subset, keep) for subset in steps) / len(steps)
            if calibration
            else None,
        )
        for keep in dict.fromkeys((0, math.ceil(layers / 4), math.ceil(layers / 2), layers))
    )
