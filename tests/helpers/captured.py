"""Captured blocks of tiny models: the inputs of a layer, and running a graph in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from helpers.tiny_models import TinyModel
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.export.graphs.blocks import DecodeGraphs, KindGraphs, ModelGraphs, Projections, Setting
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.models.kinds import bound_values
from lcsb_mobile.export.models.tables import step_tables

TILE = 32  # of the tiny models' intermediate size of 80: two tiles and an uneven third of 16
TILES = 3

# As the fixtures give them: `graphs(model, bits=4, layers=None, tile=None)`.
MakeGraphs = Callable[..., KindGraphs]
MakeModelGraphs = Callable[..., ModelGraphs]
MakeDecoding = Callable[..., DecodeGraphs]


def setting(model: TinyModel, tile: int | None = None) -> Setting:
    return Setting(model_of(model.config), model.layout.lora, model.quantization, model.seq_len, tile)


def layer_feeds(model: TinyModel, layer: int, batch: Batch, adapter: Float32Array) -> dict[str, Tensor]:
    """All inputs of a layer's graphs but h and g."""
    whole = model_of(model.config)
    place = whole.places[layer]
    ids = {name: torch.from_numpy(getattr(batch, name)) for name in ("position_ids", "segment_ids")}
    tables = step_tables(model.config, len(batch.input_ids))
    stored = {name: torch.from_numpy(model.weights[name]) for name in tables.stored}
    feeds = {name: torch.from_numpy(array) for name, array in model.weights.layer(place.kind, whole.numbers[layer]).items()}
    feeds |= bound_values(whole.kinds[place.kind], place, tables.make({**tables.consts, **stored, **ids}), {})
    feeds["adapter"] = torch.from_numpy(model.layout.vectors(adapter)[layer])
    return feeds


def block(model: TinyModel, layer: int, h: Tensor, adapter: Tensor, feeds: Mapping[str, Tensor], tile: int | None = None) -> Tensor:
    """A layer's output in plain torch; `feeds` as `layer_feeds` gives them."""
    whole, layout = model_of(model.config), model.layout
    linear = Projections(feeds, layout.views(layer, adapter), layout.lora.scaling, tile)
    (out,) = whole.kinds[whole.places[layer].kind].block({**feeds, "h": h}, feeds, linear)
    return out


def random_hidden(model: TinyModel, seed: int = 0) -> dict[str, Tensor]:
    """h and g."""
    h, g = torch.randn(2, model.seq_len, model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    return {"h": h, "g": g}


def run(captured: CapturedGraph, feeds: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = captured.module(*(feeds[name] for name in captured.inputs))
    assert len(outputs) == len(captured.outputs)
    return outputs


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within `tolerance` of the largest element."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
