"""An inspection as Rich tables, readable at 100 columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from lcsb_mobile.bundle.manifest import Graph, GraphTensor
from lcsb_mobile.bundle.programs import Role, program_name
from lcsb_mobile.bundle.weights import LAYERS
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.planning.inspection import Inspection, KeepSummary, StepSummary, WeightSummary
from lcsb_mobile.targets import MLPACKAGE


def render(inspection: Inspection) -> RenderableType:
    """Facts, kinds of layers where there are several, the cycle, what keeping activations changes, files, graphs, one below the other."""
    kinds = [_kinds(inspection)] if len(inspection.kinds) > 1 else []
    keeping = [_keeping(inspection)] if inspection.keeping else []
    functions = [_functions(inspection)] if inspection.functions else []
    return Group(_facts(inspection), *kinds, _steps(inspection), *keeping, _files(inspection), *functions, _graphs(inspection))


def _facts(inspection: Inspection) -> Table:
    model, quantization, lora, schedule = inspection.model, inspection.quantization, inspection.lora, inspection.schedule
    heads = f"{model.attention_heads} heads of {model.head_dim}, {model.key_value_heads} key-value heads"
    windows = dict.fromkeys(model.attention_windows)  # several layer types may have one
    embedding = "embedding and head in one" if model.tied else "embedding and head apart"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=inspection.path, title_justify="left", title_style="bold")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in {
        "Source": inspection.source,
        "Target": inspection.target,
        "Model": f"{model.model_type}, {model.layers} layers, hidden {model.hidden_size:,}, FFN {model.intermediate_size:,}, {heads}",
        "Attention": "; ".join("whole prefix" if window is None else f"window of {window}" for window in windows),
        "Vocabulary": f"{model.vocab_size:,} tokens, {embedding}",
        "Blocks": f"int{quantization.bits}, groups of {quantization.group_size}: {_weights(inspection.blocks)}",
        "Embedding": f"int{quantization.embedding_bits}, groups of {quantization.group_size}: {_weights(inspection.embedding_and_head)}",
        "Error": _errors(inspection.reconstruction_error),
        "Adapter": f"LoRA, rank {lora.rank}, alpha {lora.alpha:g}: {inspection.adapter_parameters:,} parameters",
        "Sequence": f"{inspection.seq_len} tokens",
        "Schedule": f"{schedule.method}, {schedule.order}, {inspection.cycle_steps} steps a cycle",
        "Peak memory": _peak(inspection.predicted_peak_bytes),
        "Tools": ", ".join(f"{name} {version}" for name, version in inspection.tools.items()),
    }.items():
        table.add_row(label, text)
    return table


def _weights(weights: WeightSummary) -> str:
    return f"{weights.parameters / 1e6:,.1f} M parameters, {megabytes(weights.nbytes)}, {weights.bytes_per_parameter:.3f} bytes a parameter"


def _errors(errors: dict[str, float]) -> str:
    """By matrix, its path left out: the last part of a projection's name is unique, within its kind of layers where there are several."""
    parts = {name: name.removesuffix(".weight").split(".") for name in errors}
    several = len({part[1] for name, part in parts.items() if name.startswith(LAYERS)}) > 1
    short = {f"{p[1]} {p[-1]}" if several and n.startswith(LAYERS) else p[-1]: errors[n] for n, p in parts.items()}
    return ", ".join(f"{name} {error:.2%}" for name, error in short.items()) or "not recorded"


def _peak(nbytes: int | None) -> str:
    return "not known of this target" if nbytes is None else f"{megabytes(nbytes)} predicted beyond the process with its runtime imported"


def _kinds(inspection: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Kinds of layers, and what one of them takes", title_justify="left", title_style="bold")
    table.add_column("kind", no_wrap=True)
    table.add_column("layers", overflow="fold", max_width=30)
    for column in ("weights", "adapter", "GFLOP forward", "backward", "kept", "working set", *_seconds_column(inspection)):
        table.add_column(column, justify="right", no_wrap=True)
    for kind in inspection.kinds:
        sizes = ("–" if size is None else megabytes(size) for size in (kind.kept_bytes, kind.working_bytes))
        flops = (f"{work / 1e9:,.1f}" for work in (kind.flops.forward, kind.flops.backward))
        seconds = _seconds(_layer_seconds(inspection, kind.name))
        table.add_row(kind.name, kind.layers, f"{kind.parameters / 1e6:,.1f} M", f"{kind.adapter_parameters:,}", *flops, *sizes, *seconds)
    return table


def _layer_seconds(inspection: Inspection, kind: str) -> float | None:
    """Forward and backward of a layer."""
    if inspection.calibration is None:
        return None
    roles: tuple[Role, ...] = ("forward", "backward")
    return sum(inspection.calibration.seconds[program_name(kind, role)] for role in roles)


def _steps(inspection: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Steps of the cycle", title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("step", overflow="fold")
    for column in ("trains", "passes through"):
        table.add_column(column, overflow="fold", max_width=24)
    for column in ("GFLOP", "of full", "time", "unpacked", "peak", *_seconds_column(inspection)):
        table.add_column(column, justify="right", no_wrap=True)
    for step in (*inspection.steps, inspection.cycle_mean, inspection.full):
        table.add_row(*_step(step), style=None if step in inspection.steps else "bold")
    return table


def _step(step: StepSummary) -> tuple[str, ...]:
    shares = (f"{step.flops_share:.0%}", f"{step.time_share:.0%}")
    peak = megabytes(step.predicted_peak_bytes)
    unpacked = megabytes(round(step.decompressed_bytes))
    return step.name, step.train, step.propagate, f"{step.flops / 1e9:,.1f}", *shares, unpacked, peak, *_seconds(step.seconds)


def _keeping(inspection: Inspection) -> Table:
    """What is kept is not recomputed: fewer operations, more memory."""
    title = "Mean of the cycle, by how many of the top layers keep their activations"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1))
    for column in ("kept", "FLOPs of full", "time", "peak", *_seconds_column(inspection)):
        table.add_column(column, justify="right", no_wrap=True)
    for summary in inspection.keeping:
        table.add_row(*_keep(summary))
    return table


def _keep(summary: KeepSummary) -> tuple[str, ...]:
    shares = (f"{summary.flops_share:.0%}", f"{summary.time_share:.0%}")
    return str(summary.keep), *shares, megabytes(summary.predicted_peak_bytes), *_seconds(summary.seconds)


def _seconds_column(inspection: Inspection) -> tuple[str, ...]:
    return ("seconds",) if inspection.calibration else ()


def _seconds(seconds: float | None) -> tuple[str, ...]:
    return () if seconds is None else (f"{seconds:.3g}",)


def _files(inspection: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Files", title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    for name, size in sorted(inspection.file_sizes.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{size:,}")
    table.add_row("all", f"{sum(inspection.file_sizes.values()):,}", style="bold")
    return table


def _functions(inspection: Inspection) -> Table:
    """Of a package of Core ML, whose files are among the others."""
    size = megabytes(sum(size for name, size in inspection.file_sizes.items() if name.startswith(MLPACKAGE)))
    title = f"Functions of {MLPACKAGE}, {size}: one for each layer where it is a layer's program"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("program", no_wrap=True)
    for column in ("functions", "operations each", "weights decompressed"):
        table.add_column(column, justify="right", no_wrap=True)
    for x in inspection.functions:
        table.add_row(x.program, *(f"{count:,}" for count in (x.functions, x.operations, x.decompressions)))
    table.add_row("all", f"{sum(x.functions for x in inspection.functions):,}", style="bold")
    return table


def _graphs(inspection: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Graphs", title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("graph", no_wrap=True)
    for column in ("inputs", "outputs"):
        table.add_column(column, overflow="fold")
    for name, graph in inspection.graphs.items():
        table.add_row(name, *_tensors(graph))
    return table


def _tensors(graph: Graph) -> tuple[str, str]:
    def listed(tensors: tuple[GraphTensor, ...]) -> str:
        return "\n".join(f"{tensor.name} {tensor.dtype}{list(tensor.shape)}" for tensor in tensors)

    return listed(graph.inputs), listed(graph.outputs)
