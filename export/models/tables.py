"""The tables that layers read: RoPE's angles, attention masks, and what a convolution and a chunked recurrence see of packed sequences.

They are made once a step, from the tokens' positions and segments, in operations that lower everywhere; N = T / C chunks of C tokens.

| name        | shape     | meaning                                                                                       |
|-------------|-----------|-----------------------------------------------------------------------------------------------|
| cos.TYPE    | [T, d]    | RoPE at the tokens' positions, of a layer type's frequencies; sin.TYPE likewise               |
| mask.TYPE   | [T, T]    | 0 where a query sees a key (of its segment, not later, within the window), else MASKED        |
| taps        | [T, k]    | 1 where token t - j exists and is of t's segment (column j, k the convolution's width)        |
| within      | [N, C, C] | 1 where a query of a chunk sees a key of it                                                   |
| carried     | [N, C]    | 1 where a token continues the segment with which the chunk before ended                       |
| real        | [T, 1]    | 1 for tokens of the first segment: of a prompt, all but the padding                           |
| last        | [k-1, T]  | row j chooses the (k-1-j)th last token of the first segment: what a convolution remembers     |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.export.models.layers import MASKED, rope_table

TYPED = ("cos", "sin", "mask")  # by layer type: `cos.full_attention`


@dataclass(frozen=True)
class Tables:
    """`make`: (inputs, stored and consts by name) -> the tables by name. `inputs`: int64, [T] or [1] each. `stored`: float32, as they lie
    in `weights.bin`. `consts`: constants of the program."""

    inputs: tuple[str, ...]
    stored: Mapping[str, Tensor]
    consts: Mapping[str, Tensor]
    make: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        return self.make({**self.stored, **self.consts, **inputs})


def table_weights(config: ModelConfig, length: int) -> dict[str, Tensor]:
    """`rope.TYPE.cos` and `rope.TYPE.sin`, float32 [length, rotary_dim], for positions 0 to length - 1."""
    return {
        f"rope.{name}.{part}": table
        for name, kind in config.attention_kinds.items()
        for part, table in zip(("cos", "sin"), rope_table(kind, config.rotary_dim, length))
    }


def step_tables(config: ModelConfig, seq_len: int) -> Tables:
    """Of T = `seq_len` packed tokens: `position_ids`, `segment_ids`."""
    index = torch.arange(seq_len)
    # A window is looked up by its ends: as an array of which query sees which key it would be T² bytes of each program.
    consts: dict[str, Tensor] = {"seen": torch.tensor(0.0), "masked": torch.tensor(MASKED)}
    consts |= {"after": index[:, None] + 1, "key": index[None, :]}
    for name, kind in config.attention_kinds.items():
        if kind.window is not None:
            consts[f"before.{name}"] = index[:, None] - kind.window
    k, chunk = config.conv_kernel, 0 if config.linear_attention is None else config.linear_attention.chunk
    if k:
        before = index[:, None] - torch.arange(k)  # [T, k]
        consts |= {"tap": before.clamp_min(0).flatten(), "tap_exists": before >= 0, "first": torch.zeros(1, dtype=torch.int64)}
        consts |= {"place": index[None, :].float(), "from_end": torch.arange(k - 1, 0, -1)[:, None].float()}
    if chunk:
        ends = torch.arange(-1, seq_len - 1, chunk)  # of the chunk before
        consts |= {"earlier": torch.ones(chunk, chunk, dtype=torch.bool).tril(), "chunk_before": ends.clamp_min(0)}
        consts["before_exists"] = (ends >= 0)[:, None].expand(-1, chunk).contiguous()

    def make(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        segments = x["segment_ids"]
        column, row = segments.reshape(-1, 1), segments.reshape(1, -1)
        tables: dict[str, Tensor] = {}
        earlier = (column == row) & (x["key"] < x["after"])
        for name in config.attention_kinds:
            tables |= _angles(x, name)
            visible = earlier & (x["key"] > x[f"before.{name}"]) if f"before.{name}" in x else earlier
            tables[f"mask.{name}"] = torch.where(visible, x["seen"], x["masked"])
        if k:
            of_taps = torch.index_select(segments, 0, x["tap"]).reshape(-1, k)
            tables["taps"] = ((of_taps == column) & x["tap_exists"]).float()
            tables["real"] = (column == torch.index_select(segments, 0, x["first"])).float()
            tables["last"] = (x["place"] == tables["real"].sum(0, keepdim=True) - x["from_end"]).float()
        if chunk:
            ids = segments.reshape(-1, chunk)
            tables["within"] = ((ids.reshape(-1, chunk, 1) == ids.reshape(-1, 1, chunk)) & x["earlier"]).float()
            before = torch.index_select(segments, 0, x["chunk_before"]).reshape(-1, 1)
            tables["carried"] = ((ids == before) & x["before_exists"]).float()
        return tables

    return Tables(("position_ids", "segment_ids"), table_weights(config, seq_len), consts, make)


def token_tables(config: ModelConfig, seq_len: int) -> Tables:
    """Of one further token, by its `position_ids`: RoPE, and the mask [1, T + 1] of the places before it, then the token itself."""
    index = torch.arange(seq_len)
    # The token's own place is the last: before any token, and within any window.
    consts: dict[str, Tensor] = {"seen": torch.tensor(0.0), "masked": torch.tensor(MASKED)}
    consts |= {"place": torch.cat((index, torch.tensor([-1])))[None, :], "recent": torch.cat((index, torch.tensor([seq_len])))[None, :]}
    for name, kind in config.attention_kinds.items():
        if kind.window is not None:
            consts[f"window.{name}"] = torch.tensor([[kind.window]])

    def make(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tables: dict[str, Tensor] = {}
        for name in config.attention_kinds:
            tables |= _angles(x, name)
            position = x["position_ids"].reshape(-1, 1)
            visible = x["place"] < position
            if f"window.{name}" in x:
                visible = visible & (x["recent"] > position - x[f"window.{name}"])
            tables[f"mask.{name}"] = torch.where(visible, x["seen"], x["masked"])
        return tables

    return Tables(("position_ids",), table_weights(config, seq_len), consts, make)


def _angles(x: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {f"{part}.{name}": torch.index_select(x[f"rope.{name}.{part}"], 0, x["position_ids"]) for part in ("cos", "sin")}


def typed_reads(layer_type: str) -> dict[str, str]:
    """What an attention layer binds."""
    return {name: f"{name}.{layer_type}" for name in TYPED}
