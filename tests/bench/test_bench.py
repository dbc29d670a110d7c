"""`bench`: rows that are complete and agree with themselves, measured in turn and in fresh processes; and its refusals. No timing is held
to anything."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from helpers.bundles import lcsb, lcsb_error
from helpers.random_bundles import small_random_bundle
from matplotlib.figure import Figure

import lcsb_mobile.bench.side_by_side as bench_module
from lcsb_mobile.bench.figures import draw_memory, write_figures
from lcsb_mobile.bench.jobs import PHASES, TORCH_PEER, WORKER, GemmJob, GemmResult, ProfileResult, StepsJob, StepsResult, run_job
from lcsb_mobile.bench.op_profile import decompression_seconds, read_profile, run_seconds
from lcsb_mobile.bench.rows import BenchRow
from lcsb_mobile.bench.side_by_side import BenchOptions, bench, check_choices, check_options
from lcsb_mobile.bench.worker import measure_steps, products, random_batch, step_programs
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import DECOMPRESSION
from lcsb_mobile.bundle.schedule import ScheduleConfig, Subset, make_schedule
from lcsb_mobile.errors import BundleError, MissingDependencyError, OptionError, RunFailure
from lcsb_mobile.measuring import memory_watch
from lcsb_mobile.planning.cost import step_cost
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.onnxruntime import OnnxRuntime

SUBSETS, ROUNDS = 3, 2


@dataclass(frozen=True)
class Measured:
    """`asked`: job and result of every process, in order."""

    rows: list[BenchRow]
    asked: list[tuple[Any, Any]]
    progress: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_random_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def measured(bundle: Path) -> Measured:
    asked: list[tuple[Any, Any]] = []
    progress: list[tuple[str, int, int]] = []

    def recorded(python: str, module: str, job: Any, result: Any) -> Any:
        asked.append((job, run_job(python, module, job, result)))
        return asked[-1][1]

    options = BenchOptions(bundle, methods=("full", "lcsb-exact"), subsets=SUBSETS, keep=(0,), rounds=ROUNDS, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module, "run_job", recorded)
        rows = bench(options, lambda *call: progress.append(call))
    return Measured(rows, asked, progress)


# What is measured


def test_rows_are_complete(measured: Measured) -> None:
    assert [(row.method, row.kept_layers) for row in measured.rows] == [("full", 0), ("lcsb-exact", 0)]
    for row in measured.rows:
        assert (row.shape, row.target, row.runtime) == ("tiny of 3 layers", "onnxruntime", "onnxruntime")
        assert (row.seq_len, row.rank, row.threads, row.rounds) == (32, 4, 1, ROUNDS)
        assert tuple(row.phase_seconds) == PHASES
        unknown = [name for name in BenchRow.__struct_fields__ if getattr(row, name) is None]
        assert unknown == []
    assert [row.subset_fraction for row in measured.rows] == [1.0, pytest.approx(1 / 3)]


def test_rows_agree_with_themselves(measured: Measured) -> None:
    for row in measured.rows:
        assert len(row.step_seconds) == ROUNDS * SUBSETS
        assert row.step_seconds_min <= row.step_seconds_median <= row.step_seconds_max
        assert row.step_seconds_mean == pytest.approx(sum(row.step_seconds) / len(row.step_seconds))
        # Between the phases there is Python, and the gradient's norm.
        assert 0.5 * row.step_seconds_mean < sum(row.phase_seconds.values()) <= row.step_seconds_mean
        bound = (row.model_flops or 0) / ((row.sgemm_gflops or 0) * 1e9)
        assert row.time_over_gemm_bound == pytest.approx(row.step_seconds_mean / bound)
        assert row.peak_rss_bytes > (row.peak_anonymous_bytes or 0) > 10e6
        assert row.losses[0] == pytest.approx(math.log(264), rel=0.05)
        assert all(math.isfinite(loss) for loss in row.losses)


def test_decompression_is_in_every_phase_that_has_weights(measured: Measured) -> None:
    for row in measured.rows:
        assert {"forward", "head", "backward"} <= {phase for phase, seconds in row.decompress_seconds.items() if seconds > 0}
        assert row.decompress_seconds["optimizer"] == 0
        assert 0 < (row.decompress_share or 0) < 1


def test_each_measurement_is_a_fresh_process_and_all_take_turns(measured: Measured) -> None:
    kinds = [(type(job).__name__, getattr(job, "method", ""), getattr(job, "profile", False)) for job, _ in measured.asked]
    one_round = [("GemmJob", "", False), ("StepsJob", "full", False), ("StepsJob", "lcsb-exact", False)]
    assert kinds == one_round * ROUNDS + [("StepsJob", "full", True), ("StepsJob", "lcsb-exact", True)]
    pids = [result.pid for _, result in measured.asked]
    assert len(set(pids)) == len(pids)
    assert measured.progress == [("measuring", done, len(kinds)) for done in range(1, len(kinds) + 1)]


def test_flops_are_those_of_the_programs(bundle: Path, measured: Measured) -> None:
    """Counted in the ONNX files; the head's two products by hand, its chunks being a loop."""
    model = Bundle.open(bundle).manifest.model
    forward, backward, backward_kept = (
        products_in(bundle / f"{name}.onnx") for name in ("block_forward", "block_backward", "block_backward_kept")
    )
    head = 4 * 32 * model.vocab_size * model.hidden_size
    full, exact = measured.rows
    assert full.model_flops == 3 * (forward + backward) + head
    assert exact.model_flops == 3 * forward + head + backward * (1 + 2 + 3) / 3
    manifest = Bundle.open(bundle).manifest
    everything, top = Subset((0, 1, 2), (0, 1, 2)), Subset((1,), (1, 2))
    assert step_cost(manifest, everything, keep=2).flops == 3 * forward + head + backward + 2 * backward_kept
    assert step_cost(manifest, top, keep=3).flops == 3 * forward + head + 2 * backward_kept


def products_in(path: Path) -> int:
    """FLOPs of a program's matrix products."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    known = (*graph.input, *graph.output, *graph.value_info)
    shapes = {x.name: [d.dim_value for d in x.type.tensor_type.shape.dim] for x in known}
    flops = 0
    for node in graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            transposed = next((a.i for a in node.attribute if a.name == "transA"), 0)
            flops += 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    return flops


def test_the_products_are_those_of_a_full_step(bundle: Path) -> None:
    """All of them but LoRA's and attention's own, which are small in a model of this kind."""
    manifest = Bundle.open(bundle).manifest
    flops = sum(2 * m * n * k * count for (_, m, n, k), count in products(manifest).items())
    assert 0.75 < flops / step_cost(manifest, Subset((0, 1, 2), (0, 1, 2))).flops < 1


def test_a_profile_finds_every_decompression(bundle: Path, tmp_path: Path) -> None:
    """By name, those in the head's loop too: what the profile does not show would pass for arithmetic."""
    opened = Bundle.open(bundle)
    runtime = OnnxRuntime(opened, 1, tmp_path)
    BlockRunner(opened, runtime, keep=1).step(Subset((0, 1, 2), (0, 1, 2)), random_batch(opened.manifest), opened.initial_adapter())
    runtime.end_profiling()
    profiles = {path.name.partition(".")[0]: read_profile(path) for path in tmp_path.iterdir()}
    assert set(profiles) == {"embed", "block_forward", "block_forward_keep", "head", "block_backward", "block_backward_kept"}
    for name, events in profiles.items():
        wanted = {node for node in node_names(onnx.load(bundle / f"{name}.onnx").graph) if node.startswith(f"{DECOMPRESSION}.Dequant")}
        found = {event.name.removesuffix("_kernel_time") for event in events if event.decompresses}
        assert wanted and wanted <= found
        assert 0 < decompression_seconds(events) < run_seconds(events)


def node_names(graph: Any) -> list[str]:
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [node.name for node in graph.node] + [name for body in bodies for name in node_names(body)]


def test_layers_may_be_kept(bundle: Path) -> None:
    (row,) = bench(BenchOptions(bundle, methods=("lcsb-identity",), subsets=SUBSETS, keep=(9, 3), rounds=1, threads=1))
    subsets = make_schedule(ScheduleConfig("lcsb-identity", SUBSETS), 3)
    assert row.kept_layers == 3  # all there are
    assert row.model_flops == sum(step_cost(Bundle.open(bundle).manifest, subset, keep=3).flops for subset in subsets) / 3


def test_the_programs_of_a_step(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    jobs = [StepsJob("", "full", SUBSETS, keep, 1, 1, "") for keep in (0, 1, 3)]
    recomputed, both, kept = ([name for name in step_programs(manifest, job) if "back" in name] for job in jobs)
    assert (recomputed, both, kept) == (["block_backward"], ["block_backward", "block_backward_kept"], ["block_backward_kept"])


def test_the_peer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row, from a result such as its process gives; the process itself takes gigabytes of libraries to start."""
    results = {StepsResult: StepsResult(1, "torch", "2", (1.0,), (2.0,), {"forward": 2.0}, 3, 4, 5)}
    results |= {GemmResult: GemmResult(1, 7.0), ProfileResult: ProfileResult(1, 1.0, {"forward": 1.0}, {"forward": 4.0})}  # type: ignore[dict-item]
    asked: list[str] = []

    def answered(python: str, module: str, job: Any, result: Any) -> Any:
        asked.append(module)
        return results[result]

    monkeypatch.setattr(bench_module, "run_job", answered)
    rows = bench(BenchOptions(bundle, methods=("full",), subsets=SUBSETS, rounds=2, threads=1, peers=("torch",)))
    assert asked == [WORKER, WORKER, TORCH_PEER] * 2 + [WORKER]
    assert (rows[1].method, rows[1].target, rows[1].peak_rss_bytes) == ("torch+peft checkpointing", "torch", 5)
    assert rows[1].model_flops is None and rows[0].decompress_share == 0.25
    assert rows[0].decompress_seconds == {"forward": 0.5}  # a quarter of what the phase takes without the profiler


def test_the_verb(bundle: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lcsb_mobile.cli.bench.run_bench", lambda options, progress: measured.rows)
    found = json.loads(lcsb("bench", bundle, "--subsets", SUBSETS, "--plot", tmp_path, "--json"))
    assert [row["method"] for row in found] == ["full", "lcsb-exact"] and found[0]["peak_anonymous_bytes"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["peak-memory.png", "step-time.png"]
    text = lcsb("bench", bundle)
    assert "lcsb-exact" in text and "GFLOP/s" in text and "1.00x" in text
    write_figures(tmp_path / "more", [row for row in measured.rows for _ in range(4)])


def test_where_the_system_does_not_say_what_is_anonymous(
    bundle: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No figure and no prediction, which has nothing to rest on; resident memory stands for neither."""
    for way in ("exact", "quick"):
        monkeypatch.setattr(memory_watch, way, lambda pid: None)
    job = next(job for job, _ in measured.asked if isinstance(job, StepsJob))
    result = measure_steps(job, Bundle.open(bundle))
    assert result.base_bytes is None and result.peak_anonymous_bytes is None and result.peak_rss_bytes > 0

    answers = {
        StepsResult: result,
        GemmResult: GemmResult(1, 7.0),
        ProfileResult: ProfileResult(1, 1.0, {"forward": 1.0}, {"forward": 4.0}),
    }
    monkeypatch.setattr(bench_module, "run_job", lambda python, module, job, kind: answers[kind])
    rows = bench(BenchOptions(bundle, methods=("full",), subsets=SUBSETS, rounds=1, threads=1))
    assert rows[0].peak_anonymous_bytes is None and rows[0].predicted_peak_anonymous_bytes is None
    monkeypatch.setattr("lcsb_mobile.cli.bench.run_bench", lambda options, progress: rows)
    assert "does not say how much" in lcsb("bench", bundle, "--plot", tmp_path)

    axes = Figure().subplots()
    draw_memory(axes, [*rows, measured.rows[0]])
    lengths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert [len(bars) for bars in lengths] == [1, 2] and min(min(bars) for bars in lengths) > 0


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shape", "qwen9"), r"shape: expected one of tiny, .*, found 'qwen9'"),
        (("--shape", "tiny", "--layers", 0), r"layers: expected at least 1, found 0"),
        (("--shape", "tiny", "--methods", "full,magic"), r"methods: expected some of .*, found magic"),
        (("--shape", "tiny", "--methods", ""), r"methods: expected some of .*, found none"),
        (("--shape", "tiny", "--peers", "jax"), r"peers: expected some of torch, found jax"),
        (("--shape", "tiny", "--keep", "x"), r"keep: expected none, all or a number of layers, found 'x'"),
        (("--shape", "tiny", "--threads", 0), r"threads: expected at least 1, found 0"),
        (("--shape", "tiny", "--rounds", 0), r"rounds: expected at least 1, found 0"),
        (("--shape", "tiny", "--python", "/nowhere"), r"python: expected an interpreter, found '/nowhere'"),
        ((), r"expected a bundle or --shape, found neither"),
    ],
)
def test_bad_choices_are_refused_before_a_bundle_is_made(options: tuple[object, ...], message: str) -> None:
    assert_matches(message, lcsb_error(2, "bench", *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shape", "tiny"), r"expected a bundle or --shape, found both"),
        (("--seq-len", 64, "--bundle-dir", "x"), r"--seq-len, --bundle-dir: only with --shape"),
        (("--target", "onnxruntime-training"), r"expected a bundle of target onnxruntime-training, found onnxruntime"),
        (("--subsets", 3, "--steps", 4), r"steps: expected whole cycles of 3 steps with lcsb-identity, found 4"),
        (("--subsets", 4), r"subsets: expected 1 to 3"),
    ],
)
def test_choices_that_do_not_fit_the_bundle(bundle: Path, options: tuple[object, ...], message: str) -> None:
    assert_matches(message, lcsb_error(2, "bench", bundle, *options))


def test_the_training_api_keeps_no_layers(bundle: Path) -> None:
    manifest = msgspec.structs.replace(Bundle.open(bundle).manifest, target="onnxruntime-training")
    with pytest.raises(OptionError, match="keep: expected none with target onnxruntime-training, which cannot keep activations, found 2"):
        check_options(BenchOptions(bundle, subsets=3, keep=(0, 2)), manifest)


def test_what_does_not_fit_into_memory_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "available_memory", lambda: 10**6)
    error = lcsb_error(2, "bench", bundle, "--subsets", 3, "--methods", "full", "--peers", "torch")
    assert_matches(r"method full with 0 layers kept is predicted to need .* MB; the peer torch .*; found 1.0 MB .* nothing was run", error)


def test_a_peer_that_is_not_installed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(MissingDependencyError, match="peer torch needs peft; install what is missing with: .* pip install peft"):
        check_choices(BenchOptions(bundle, peers=("torch",)))


def test_what_a_process_raises_is_raised_here(bundle: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        run_job(sys.executable, WORKER, GemmJob("/nowhere", 1), GemmResult)
    with pytest.raises(RunFailure, match="its process ended with 1: .*No module named"):
        run_job(sys.executable, "lcsb_mobile.nothing", GemmJob("/nowhere", 1), GemmResult)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text
