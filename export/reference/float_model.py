"""The whole model in float32, without LoRA: the reference that the quantised and exported forms are held to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.graphs.head import soft_capped
from lcsb_mobile.export.models import embedding_name, final_norm_name, head_name, layer_prefix, layer_vectors, model_of
from lcsb_mobile.export.models.kinds import bound_gives, bound_values
from lcsb_mobile.export.models.layers import Linear, WholeLinear
from lcsb_mobile.export.models.tables import step_tables, table_weights

Read = Callable[[str], Tensor]


@torch.no_grad()
def model_logits(
    config: ModelConfig, read: Read, input_ids: Tensor, position_ids: Tensor | None = None, segment_ids: Tensor | None = None
) -> Tensor:
    """Logits float32 (T, vocab_size) of input_ids int64 (T,).

    `read(name)` gives a checkpoint's tensor as float32; it is called when a tensor is needed and the result is dropped after
    use, so no more than one matrix is held. `position_ids` (default 0, 1, …) and `segment_ids` (default one segment) are int64 (T,).
    """
    position_ids = torch.arange(input_ids.shape[0]) if position_ids is None else position_ids
    segment_ids = torch.zeros_like(input_ids) if segment_ids is None else segment_ids
    x = final_states(config, read, read(embedding_name(config))[input_ids], position_ids, segment_ids)
    return head_logits(config, x, read(head_name(config)))


def head_logits(config: ModelConfig, x: Tensor, rows: Tensor) -> Tensor:
    """Of normed states x (T, D) and rows of the head (n, D): (T, n)."""
    return soft_capped(x @ rows.T, config.final_logit_softcapping)[0]


@torch.no_grad()
def final_states(config: ModelConfig, read: Read, embedded: Tensor, position_ids: Tensor, segment_ids: Tensor) -> Tensor:
    """What the head is given, (T, D), of rows of the embedding (T, D). Otherwise as `model_logits`."""
    model = model_of(config)
    tables = step_tables(config, len(embedded))
    # Positions may go beyond the length: the angles are computed for as many as there are.
    stored = table_weights(config, int(position_ids.max()) + 1)
    read_tables = tables.make({**tables.consts, **stored, "position_ids": position_ids, "segment_ids": segment_ids})
    h = embedded * config.embedding_scale
    crossing: dict[str, Tensor] = {}
    for layer, (place, kind) in enumerate(model.walk()):
        vectors = layer_vectors(read, config, layer, kind)
        linear = float_linear(read, layer_prefix(config, layer), vectors)
        h, *given = kind.block({"h": h, **bound_values(kind, place, read_tables, crossing)}, vectors, linear)
        crossing |= bound_gives(kind, place, given)
    return model.final_norm(h, read(final_norm_name(config)))


def float_linear(read: Read, prefix: str, vectors: dict[str, Tensor]) -> Linear:
    """`linear(name, x)` of a layer: x (T, in) -> (T, out), the checkpoint's matrix and, where there is one, its bias."""

    def linear(name: str, x: Tensor) -> Tensor:
        y = x @ read(f"{prefix}{name}.weight").T
        bias = vectors.get(f"{name}.bias")
        return y if bias is None else y + bias

    return WholeLinear(linear)
