"""`bench`: speed and memory of a step, methods and peers side by side.

Each measurement is a process of its own, so that none inherits another's memory; in each round every one of them has its turn, so
that a drift of the machine meets all alike.
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lcsb_mobile.bench.jobs import TORCH_PEER, WORKER, GemmJob, GemmResult, ProfileResult, StepsJob, StepsResult, TorchJob, run_job
from lcsb_mobile.bench.rows import BenchRow, in_order, make_row
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.schedule import Method, ScheduleConfig, Subset, make_schedule
from lcsb_mobile.errors import BundleError, MemoryBudgetError, MissingDependencyError, OptionError
from lcsb_mobile.formatting import megabytes
from lcsb_mobile.installing import pip_install
from lcsb_mobile.measuring.machine import available_memory, physical_cores, scratch_directory
from lcsb_mobile.measuring.memory import process_memory
from lcsb_mobile.planning.cost import FLOAT, head_parameters, matrix_parameters, step_cost
from lcsb_mobile.planning.memory import predicted_peak
from lcsb_mobile.ranges import check_ranges
from lcsb_mobile.targets import TARGETS, Target, target_row

Peer = Literal["torch"]

TORCH_METHOD = "torch+peft checkpointing"
TORCH_PACKAGES = ("torch", "transformers", "peft")
TORCH_LIBRARIES = 400_000_000  # anonymous bytes of a process that has imported them


@dataclass(frozen=True)
class BenchOptions:
    """`target`: what the bundle must be of (None: any). `keep`: numbers of layers, more than there are being all. `steps`: of one
    measurement, whole cycles (None: `subsets`). `threads` None: the cores. `python`: the
    interpreter of the measuring processes, in whose environment the bundle's runtime is; peers run in this one. `scratch`: a directory
    on a disk."""

    bundle: Path
    target: Target | None = None
    methods: tuple[Method, ...] = ("full", "lcsb-identity", "lcsb-exact", "freeze")
    subsets: int = 4
    keep: tuple[int, ...] = (0,)
    steps: int | None = None
    rounds: int = 3
    threads: int | None = None
    peers: tuple[Peer, ...] = ()
    python: str = sys.executable
    scratch: Path = field(default_factory=scratch_directory)


Progress = Callable[[str, int, int], None]  # stage, done, total


def bench(options: BenchOptions, progress: Progress = lambda stage, done, total: None) -> list[BenchRow]:
    """A row for each method and number of kept layers, then one for each peer.

    Raises OptionError, BundleError, MissingDependencyError, MemoryBudgetError (something would not fit; nothing was run) or RunFailure.
    """
    return _Bench(options, Bundle.open(options.bundle).manifest).run(progress)


class _Bench:
    def __init__(self, options: BenchOptions, manifest: Manifest) -> None:
        check_options(options, manifest)
        self.options, self.manifest = options, manifest
        self.layers = manifest.model.num_hidden_layers
        self.threads = options.threads or physical_cores()
        self.steps = options.steps or options.subsets
        keep = dict.fromkeys(min(count, self.layers) for count in options.keep)
        self.jobs = [self.steps_job(method, count) for method in dict.fromkeys(options.methods) for count in keep]
        self.torch = self.torch_job() if "torch" in options.peers else None
        self.check_memory()

    def steps_job(self, method: Method, keep: int) -> StepsJob:
        options = self.options
        return StepsJob(str(options.bundle), method, options.subsets, keep, self.steps, self.threads, str(options.scratch))

    def torch_job(self) -> TorchJob:
        lora = self.manifest.adapter.lora
        modules = {matrix.name.split(".")[-2] for kind in self.manifest.kinds for matrix in kind.matrices}
        manifest = self.manifest
        return TorchJob(manifest.model, tuple(sorted(modules)), lora.rank, lora.alpha, manifest.seq_len, self.steps, self.threads)

    def subsets(self, job: StepsJob) -> tuple[Subset, ...]:
        return make_schedule(job.schedule, self.layers)

    def check_memory(self) -> None:
        available = available_memory()
        if available is None:
            return
        base = process_memory()[0] or 0  # a measuring process has little more: the runtime's code is no anonymous memory
        needs = {f"method {job.method} with {job.keep} layers kept": self.predicted(job, base) for job in self.jobs}
        if self.torch is not None:
            needs["the peer torch"] = torch_bytes(self.manifest)
        faults = [f"{what} is predicted to need {megabytes(need)}" for what, need in needs.items() if need > available]
        if faults:
            raise MemoryBudgetError(
                f"{'; '.join(faults)}; found {megabytes(available)} of memory available; nothing was run; choose a smaller shape, a "
                "shorter --seq-len, fewer kept layers, or other methods and peers"
            )

    def predicted(self, job: StepsJob, base: int) -> int:
        """Peak anonymous bytes."""
        return predicted_peak(self.manifest, self.subsets(job), job.keep, base)

    def predicted_beside(self, job: StepsJob, results: list[StepsResult]) -> int | None:
        """Peak anonymous bytes of measured processes; None where the system did not say what they had before their steps."""
        bases = [result.base_bytes for result in results if result.base_bytes is not None]
        return self.predicted(job, max(bases)) if bases else None

    def run(self, progress: Progress) -> list[BenchRow]:
        gemm = "gemm" in self.manifest.graphs
        profiled = target_row(self.manifest.target).profiles_operators
        total = self.options.rounds * (len(self.jobs) + gemm + (self.torch is not None)) + profiled * len(self.jobs)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            progress("measuring", done, total)

        speeds: list[float] = []
        found = defaultdict[StepsJob, list[StepsResult]](list)
        peers: list[StepsResult] = []
        for _ in range(self.options.rounds):
            if gemm:
                speeds.append(run_job(self.options.python, WORKER, GemmJob(str(self.options.bundle), self.threads), GemmResult).gflops)
                step()
            for job in self.jobs:
                found[job].append(run_job(self.options.python, WORKER, job, StepsResult))
                step()
            if self.torch is not None:
                peers.append(run_job(sys.executable, TORCH_PEER, self.torch, StepsResult))
                step()
        speed = statistics.median(speeds) if speeds else None
        rows = []
        for job in self.jobs:
            profile = run_job(self.options.python, WORKER, with_profile(job), ProfileResult) if profiled else None
            if profiled:
                step()
            rows.append(self.row(job, found[job], speed, profile))
        return rows + ([self.torch_row(peers)] if self.torch is not None else [])

    def row(self, job: StepsJob, results: list[StepsResult], speed: float | None, profile: ProfileResult | None) -> BenchRow:
        subsets = self.subsets(job)
        flops = statistics.mean(step_cost(self.manifest, subset, keep=job.keep).flops for subset in subsets)
        mean = statistics.mean(seconds for result in results for seconds in result.step_seconds)
        decompression = profile.decompress_seconds if profile else {}
        programs = profile.program_seconds if profile else {}
        return make_row(
            self.manifest,
            results,
            target=self.manifest.target,
            method=job.method,
            subset_fraction=statistics.mean(len(subset.train) for subset in subsets) / self.layers,
            kept_layers=job.keep,
            threads=self.threads,
            profiled_seconds=in_order(programs),
            decompress_shares=in_order({phase: decompression[phase] / seconds for phase, seconds in programs.items()}),
            decompress_share=sum(decompression.values()) / sum(programs.values()) if profile else None,
            load_seconds=profile.load_seconds if profile else None,
            model_flops=flops,
            sgemm_gflops=speed,
            time_over_gemm_bound=mean / (flops / (speed * 1e9)) if speed else None,
            predicted_peak_anonymous_bytes=self.predicted_beside(job, results),
        )

    def torch_row(self, results: list[StepsResult]) -> BenchRow:
        """PyTorch's own products and weights are other ones, so no FLOPs and no bound are stated."""
        return make_row(
            self.manifest,
            results,
            target="torch",
            method=TORCH_METHOD,
            subset_fraction=1.0,
            kept_layers=0,
            threads=self.threads,
            profiled_seconds={},
            decompress_shares={},
            decompress_share=None,
            load_seconds=None,
            model_flops=None,
            sgemm_gflops=None,
            time_over_gemm_bound=None,
            predicted_peak_anonymous_bytes=None,
        )


def with_profile(job: StepsJob) -> StepsJob:
    return StepsJob(job.bundle, job.method, job.subsets, job.keep, job.steps, job.threads, job.scratch, profile=True)


def torch_bytes(manifest: Manifest) -> int:
    """Peak anonymous bytes of the peer, about: float32 weights, the embedding's twice (a tied head is made before it is tied), six
    copies of the logits, and the libraries. Within 10 % of what was measured of Qwen2.5-0.5B and two layers of Gemma-3-1B and
    Llama-3.2-1B."""
    blocks = matrix_parameters([tensor for tensor in manifest.weights if tensor.per_layer], manifest.quantization.group_size)
    weights = blocks + 2 * head_parameters(manifest)
    return FLOAT * (weights + 6 * manifest.seq_len * manifest.model.vocab_size) + TORCH_LIBRARIES


def check_choices(options: BenchOptions) -> None:
    """What needs no bundle. Raises OptionError or MissingDependencyError."""
    check_names("methods", options.methods, get_args(Method))
    check_names("peers", options.peers, get_args(Peer), empty=True)
    check_ranges({"subsets": options.subsets, "rounds": options.rounds, "threads": options.threads, "steps": options.steps})
    if options.target is not None:
        check_timed(options.target)
    if not options.keep:
        raise OptionError("keep: expected none, all or a number of layers, found nothing")
    if shutil.which(options.python) is None:
        raise OptionError(f"python: expected an interpreter, found {options.python!r}")
    missing = [name for name in TORCH_PACKAGES if options.peers and importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"peer torch needs {', '.join(missing)}; install what is missing with: {pip_install(*missing)}")


def check_options(options: BenchOptions, manifest: Manifest) -> None:
    """Raises OptionError, BundleError or MissingDependencyError."""
    check_choices(options)
    if options.target not in (None, manifest.target):
        expected = options.target or " or ".join(TARGETS)
        raise BundleError(f"{options.bundle}: expected a bundle of target {expected}, found {manifest.target}; export one with --target")
    check_timed(manifest.target)
    for method in options.methods:
        cycle = len(make_schedule(ScheduleConfig(method, options.subsets), manifest.model.num_hidden_layers))
        if options.steps is not None and options.steps % cycle:
            raise OptionError(f"steps: expected whole cycles of {cycle} steps with {method}, found {options.steps}")
    if any(options.keep) and not TARGETS[manifest.target].keeps_activations:
        raise OptionError(f"keep: expected none with target {manifest.target}, which cannot keep activations, found {max(options.keep)}")


def check_timed(target: str) -> None:
    """Raises OptionError for a target whose runner here is an evaluator."""
    if target in TARGETS and TARGETS[target].evaluated:
        timed = " or ".join(name for name, row in TARGETS.items() if not row.evaluated)
        raise OptionError(f"target: {target} is evaluated in NumPy here, whose time says nothing of a phone; expected {timed}")


def check_names(option: str, found: Iterable[str], known: Iterable[str], empty: bool = False) -> None:
    names, allowed = list(found), list(known)
    unknown = [name for name in names if name not in allowed]
    if unknown or not (names or empty):
        raise OptionError(f"{option}: expected some of {', '.join(allowed)}, found {', '.join(unknown) or 'none'}")
