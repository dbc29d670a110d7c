"""Generation with a cache of keys and values, on the programs `block_prefill` and `block_decode`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.runners.decoding import whole_sequence
from lcsb_mobile.runners.onnxruntime_blocks import OnnxRuntimePrograms


class OnnxRuntimeDecoder:
    """A Decoder. The cache has a place for each of the bundle's T positions: float32 [T, K, d] keys and values a layer."""

    def __init__(self, programs: OnnxRuntimePrograms, adapter: Float32Array) -> None:
        self._programs, self._adapter = programs, adapter
        places = next(x.shape for x in programs.manifest.graphs["block_prefill"].outputs if x.name == "keys")
        self._cache = [{name: np.zeros(places, np.float32) for name in ("keys", "values")} for _ in range(programs.layers)]
        self._position = 0  # of the next token
        self._embedded = programs.new_outputs("decode_embed")
        self._turns = [programs.new_outputs("block_decode") for _ in range(2)]

    def start(self, ids: Sequence[int]) -> Float32Array:
        """All tokens in one pass of the bundle's length; what is beyond them in the cache is never attended to."""
        programs = self._programs
        self._position = len(ids)
        h, attention = programs.embed(whole_sequence(ids, programs.manifest.seq_len))
        for layer in range(programs.layers):
            outputs = {name: programs.value(array) for name, array in self._cache[layer].items()}
            h = programs.forward_layer("block_prefill", layer, h, attention, self._adapter, outputs)
        return programs.logits(h.numpy()[self._position - 1 : self._position])

    def extend(self, token: int) -> Float32Array:
        programs = self._programs
        feeds = {"input_ids": np.array([token], np.int64), "position_ids": np.array([self._position], np.int64)}
        programs.run("decode_embed", {name: programs.value(x) for name, x in feeds.items()}, self._embedded)
        attention = programs.by_kind(self._embedded)
        h: Any = self._embedded["h"]
        for layer in range(programs.layers):
            outputs, cache = self._turns[layer % 2], self._cache[layer]
            arrays = {"adapter": self._adapter[layer], "past_keys": cache["keys"], "past_values": cache["values"]}
            values = {name: programs.value(array) for name, array in arrays.items()}
            programs.run("block_decode", {"h": h, **attention[programs.model.layer_kinds[layer]], **values}, outputs, layer)
            for name, places in cache.items():
                places[self._position] = outputs[name].numpy()[0]
            h = outputs["h_next"]
        self._position += 1
        return programs.logits(h.numpy())
