"""Generation with what each layer remembers of the tokens before, on the programs `KIND_prefill` and `KIND_decode`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.programs import PAST
from lcsb_mobile.runners.block_programs import BlockPrograms, StepValues
from lcsb_mobile.runners.decoding import whole_sequence
from lcsb_mobile.runners.heads import Head


class BlockDecoder:
    """A Decoder. A layer's state is its kind's: keys and values with a place for each of the bundle's T positions, or what each token
    replaces as a whole."""

    def __init__(self, programs: BlockPrograms, head: Head, adapter: Float32Array) -> None:
        self._head = head
        self._programs, self._vectors = programs, programs.manifest.adapter.vectors(adapter)
        self._kinds = programs.manifest.kinds_of_layers()
        self._state = [{state.name: np.zeros(state.shape, np.float32) for state in kind.state} for kind in self._kinds]
        self._position = 0  # of the next token
        self._embedded = programs.new_outputs("decode_embed")
        names = [programs.program(layer, "decode") for layer in range(programs.layers)]
        self._turns = {name: [programs.new_outputs(name) for _ in range(2)] for name in dict.fromkeys(names)}

    def start(self, ids: Sequence[int]) -> Float32Array:
        """All tokens in one pass of the bundle's length; what is beyond them is never attended to, nor remembered otherwise."""
        programs = self._programs
        self._position = len(ids)
        h, tables = programs.embed(whole_sequence(ids, programs.manifest.seq_len))
        step = StepValues(tables)
        for layer, vector in enumerate(self._vectors):
            h = programs.forward_layer("prefill", layer, h, step, vector, self._state[layer])
        return self._head.logits(h[self._position - 1 : self._position])

    def extend(self, token: int) -> Float32Array:
        programs = self._programs
        feeds = {"input_ids": programs.integers([token]), "position_ids": programs.integers([self._position])}
        programs.run("decode_embed", feeds, self._embedded)
        step = StepValues(self._embedded)
        h: Float32Array = self._embedded["h"]
        for layer, vector in enumerate(self._vectors):
            outputs, state = self._turns[programs.program(layer, "decode")][layer % 2], self._state[layer]
            past = {PAST + name: array for name, array in state.items()}
            values = {"h": h, "adapter": vector, **past}
            programs.run_layer("decode", layer, step, values, {**outputs, **programs.given("decode", layer, step)})
            for kept in self._kinds[layer].state:
                place = state[kept.name][self._position : self._position + 1] if kept.by_position else state[kept.name]
                np.copyto(place, outputs[kept.name])
            h = outputs["h_next"]
        self._position += 1
        return self._head.logits(h)
