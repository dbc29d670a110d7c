"""One measurement of `bench`, in a process of its own: `python -m lcsb_mobile.bench.worker`, a job in, its result out."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from lcsb_mobile.bench.jobs import LEARNING_RATE, SEED, WHOLE_STEP, GemmJob, GemmResult, JobError, ProfileResult, StepsJob, StepsResult
from lcsb_mobile.bench.op_profile import decompression_seconds, read_profile, run_seconds
from lcsb_mobile.bundle.batch import Batch, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.programs import UPDATE, Role, program_name
from lcsb_mobile.bundle.schedule import make_schedule
from lcsb_mobile.bundle.weights import head_rows
from lcsb_mobile.errors import LcsbError
from lcsb_mobile.measuring.memory import MemorySampler, process_memory
from lcsb_mobile.measuring.phases import PhaseClock
from lcsb_mobile.planning.cost import backward_layers
from lcsb_mobile.runners import import_runtime, layer_update, make_runner
from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.targets import Target, target_row
from lcsb_mobile.training.optimizer import AdamW
from lcsb_mobile.training.state import mapped_state
from lcsb_mobile.training.trainer import TrainConfig, Trainer

# The programs of a training step, by the phase that runs them: the common ones, and the roles of those that each kind of layers has.
PROGRAM_PHASES = {"embed": "embed", "head": "head", UPDATE: "optimizer"}
ROLE_PHASES: dict[Role, str] = {"forward": "forward", "forward_keep": "forward", "backward": "backward", "backward_kept": "backward"}
GEMM_SECONDS, GEMM_REPEATS = 0.05, 3  # at least so long and so often is each product run


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=StepsJob | GemmJob)
    try:
        bundle = Bundle.open(Path(job.bundle))
        import_runtime_alone(bundle.manifest.target)
        result = measure(job, bundle)
    except LcsbError as error:
        print(msgspec.json.encode(JobError(type(error).__name__, str(error))).decode())
        sys.exit(error.exit_code)
    print(msgspec.json.encode(result).decode())


def import_runtime_alone(target: Target) -> None:
    """The wheel of the training API imports torch with `onnxruntime` where it can: 300 MB, of which the block programs need nothing."""
    if not target_row(target).imports_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # importing it raises ImportError
    import_runtime(target)


def measure(job: StepsJob | GemmJob, bundle: Bundle) -> StepsResult | ProfileResult | GemmResult:
    if isinstance(job, GemmJob):
        return measure_gemm(job, bundle)
    return profile_steps(job, bundle) if job.profile else measure_steps(job, bundle)


def measure_steps(job: StepsJob, bundle: Bundle) -> StepsResult:
    base, _ = process_memory()
    with MemorySampler() as sampler:
        runner = make_runner(bundle, threads=job.threads, keep=job.keep)
        trainer, batch = make_trainer(runner, bundle, job), random_batch(bundle.manifest)
        trainer.step(0, [batch])
        clock = getattr(runner, "clock", PhaseClock())
        clock.reset()
        losses, seconds, optimizer = [], [], 0.0
        for number in range(job.steps):
            start = time.perf_counter()
            outcome = trainer.step(number, [batch])
            seconds.append(time.perf_counter() - start)
            losses.append(outcome.loss)
            optimizer += outcome.optimizer_seconds
    phases = dict(clock.seconds) or {WHOLE_STEP: sum(seconds) - optimizer}
    phases["optimizer"] = optimizer  # with the clipping, where the clock has AdamW alone
    return StepsResult(
        pid=os.getpid(),
        runtime=runner.name,
        runtime_version=runner.version,
        losses=tuple(losses),
        step_seconds=tuple(seconds),
        phase_seconds={name: total / job.steps for name, total in phases.items()},
        base_bytes=base,
        peak_anonymous_bytes=sampler.peak_anonymous,
        peak_rss_bytes=sampler.peak_rss,
    )


def make_trainer(runner: StepRunner, bundle: Bundle, job: StepsJob) -> Trainer:
    manifest = bundle.manifest
    state = mapped_state(Path(job.scratch), bundle.initial_adapter())
    moments = (state.first_moment, state.second_moment)
    optimizer = AdamW(state.adapter, manifest.adapter.slices, manifest.optimizer, layer_update(runner), moments)
    schedule = make_schedule(job.schedule, manifest.model.num_hidden_layers)
    return Trainer(runner, schedule, optimizer, TrainConfig(steps=job.steps, learning_rate=LEARNING_RATE))


def random_batch(manifest: Manifest) -> Batch:
    """One segment of random tokens, every label counted: the most that a step can cost."""
    length = manifest.seq_len
    tokens = np.random.default_rng(SEED).integers(0, manifest.model.vocab_size, length + 1)
    return Batch(tokens[:-1].copy(), tokens[1:].copy(), np.arange(length), np.zeros(length, np.int64))


def profile_steps(job: StepsJob, bundle: Bundle) -> ProfileResult:
    """Targets that `profiles_operators` alone. Steps without a profile come first, to warm up the memory that all sessions share."""
    from lcsb_mobile.runners.onnxruntime import OnnxRuntime

    def run(runtime: OnnxRuntime, steps: int) -> None:
        runner = BlockRunner(bundle, runtime, job.keep)
        trainer, batch = make_trainer(runner, bundle, job), random_batch(bundle.manifest)
        for number in range(steps):
            trainer.step(number, [batch])

    load_seconds = sum(load(bundle, name, job.threads) for name in step_programs(bundle.manifest, job))
    run(OnnxRuntime(bundle, job.threads), 1)
    phases = program_phases(bundle.manifest)
    programs, decompression = defaultdict[str, float](float), defaultdict[str, float](float)
    with tempfile.TemporaryDirectory(dir=job.scratch) as directory:
        runtime = OnnxRuntime(bundle, job.threads, profile=Path(directory))
        run(runtime, job.steps)
        runtime.end_profiling()
        for path in sorted(Path(directory).iterdir()):
            events, phase = read_profile(path), phases[path.name.partition(".")[0]]
            programs[phase] += run_seconds(events) / job.steps
            decompression[phase] += decompression_seconds(events) / job.steps
    return ProfileResult(os.getpid(), load_seconds, dict(decompression), dict(programs))


def program_phases(manifest: Manifest) -> dict[str, str]:
    """Program -> phase."""
    kinds = [kind.name for kind in manifest.kinds]
    return PROGRAM_PHASES | {program_name(kind, role): phase for kind in kinds for role, phase in ROLE_PHASES.items()}


def step_programs(manifest: Manifest, job: StepsJob) -> list[str]:
    """Those that the steps of the job need."""
    programs = [*PROGRAM_PHASES, *(program_name(kind.name, "forward") for kind in manifest.kinds)]
    for subset in make_schedule(job.schedule, len(manifest.layers)):
        recomputed, kept = backward_layers(manifest, subset, job.keep)
        programs += [program_name(manifest.layers[layer].kind, "backward") for layer in recomputed]
        programs += [program_name(manifest.layers[layer].kind, role) for layer in kept for role in ("forward_keep", "backward_kept")]
    return list(dict.fromkeys(programs))


def load(bundle: Bundle, name: str, threads: int) -> float:
    """Seconds until a program can run."""
    from lcsb_mobile.runners.onnxruntime import Program, import_runtime

    ort = import_runtime()
    start = time.perf_counter()
    Program(ort, bundle, name, threads)
    return time.perf_counter() - start


def measure_gemm(job: GemmJob, bundle: Bundle) -> GemmResult:
    from lcsb_mobile.runners.onnxruntime import Program, import_runtime

    ort = import_runtime()
    programs = {name: Program(ort, bundle, name, job.threads) for name in ("gemm", "gemm_backward")}
    generator = np.random.default_rng(SEED)
    flops, seconds = 0.0, 0.0
    for (name, m, n, k), count in products(bundle.manifest).items():
        left, right, result = ((m, k), (n, k), (m, n)) if name == "gemm" else ((m, n), (n, k), (m, k))
        feeds = {x: generator.standard_normal(shape, np.float32) for x, shape in (("a", left), ("b", right))}
        outputs = {"y": np.empty(result, np.float32)}
        flops += 2.0 * m * n * k * count
        seconds += count * median_seconds(partial(programs[name].run, feeds, outputs, None))
    return GemmResult(os.getpid(), flops / seconds / 1e9)


def products(manifest: Manifest) -> dict[tuple[str, int, int, int], float]:
    """A full step's products with weights [N, K] at M tokens: (program, M, N, K) -> how many of them a step makes, whose every block
    runs forward twice and backward once, and whose head takes its rows in chunks."""
    tokens, model = manifest.seq_len, manifest.model
    rows = min(head_rows(model.hidden_size), model.vocab_size)
    found = {("gemm", tokens, rows, model.hidden_size): model.vocab_size / rows}
    found |= {("gemm_backward", tokens, rows, model.hidden_size): model.vocab_size / rows}
    for kind in manifest.kinds_of_layers():
        for a, b in zip(kind.matrices[::2], kind.matrices[1::2]):
            for program, count in (("gemm", 2), ("gemm_backward", 1)):
                key = (program, tokens, b.shape[0], a.shape[1])
                found[key] = found.get(key, 0.0) + count
    return found


def median_seconds(call: Callable[[], None]) -> float:
    call()
    seconds: list[float] = []
    while len(seconds) < GEMM_REPEATS or sum(seconds) < GEMM_SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
