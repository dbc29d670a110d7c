"""What the programs of a step are written from, whatever the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.weights import WeightTensor
from lcsb_mobile.config import ModelConfig, QuantizationConfig
from lcsb_mobile.export.graphs.blocks import ModelGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.models import Model


@dataclass(frozen=True)
class StepParts:
    """What a step's graph is assembled from. `int8_forward`: of each kind the forward without tiles, for products of int8 activations."""

    layout: AdapterLayout
    quantization: QuantizationConfig
    blocks: ModelGraphs
    norm: CapturedGraph
    norm_backward: CapturedGraph
    table: tuple[WeightTensor, ...]
    int8_forward: Mapping[str, CapturedGraph] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        return self.blocks.model

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def seq_len(self) -> int:
        return self.blocks.seq_len

    def weight(self, name: str) -> WeightTensor:
        return next(tensor for tensor in self.table if tensor.name == name)
