"""What an architecture's layers are: kinds of blocks, each a function of tensors, and what a layer of a kind is computed from.

T tokens, D hidden size; there is no batch dimension. DESIGN.md, "Kind", is the contract; `bundle.layers` has its data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lcsb_mobile.export.models.layers import Linear

Values = Mapping[str, Tensor]


class Memory(Protocol):
    """What a block remembers of the tokens before while a text is written: its `states`, by name.

    Of a prompt (`decoding` is False, T tokens, the last of them padding) a block keeps what there is to remember; of one further token
    (`decoding` is True) it reads what was and keeps what is to be.
    """

    decoding: bool

    def past(self, name: str) -> Tensor:
        """What is remembered, of the state's whole shape."""
        ...

    def keep(self, name: str, value: Tensor) -> None:
        """Of a prompt the whole state; of a token its place (`by_position`), or the whole new state."""
        ...


class Block(Protocol):
    """A layer as plain torch, which is traced, forward and backward: no in-place operations, no indexing or slicing of what is
    differentiated (split it), activations out of `sigmoid`."""

    def __call__(self, values: Values, weights: Values, linear: Linear, memory: Memory | None = None, /) -> tuple[Tensor, ...]:
        """(h_next (T, D), *gives).

        `values`: h (T, D), and the kind's reads, takes and consts by name. `weights`: the layer's `vectors` by name. `linear`: its
        matrices. What mixes tokens goes through `linear.within_sequences`.
        """
        ...


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Vector:
    """A float32 tensor of a layer that is stored as it is, and has no LoRA; it may have two dimensions.

    `source`: the checkpoint's tensor that `convert` makes it from (None: of its own name and shape).
    """

    shape: tuple[int, ...]
    source: str | None = None
    source_shape: tuple[int, ...] | None = None
    convert: Callable[[Tensor], Tensor] = _as_it_is


@dataclass(frozen=True)
class State:
    """What a block remembers under one name, float32. `shape`: by position that of a token's place, of which there are T; else of all."""

    shape: tuple[int, ...]
    by_position: bool


@dataclass(frozen=True)
class BlockKind:
    """A kind of block. `matrices`: name without `.weight` -> [out, in], quantised and with LoRA. `reads`: inputs without gradients, tables
    of `models.tables` or likewise; `takes`: what an earlier layer gave; `gives`: what the block returns after h_next; `consts`: arrays
    that are constants of its programs. `attention_width`: query heads times head dimension, 0 without attention."""

    name: str
    block: Block
    matrices: Mapping[str, tuple[int, int]]
    vectors: Mapping[str, Vector]
    reads: tuple[str, ...]
    states: Mapping[str, State]
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    consts: Mapping[str, Tensor] = field(default_factory=dict)
    attention_width: int = 0


@dataclass(frozen=True)
class Place:
    """A layer: its kind, and what the kind's reads, takes and gives are bound to (`bundle.layers.Layer`)."""

    kind: str
    reads: Mapping[str, str]
    takes: Mapping[str, str] = field(default_factory=dict)
    gives: Mapping[str, str] = field(default_factory=dict)


def bound_values(kind: BlockKind, place: Place, tables: Values, crossing: Values) -> dict[str, Tensor]:
    """What a layer is computed from besides h: its reads out of the step's tables, what it takes, and the kind's constants."""
    reads = {name: tables[place.reads[name]] for name in kind.reads if place.reads[name] in tables}
    return {**reads, **{name: crossing[place.takes[name]] for name in kind.takes}, **kind.consts}


def bound_gives(kind: BlockKind, place: Place, given: Sequence[Tensor]) -> dict[str, Tensor]:
    """What a layer gave, by the step's names; what it gives under none is dropped."""
    return {place.gives[name]: value for name, value in zip(kind.gives, given, strict=True) if name in place.gives}


def extended(memory: Memory | None, name: str, rows: Tensor) -> Tensor:
    """A state by position: `rows` of these tokens, with those of all places before them while a token is decoded."""
    if memory is None:
        return rows
    memory.keep(name, rows)
    return torch.cat((memory.past(name), rows)) if memory.decoding else rows
