"""What `bench` states of each method and peer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from lcsb_mobile.bench.jobs import PHASES, WHOLE_STEP, StepsResult
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.config import Record


class BenchRow(Record, frozen=True, kw_only=True):
    """What was measured of one method, and how. Seconds by phase are of a mean step; peaks are the highest of all rounds, of the whole
    process. `subset_fraction`: of the layers, trained in a mean step.

    One more cycle runs under ONNX Runtime's profiler: `profiled_seconds` of its programs by phase, and `decompress_share` of them
    that is decompression. `decompress_seconds`: each phase's share, of its seconds without the profiler. `model_flops`: of a mean
    step's programs. `sgemm_gflops`: the runtime's matrix product at the model's shapes, in the same rounds; `time_over_gemm_bound`: a
    mean step's time over that of its FLOPs at this speed. None or empty: not known.
    """

    shape: str
    target: str
    method: str
    runtime: str
    runtime_version: str
    subset_fraction: float
    kept_layers: int
    seq_len: int
    rank: int
    threads: int
    rounds: int
    step_seconds: tuple[float, ...]
    step_seconds_median: float
    step_seconds_mean: float
    step_seconds_min: float
    step_seconds_max: float
    phase_seconds: dict[str, float]
    decompress_seconds: dict[str, float]
    decompress_share: float | None
    profiled_seconds: dict[str, float]
    load_seconds: float | None
    model_flops: float | None
    sgemm_gflops: float | None
    time_over_gemm_bound: float | None
    peak_anonymous_bytes: int | None
    peak_rss_bytes: int
    predicted_peak_anonymous_bytes: int | None
    losses: tuple[float, ...]


def make_row(manifest: Manifest, results: list[StepsResult], decompress_shares: Mapping[str, float], **others: object) -> BenchRow:
    """What all rows state; every result has as many steps. `decompress_shares`: of each phase's time."""
    seconds = tuple(second for result in results for second in result.step_seconds)
    anonymous = [result.peak_anonymous_bytes for result in results if result.peak_anonymous_bytes is not None]
    phases = {name: statistics.mean(result.phase_seconds[name] for result in results) for name in results[0].phase_seconds}
    return BenchRow(
        shape=manifest.source.partition(":")[0],
        runtime=results[0].runtime,
        runtime_version=results[0].runtime_version,
        seq_len=manifest.seq_len,
        rank=manifest.adapter.lora.rank,
        rounds=len(results),
        step_seconds=seconds,
        step_seconds_median=statistics.median(seconds),
        step_seconds_mean=statistics.mean(seconds),
        step_seconds_min=min(seconds),
        step_seconds_max=max(seconds),
        phase_seconds=in_order(phases),
        decompress_seconds={phase: share * phases[phase] for phase, share in decompress_shares.items()},
        peak_anonymous_bytes=max(anonymous, default=None),
        peak_rss_bytes=max(result.peak_rss_bytes for result in results),
        losses=results[0].losses,
        **others,  # type: ignore[arg-type]
    )


def in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds[name] for name in (WHOLE_STEP, *PHASES) if name in seconds}
