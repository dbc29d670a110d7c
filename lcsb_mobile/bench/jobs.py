"""What `bench` asks of a fresh process, what that answers, and how it is asked: JSON in, JSON out."""

from __future__ import annotations

import subprocess
from typing import TypeVar

import msgspec

from lcsb_mobile import errors
from lcsb_mobile.bundle.schedule import Method, ScheduleConfig
from lcsb_mobile.config import ModelConfig, Record
from lcsb_mobile.errors import LcsbError, RunFailure

PHASES = ("embed", "forward", "head", "backward", "optimizer")
WHOLE_STEP = "step"  # instead of all but the optimizer, where a runtime has one graph for them

LEARNING_RATE = 1e-4
SEED = 0  # of the tokens

WORKER = "lcsb_mobile.bench.worker"
TORCH_PEER = "lcsb_mobile.export.torch_peer"


class StepsJob(Record, frozen=True, tag="steps"):
    """`steps` optimizer steps after one to warm up. `keep`: layers. `scratch`: a directory on a disk, for the adapter and its moments.
    The profile runs them a second time, with the runtime's profiler on."""

    bundle: str
    method: Method
    subsets: int
    keep: int
    steps: int
    threads: int
    scratch: str
    profile: bool = False

    @property
    def schedule(self) -> ScheduleConfig:
        return ScheduleConfig(method=self.method, subsets=self.subsets)


class GemmJob(Record, frozen=True, tag="gemm"):
    """The speed of the runtime's matrix product at the model's own shapes."""

    bundle: str
    threads: int


class TorchJob(Record, frozen=True, tag="torch"):
    """The same LoRA steps in PyTorch with transformers and peft, on the matrices of these names."""

    model: ModelConfig
    modules: tuple[str, ...]
    rank: int
    alpha: float
    seq_len: int
    steps: int
    threads: int


Job = StepsJob | GemmJob | TorchJob


class StepsResult(Record, frozen=True):
    """Of the steps after the warm-up. `phase_seconds`: of a mean step. `base_bytes`: of the process with its runtime imported and
    nothing done, anonymous; None where the system does not say. Peaks: of the whole process."""

    pid: int
    runtime: str
    runtime_version: str
    losses: tuple[float, ...]
    step_seconds: tuple[float, ...]
    phase_seconds: dict[str, float]
    base_bytes: int | None
    peak_anonymous_bytes: int | None
    peak_rss_bytes: int


class ProfileResult(Record, frozen=True):
    """Of a mean step under the profiler, by phase: `program_seconds` of all its programs' runs, `decompress_seconds` within them.
    `load_seconds`: until all its programs can run."""

    pid: int
    load_seconds: float
    decompress_seconds: dict[str, float]
    program_seconds: dict[str, float]


class GemmResult(Record, frozen=True):
    """Over a full step's products with weights, each counted as often as the step makes it."""

    pid: int
    gflops: float


class JobError(Record, frozen=True, tag="error"):
    """An error that was raised on purpose: its class and its message."""

    kind: str
    message: str


Result = TypeVar("Result", StepsResult, ProfileResult, GemmResult)


def run_job(python: str, module: str, job: Job, result: type[Result]) -> Result:
    """Runs the job in a process of its own, of the interpreter `python`.

    Raises what the process raised on purpose, RunFailure when it ended in any other way.
    """
    done = subprocess.run([python, "-m", module], input=msgspec.json.encode(job), capture_output=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return msgspec.json.decode(lines[-1], type=result)
    try:
        raised = msgspec.json.decode(lines[-1] if lines else b"", type=JobError)
    except msgspec.MsgspecError:
        raise RunFailure(f"a measurement failed: {_reason(done)}") from None
    kind: type[LcsbError] = getattr(errors, raised.kind)
    raise kind(raised.message)


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}; signal 9 is what the system sends when memory runs out"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"its process ended with {done.returncode}: {' '.join(last) or 'no message'}"
