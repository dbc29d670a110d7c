"""Captured blocks of tiny models: the inputs of a layer, and running a graph in torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from helpers.tiny_models import SEQ_LEN, TinyModel
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.export.graphs.blocks import BlockGraphs, DecodeGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.models.layers import attention_masks

TILE = 32  # of the tiny models' intermediate size of 80: two tiles and an uneven third of 16
TILES = 3

# As the fixtures give them: `graphs(model, bits=4, layers=None, tile=None)`.
MakeGraphs = Callable[..., BlockGraphs]
MakeDecoding = Callable[..., DecodeGraphs]


def layer_feeds(model: TinyModel, layer: int, batch: Batch, adapter: Float32Array) -> dict[str, Tensor]:
    """All inputs of a layer's graphs but h and g."""
    kind = model.config.layer_kinds[layer]
    feeds = {name: torch.from_numpy(array) for name, array in model.weights.layer(layer).items()}
    feeds |= {name: torch.from_numpy(model.weights[f"rope.{name}"][kind][batch.position_ids]) for name in ("cos", "sin")}
    feeds["mask"] = attention_masks(model.config, torch.from_numpy(batch.segment_ids))[kind]
    feeds["adapter"] = torch.from_numpy(adapter[layer])
    return feeds


def random_hidden(model: TinyModel, seed: int = 0) -> dict[str, Tensor]:
    """h and g."""
    h, g = torch.randn(2, SEQ_LEN, model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    return {"h": h, "g": g}


@functools.cache
def callable_of(captured: CapturedGraph) -> torch.nn.Module:
    return captured.program.module()  # takes a tenth of a second


def run(captured: CapturedGraph, feeds: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = callable_of(captured)(*(feeds[name] for name in captured.inputs))
    assert len(outputs) == len(captured.outputs)
    return outputs


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within `tolerance` of the largest element."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
