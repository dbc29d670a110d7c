"""The layers of a model as data: kinds of layers with their adapter and their state, and each layer as one of a kind.

A kind has programs of its own. Its *reads* are tables without a gradient that `embed` makes once a step; its *gives* are values that later
layers *take*, and whose gradients come back summed. Each layer binds these names to the tables and values of the step.
"""

from __future__ import annotations

from lcsb_mobile.config import Record


class BlockWork(Record, frozen=True):
    """What one layer does on T tokens, counted in the captured graphs; `backward` contains the recomputed forward, `backward_kept` reads
    what the forward kept instead."""

    forward: int
    backward: int
    backward_kept: int


class AdapterMatrix(Record, frozen=True):
    """One LoRA matrix within a layer's flat vector: `shape` row-major from `offset` (elements)."""

    name: str  # such as self_attn.q_proj.lora_A
    shape: tuple[int, int]
    offset: int

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


class StateTensor(Record, frozen=True):
    """float32 that a layer remembers while a text is written. `by_position`: [T, …], to which each token adds one place; else every
    token replaces the whole."""

    name: str
    shape: tuple[int, ...]
    by_position: bool


class Kind(Record, frozen=True):
    """`size`: elements of a layer's adapter. `attention_width`: query heads times head dimension, 0 without attention: what of a
    layer's products grows with the square of T. `flops`: of matrix products; `decompressed_bytes`: of float32 weights."""

    name: str
    reads: tuple[str, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    size: int
    matrices: tuple[AdapterMatrix, ...]
    state: tuple[StateTensor, ...]
    attention_width: int
    flops: BlockWork
    decompressed_bytes: BlockWork


class Layer(Record, frozen=True):
    """`number`: among the layers of its kind, by which their weights are stacked. `offset`: of its vector in the flat adapter. `reads`,
    `takes`, `gives`: the kind's name -> that of the step's table or value; what it gives under no name is dropped."""

    kind: str
    number: int
    offset: int
    reads: dict[str, str]
    takes: dict[str, str]
    gives: dict[str, str]
