"""`manifest.json`: all that a device must know of a bundle, as data."""

from __future__ import annotations

from typing import Literal

from lcsb_mobile.adapter import AdapterLayout
from lcsb_mobile.config import ModelConfig, QuantizationConfig, Record
from lcsb_mobile.optimizer import AdamWConfig
from lcsb_mobile.schedule import ScheduleConfig, Subset
from lcsb_mobile.weights import WeightTensor

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ADAPTER_FILE = "adapter.safetensors"
GOLDEN_FILE = "golden.json"

Target = Literal["onnxruntime-training", "onnxruntime", "executorch", "coreml"]


class GraphTensor(Record, frozen=True):
    """An input or output of a graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str


class Graph(Record, frozen=True):
    """A program of the bundle: its file, and its inputs and outputs in order."""

    file: str
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]


class FileEntry(Record, frozen=True):
    size: int
    sha256: str


class BlockFlops(Record, frozen=True):
    """Floating-point operations of one block's matrix products on T tokens, counted in the captured graphs; the backward's
    contain the recomputed forward."""

    forward: int
    backward: int


class Manifest(Record, frozen=True):
    """`files` lists every file of the bundle but the manifest. `reconstruction_error`: ‖W - Ŵ‖ / ‖W‖ of each matrix, the
    layers' matrices averaged over the layers. `schedule`: the steps of one cycle."""

    format_version: int
    target: Target
    source: str
    model: ModelConfig
    adapter: AdapterLayout
    quantization: QuantizationConfig
    seq_len: int
    seed: int
    schedule_config: ScheduleConfig
    schedule: tuple[Subset, ...]
    optimizer: AdamWConfig
    block_flops: BlockFlops
    graphs: dict[str, Graph]
    weights: tuple[WeightTensor, ...]
    reconstruction_error: dict[str, float]
    tools: dict[str, str]
    files: dict[str, FileEntry]
