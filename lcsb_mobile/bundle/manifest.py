"""`manifest.json`: all that a device must know of a bundle, as data."""

from __future__ import annotations

from lcsb_mobile.bundle.adapter import AdapterLayout, Base
from lcsb_mobile.bundle.layers import Kind, Layer
from lcsb_mobile.bundle.schedule import ScheduleConfig, Subset
from lcsb_mobile.bundle.weights import WeightTensor
from lcsb_mobile.config import AccuracyLevel, AdamWConfig, LoraConfig, ModelConfig, QuantizationConfig, Record
from lcsb_mobile.targets import Target

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"
ADAPTER_FILE = "adapter.safetensors"
GOLDEN_FILE = "golden.json"
DECOMPRESSION = "decompress"  # what the names of a program's nodes begin with that decompress weights

# The session configuration entries that a manifest may have; each is "0" or "1". Others make ONNX Runtime write and read files at a path of
# the manifest's choice, or take a model for another format (docs/hostile_input.md).
SESSION_CONFIG = ("session.disable_quant_qdq", "session.force_spinning_stop", "mlas.disable_kleidiai")


class GraphTensor(Record, frozen=True):
    """An input or output of a graph. `weight`: the tensor of `weights.bin` to feed, of `layers.…` the layer's own slice."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str
    weight: str | None = None


class Graph(Record, frozen=True):
    """A program of the bundle: its file, and its inputs and outputs in order.

    `initializers`: weights that the program holds as constants, which its sessions, one a layer, are given when they are made.
    `working_bytes`: about what the runtime allocates for the program's own values while it runs; None where it was not determined.
    """

    file: str
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    initializers: tuple[GraphTensor, ...] = ()
    working_bytes: int | None = None


class FileEntry(Record, frozen=True):
    size: int
    sha256: str


class Arena(Record, frozen=True):
    """One memory arena for all sessions of a process (`OrtArenaCfg`); it starts with a chunk of `initial_bytes`, reserved, not touched."""

    initial_bytes: int


class RuntimeSettings(Record, frozen=True):
    """How the target's sessions are to be made, found by measurement (docs/decisions.md): ONNX Runtime's session configuration entries,
    and the shared arena."""

    session_config: dict[str, str]
    arena: Arena


class Manifest(Record, frozen=True):
    """`files` lists every file of the bundle but the manifest. `accuracy_level`: of the forward's products with the blocks' matrices (see
    AccuracyLevel). `reconstruction_error`: ‖W - Ŵ‖ / ‖W‖ of each matrix, the
    layers' matrices averaged over the layers. `schedule`: the steps of one cycle. `identity`: SHA-256 of all that decides what a run on
    the bundle computes, its target aside (`training_identity`); exports of one model for several targets have one, so that a run may go
    on with another of them. `base`: SHA-256 of the frozen model alone (`base_digest`), by which an adapter knows its base. `digest`:
    SHA-256 of the manifest's own bytes, in which these 64 characters are zeros. Bundles of before one of the three have None there."""

    format_version: int
    target: Target
    source: str
    model: ModelConfig
    lora: LoraConfig
    kinds: tuple[Kind, ...]
    layers: tuple[Layer, ...]
    quantization: QuantizationConfig
    seq_len: int
    seed: int
    schedule_config: ScheduleConfig
    schedule: tuple[Subset, ...]
    optimizer: AdamWConfig
    accuracy_level: AccuracyLevel
    runtime: RuntimeSettings
    graphs: dict[str, Graph]
    weights: tuple[WeightTensor, ...]
    reconstruction_error: dict[str, float]
    tools: dict[str, str]
    files: dict[str, FileEntry]
    identity: str | None = None
    base: str | None = None
    digest: str | None = None

    @property
    def base_model(self) -> Base:
        return Base(self.source.rpartition(": ")[0] or self.source, self.base, self.tools.get("lcsb_mobile"))

    @property
    def adapter(self) -> AdapterLayout:
        matrices = {kind.name: kind.matrices for kind in self.kinds}
        return AdapterLayout(self.lora, matrices, tuple(layer.kind for layer in self.layers), self.model.tensor_prefix, self.base_model)

    def kind(self, layer: int) -> Kind:
        """A layer's."""
        return self.kind_named(self.layers[layer].kind)

    def kind_named(self, name: str) -> Kind:
        return next(kind for kind in self.kinds if kind.name == name)

    def kinds_of_layers(self) -> list[Kind]:
        """Of each layer."""
        by_name = {kind.name: kind for kind in self.kinds}
        return [by_name[layer.kind] for layer in self.layers]
