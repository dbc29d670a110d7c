"""`export_bundle`: from a checkpoint to a TrainingBundle, in the direction of the data flow."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import msgspec

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import AdapterLayout, save_adapter, vector_size
from lcsb_mobile.bundle.checks import check_manifest
from lcsb_mobile.bundle.directory import seal, write_bundle
from lcsb_mobile.bundle.export_options import TINY, ExportOptions, TextLosses
from lcsb_mobile.bundle.golden import NO_TRACE, GoldenTrace, write_trace
from lcsb_mobile.bundle.layers import Kind, Layer, StateTensor
from lcsb_mobile.bundle.manifest import ADAPTER_FILE, FORMAT_VERSION, GOLDEN_FILE, Graph, Manifest, RuntimeSettings
from lcsb_mobile.bundle.schedule import Subset, make_schedule
from lcsb_mobile.bundle.weights import WEIGHTS_FILE, MappedWeights, WeightTensor, tile_rows
from lcsb_mobile.config import HALF_PRODUCTS, INT8_ACTIVATIONS, QuantizationConfig
from lcsb_mobile.export.chat_format import write_chat_format
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint, model_name, open_checkpoint
from lcsb_mobile.export.collector import rarely_collected
from lcsb_mobile.export.graphs.blocks import KindGraphs, Setting, capture_blocks, capture_decoding, state_shape
from lcsb_mobile.export.graphs.head import capture_final_norm
from lcsb_mobile.export.graphs.parts import StepParts
from lcsb_mobile.export.models import Model, model_of
from lcsb_mobile.export.option_checks import check_length, check_options
from lcsb_mobile.export.phone_tokenizer import phone_refusal
from lcsb_mobile.export.reference.eager import EagerRunner
from lcsb_mobile.export.rounding import Rounding, plan_rounding
from lcsb_mobile.export.target import ExportRequest, exporter
from lcsb_mobile.export.weights.compress import write_weights
from lcsb_mobile.export.weights.layer_tensors import check_groups, lora_layout
from lcsb_mobile.io.files import check_output
from lcsb_mobile.measuring.memory import MemorySampler, trim_heap
from lcsb_mobile.planning.cost import matrix_parameters
from lcsb_mobile.ranges import NO_CLIPPING
from lcsb_mobile.text.tokenizer import CONFIG_FILE, TOKENIZER_FILE, Tokenizer
from lcsb_mobile.tiny import tiny_checkpoint
from lcsb_mobile.training.golden import golden_batches, record_trace, single_steps

TOOLS = ("lcsb_mobile", "torch", "onnx", "onnx-ir")
LARGE_MODEL = 200_000_000  # parameters in the blocks from which the golden trace is two steps rather than two cycles

Progress = Callable[[str, int, int], None]  # stage, done, total

# As `compress.write_weights`: the file, the model, …, and progress of (done, total) -> the table and each matrix's relative error.
WriteWeights = Callable[
    [Path, Checkpoint, QuantizationConfig, int, Callable[[int, int], None]], tuple[tuple[WeightTensor, ...], dict[str, float]]
]


@dataclass(frozen=True)
class Content:
    """How a bundle's content comes about: its weights, the adapter out of layout and seed, and whether there is a `model` behind it, of
    which losses are measured and a golden trace is recorded."""

    write_weights: WriteWeights = write_weights
    initial_adapter: Callable[[AdapterLayout, int], Float32Array] = AdapterLayout.initial
    model: bool = True


@dataclass(frozen=True)
class ExportReport:
    """`seconds` by stage: read, loss, weights, capture, graphs, trace, seal. `losses`: None where the model has no weights of its own, or
    too few tokens of the calibration text. Bytes: the process's peaks while it exported."""

    bundle: Path
    manifest: Manifest
    losses: TextLosses | None
    seconds: dict[str, float]
    peak_anonymous_bytes: int | None
    peak_rss_bytes: int
    warnings: tuple[str, ...]


def export_bundle(options: ExportOptions, progress: Progress = lambda stage, done, total: None) -> ExportReport:
    """Writes the bundle, whole or not at all.

    Raises OptionError, OutputExistsError, CheckpointError, UnsupportedModelError, TokenizerError, StorageError, or MissingDependencyError
    when the target's exporter needs its runtime and that is not installed.
    """
    return export_model(lambda: open_checkpoint(tiny_checkpoint() if options.model == TINY else Path(options.model)), options, progress)


def export_model(
    open_model: Callable[[], Checkpoint], options: ExportOptions, progress: Progress, content: Content = Content()
) -> ExportReport:
    """`export_bundle` of the model that `open_model` gives."""
    check_options(options)
    if not options.optimizer.clip_norm:
        options = replace(options, optimizer=msgspec.structs.replace(options.optimizer, clip_norm=NO_CLIPPING))
    check_output(options.output, options.force)
    clock = _Clock()
    warnings: list[str] = []
    with MemorySampler() as sampler:
        with clock("read"):
            checkpoint = open_model()
        with checkpoint, write_bundle(options.output, options.force) as directory:
            manifest, losses = _fill(directory, checkpoint, options, clock, progress, content, warnings)
            with clock("seal"):
                manifest = seal(directory, manifest)
                check_manifest(manifest, options.output)  # nothing is exported that no verb opens
    return ExportReport(options.output, manifest, losses, clock.seconds, sampler.peak_anonymous, sampler.peak_rss, tuple(warnings))


def _fill(
    directory: Path,
    checkpoint: Checkpoint,
    options: ExportOptions,
    clock: _Clock,
    progress: Progress,
    content: Content,
    warnings: list[str],
) -> tuple[Manifest, TextLosses | None]:
    config = checkpoint.config
    model = model_of(config)
    exporter(options.target).check_model(model)
    check_groups(model.kinds.values(), options.quantization, options.accuracy_level == INT8_ACTIVATIONS)
    check_length(options.seq_len, config)
    schedule = make_schedule(options.schedule, config.num_hidden_layers)
    layout = lora_layout(model, options.lora)
    adapter = content.initial_adapter(layout, options.seed)
    checkpoint.write_tokenizer(directory)
    tokenizer = Tokenizer.open(directory, config.vocab_size)
    _state_ends(directory / CONFIG_FILE, tokenizer)
    found = (phone_refusal(directory / TOKENIZER_FILE), write_chat_format(directory, tokenizer))
    warnings += [warning for warning in found if warning is not None]
    with clock("loss"):
        rounding = plan_rounding(checkpoint, tokenizer, options) if content.model else Rounding(options.quantization)
    write_content = content.write_weights
    if rounding.calibration is not None or options.programs == "gpu":
        write_content = partial(write_weights, calibration=rounding.calibration, programs=options.programs)
    with clock("weights"):
        table, errors = write_content(
            directory / WEIGHTS_FILE, checkpoint, rounding.quantization, options.seq_len, partial(progress, "weights")
        )
        checkpoint.close()
    graphs, kinds, runtime = _write_graphs(directory, model, options, layout, table, adapter, clock, progress)
    save_adapter(directory / ADAPTER_FILE, layout, adapter, private=False)
    with clock("trace"):
        runner = EagerRunner(model, layout, MappedWeights(directory / WEIGHTS_FILE, table))
        trace = _trace(runner, adapter, options, schedule, tokenizer, table, progress) if content.model else NO_TRACE
        write_trace(directory / GOLDEN_FILE, trace)
    with clock("loss"):
        losses = rounding.losses(runner, adapter)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        target=options.target,
        source=f"{model_name(Path(options.model))}: {checkpoint.description}",
        model=config,
        lora=options.lora,
        kinds=kinds,
        layers=_layers(model, layout),
        quantization=rounding.quantization,
        seq_len=options.seq_len,
        seed=options.seed,
        schedule_config=options.schedule,
        schedule=schedule,
        optimizer=options.optimizer,
        accuracy_level=options.accuracy_level,
        runtime=runtime,
        graphs=graphs,
        weights=table,
        reconstruction_error=errors,
        tools={"python": platform.python_version()} | {name: _version(name) for name in (*TOOLS, *exporter(options.target).TOOLS)},
        files={},
    )
    return manifest, losses


def _state_ends(path: Path, tokenizer: Tokenizer) -> None:
    """Which tokens end a text or a turn, as data: to find out takes a renderer of chat templates, which a phone need not have."""
    settings = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": sorted(tokenizer.end_ids)}
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_graphs(
    directory: Path,
    model: Model,
    options: ExportOptions,
    layout: AdapterLayout,
    table: tuple[WeightTensor, ...],
    adapter: Float32Array,
    clock: _Clock,
    progress: Progress,
) -> tuple[dict[str, Graph], tuple[Kind, ...], RuntimeSettings]:
    """A function of its own, so that the captured graphs are gone when the trace is recorded."""
    config, quantization = model.config, options.quantization
    tiles = options.programs == "cpu"  # a GPU has no kernel that cuts them out of packed weights, nor a cache that they would fit
    tile = tile_rows(config.hidden_size, config.intermediate_size, quantization.group_size) if tiles else None
    setting = Setting(model, options.lora, quantization, options.seq_len, tile)
    with clock("capture"), rarely_collected():
        blocks = capture_blocks(setting)
        norms = capture_final_norm(model, options.seq_len)
    with clock("graphs"), rarely_collected():
        whole = capture_blocks(replace(setting, tile=None)).kinds if options.accuracy_level == INT8_ACTIVATIONS else {}
        int8 = {name: graphs.forward for name, graphs in whole.items()}
        parts = StepParts(layout, quantization, blocks, *norms, table, int8)
        target = exporter(options.target)
        request = ExportRequest(
            directory,
            parts,
            adapter,
            options.optimizer,
            partial(capture_decoding, setting),
            options.accuracy_level == HALF_PRODUCTS,
            options.programs,
            partial(progress, "graphs"),
        )
        graphs = target.export_programs(request)
    kinds = tuple(_kind(kind, options.seq_len) for kind in blocks.kinds.values())
    return graphs, kinds, target.runtime_settings(graphs, options.accuracy_level)


def _kind(graphs: KindGraphs, seq_len: int) -> Kind:
    kind = graphs.kind
    flops, decompressed = graphs.work()
    state = tuple(StateTensor(name, state_shape(kind, name, seq_len), state.by_position) for name, state in kind.states.items())
    return Kind(
        name=kind.name,
        reads=kind.reads,
        takes=kind.takes,
        gives=kind.gives,
        size=vector_size(graphs.matrices),
        matrices=graphs.matrices,
        state=state,
        attention_width=kind.attention_width,
        flops=flops,
        decompressed_bytes=decompressed,
    )


def _layers(model: Model, layout: AdapterLayout) -> tuple[Layer, ...]:
    return tuple(
        Layer(place.kind, number, offset, dict(place.reads), dict(place.takes), dict(place.gives))
        for place, number, offset in zip(model.places, model.numbers, layout.offsets, strict=True)
    )


def _trace(
    runner: EagerRunner,
    adapter: Float32Array,
    options: ExportOptions,
    schedule: tuple[Subset, ...],
    tokenizer: Tokenizer,
    table: tuple[WeightTensor, ...],
    progress: Progress,
) -> GoldenTrace:
    config, group_size = runner.config, options.quantization.group_size
    large = matrix_parameters([tensor for tensor in table if tensor.per_layer], group_size) >= LARGE_MODEL
    cycle = min(len(schedule), options.schedule.subsets)  # a shuffled schedule is written out as many permutations
    run = [schedule[number % len(schedule)] for number in range(2 if large else 2 * max(2, cycle))]
    return record_trace(
        runner,
        adapter,
        runner.layout.slices,
        options.optimizer,
        golden_batches(tokenizer.encode, options.seq_len, 2),
        [] if large else single_steps(config.num_hidden_layers),
        run,
        lambda done, total: progress("trace", done, total),
        options.accuracy_level,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


class _Clock:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        trim_heap()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
