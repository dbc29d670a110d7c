"""The HTML report of a simulated run."""

from __future__ import annotations

from pathlib import Path

from lcsb_mobile.data.dataset import doubled_ends_line
from lcsb_mobile.formatting import layer_ranges, megabytes
from lcsb_mobile.report.page import write_report
from lcsb_mobile.report.record import RunReport, StepRecord
from lcsb_mobile.runs.numbers import evaluated_line, trained_line
from lcsb_mobile.runs.session import EVALUATING, STEPS
from lcsb_mobile.runs.simulate import SimulateResult, Simulation
from lcsb_mobile.targets import TARGETS


def write_run_report(path: Path, simulation: Simulation) -> None:
    """Writes the page, replacing the file whole. Raises StorageError."""
    write_report(path, run_report(simulation))


def run_report(simulation: Simulation) -> RunReport:
    run = simulation.run
    return RunReport(
        title=f"Fine-tune of {run.bundle.manifest.source.split(':')[0]}",
        facts=_facts(simulation),
        num_layers=run.bundle.manifest.model.num_hidden_layers,
        steps=[
            StepRecord(o.step, o.loss, o.learning_rate, o.gradient_seconds + o.optimizer_seconds, o.subset.train, o.gradient_norm, memory)
            for o, memory in zip(run.outcomes, run.memory, strict=True)
        ],
        evaluations=run.evaluations,
        memory_timeline=simulation.memory_timeline,
        memory_budget=run.options.memory_budget,
        phase_seconds=_phases(simulation),
        samples=run.samples,
        notes=_notes(simulation),
    )


def _phases(simulation: Simulation) -> dict[str, float]:
    """Of the last process. What of a step is forward pass and loss is taken from the evaluations."""
    run, seconds = simulation.run, dict(simulation.result.phase_seconds)
    begun = run.resumed_from
    passes = len([step for step, _ in run.evaluations if begun is None or step > begun]) * len(run.evaluation)
    if not passes:
        return seconds
    sequences = (len(run.outcomes) - (begun or 0)) * run.train.accumulation
    forward = min(seconds[STEPS], seconds[EVALUATING] / passes * sequences)
    return {
        "loading": 0.0,
        "golden trace": 0.0,
        "evaluation": 0.0,
        "steps: forward and loss (as an evaluation takes)": forward,
        "steps: backward": seconds.pop(STEPS) - forward,
    } | seconds


def _facts(simulation: Simulation) -> dict[str, str]:
    run, result = simulation.run, simulation.result
    manifest, data = run.bundle.manifest, run.data
    lora, bits, embedding_bits = manifest.adapter.lora, manifest.quantization.bits, manifest.quantization.embedding_bits
    return {
        "Model": manifest.source,
        "Target": f"{manifest.target}, simulated on this machine",
        "Runtime": f"{result.runtime} {result.runtime_version}",
        "Method": f"{result.method}, {len(run.schedule)} steps a cycle",
        "Weights": f"int{bits} blocks, int{embedding_bits} embedding and head, groups of {manifest.quantization.group_size}",
        "Adapter": f"LoRA of rank {lora.rank}, {manifest.adapter.size:,} parameters",
        "Sequence": f"{manifest.seq_len} tokens, {result.packing_fill:.0%} filled",
        "Learning rate": f"{result.learning_rate:.2e}, {run.train.lr_schedule}",
        "Data": f"{data.examples:,} examples, {data.tokens:,} tokens; {data.truncated} truncated ({data.tokens_cut:,} tokens cut)",
        "Trained on": trained_line(result.numbers),
        "Evaluated on": evaluated_line(result.numbers),
        "Step": f"{result.step_seconds_median:.3f} s (median of {len(result.step_seconds)})",
        "Peak memory": _memory(result),
    }


def _memory(result: SimulateResult) -> str:
    resident = f"{megabytes(result.peak_rss_bytes)} resident"
    return resident if result.peak_anonymous_bytes is None else f"{megabytes(result.peak_anonymous_bytes)} anonymous, {resident}"


def _notes(simulation: Simulation) -> list[str]:
    run, result = simulation.run, simulation.result
    torch = " and torch, which its runtime imports" if TARGETS[run.bundle.manifest.target].imports_torch else ""
    trained = {layer for subset in run.schedule for layer in subset.train}
    notes = [
        f"The loss of an evaluation is the mean over {result.numbers.evaluated_labels:,} counted labels.",
        f"The schedule trains layers {layer_ranges(sorted(trained))}.",
        f"Memory is that of the whole process, sampled every 10 ms; here that includes Python{torch}.",
    ]
    if result.peak_anonymous_bytes is None:
        notes[-1] = (
            f"Memory is that of the whole process, which here includes Python{torch}. This system does not say how much of it is "
            "anonymous; the resident size, pages of files included, is its highest."
        )
    if run.resumed_from is not None:
        notes.append(f"The run was resumed after step {run.resumed_from}; memory and phases are those of its last process.")
    if run.data.truncated:
        notes.append(f"{run.data.truncated} examples were longer than {run.bundle.manifest.seq_len} tokens and were cut.")
    if run.data.doubled_ends:
        notes.append(f"{doubled_ends_line(run.data.doubled_ends)}.")
    return notes
