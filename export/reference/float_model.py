"""The whole model in float32, without LoRA: the reference that the quantised and exported forms are held to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.layers import Linear, WholeLinear, attention_masks, attention_over, rope_tables

Read = Callable[[str], Tensor]


def head_weight_name(config: ModelConfig) -> str:
    return "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"


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
    model = architecture(config.model_type)
    cos, sin = (table[:, position_ids] for table in rope_tables(config, int(position_ids.max()) + 1))  # (kinds, T, d)
    masks = attention_masks(config, segment_ids)  # (kinds, T, T)
    h = read("model.embed_tokens.weight")[input_ids] * config.embedding_scale  # (T, D)
    for layer, kind in enumerate(config.layer_kinds):
        prefix = f"model.layers.{layer}."
        shapes = model.layer_weights(config)
        vectors = {name: read(prefix + name) for name, shape in shapes.items() if len(shape) == 1}
        h = model.block(
            h, vectors, float_linear(read, prefix, vectors), attention_over(cos[kind], sin[kind], masks[kind], config.query_scale), config
        )
    h = model.final_norm(h, read("model.norm.weight"), config)
    return h @ read(head_weight_name(config)).T


def float_linear(read: Read, prefix: str, vectors: dict[str, Tensor]) -> Linear:
    """`linear(name, x)` of a layer: x (T, in) -> (T, out), the checkpoint's matrix and, where there is one, its bias."""

    def linear(name: str, x: Tensor) -> Tensor:
        y = x @ read(f"{prefix}{name}.weight").T
        bias = vectors.get(f"{name}.bias")
        return y if bias is None else y + bias

    return WholeLinear(linear)
