"""What the programs of a step are written from, whatever the target."""

from __future__ import annotations

from dataclasses import dataclass

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.weights import WeightTensor
from lcsb_mobile.config import ModelConfig, QuantizationConfig
from lcsb_mobile.export.graphs.blocks import BlockGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph


@dataclass(frozen=True)
class StepParts:
    """What a step's graph is assembled from."""

    config: ModelConfig
    layout: AdapterLayout
    quantization: QuantizationConfig
    blocks: BlockGraphs
    norm: CapturedGraph
    norm_backward: CapturedGraph
    table: tuple[WeightTensor, ...]
    int8_forward: CapturedGraph | None = None  # a block's forward without tiles, for products of int8 activations

    @property
    def seq_len(self) -> int:
        return self.blocks.seq_len

    def weight(self, name: str) -> WeightTensor:
        return next(tensor for tensor in self.table if tensor.name == name)
