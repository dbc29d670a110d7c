"""Generation with a cache of keys and values, on the programs `block_prefill` and `block_decode`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lcsb_mobile.batch import Float32Array
from lcsb_mobile.decoding import whole_sequence

if TYPE_CHECKING:
    from lcsb_mobile.runners.onnxruntime import OnnxRuntimeRunner


class OnnxRuntimeDecoder:
    """A Decoder. The cache has a place for each of the bundle's T positions: float32 [T, K, d] keys and values a layer."""

    def __init__(self, runner: OnnxRuntimeRunner, adapter: Float32Array) -> None:
        self._runner, self._adapter = runner, adapter
        places = next(x.shape for x in runner.manifest.graphs["block_prefill"].outputs if x.name == "keys")
        self._cache = [{name: np.zeros(places, np.float32) for name in ("keys", "values")} for _ in range(runner.layers)]
        self._position = 0  # of the next token
        self._embedded = runner.new_outputs("decode_embed")
        self._turns = [runner.new_outputs("block_decode") for _ in range(2)]

    def start(self, ids: Sequence[int]) -> Float32Array:
        """All tokens in one pass of the bundle's length; what is beyond them in the cache is never attended to."""
        runner = self._runner
        self._position = len(ids)
        h, attention = runner.embed(whole_sequence(ids, runner.manifest.seq_len))
        for layer in range(runner.layers):
            outputs = {name: runner.value(array) for name, array in self._cache[layer].items()}
            h = runner.forward_layer("block_prefill", layer, h, attention, self._adapter, outputs)
        return runner.logits(h.numpy()[self._position - 1 : self._position])

    def extend(self, token: int) -> Float32Array:
        runner = self._runner
        feeds = {"input_ids": np.array([token], np.int64), "position_ids": np.array([self._position], np.int64)}
        runner.run("decode_embed", {name: runner.value(x) for name, x in feeds.items()}, self._embedded)
        attention = runner.by_kind(self._embedded)
        h: Any = self._embedded["h"]
        for layer in range(runner.layers):
            outputs, cache = self._turns[layer % 2], self._cache[layer]
            arrays = {"adapter": self._adapter[layer], "past_keys": cache["keys"], "past_values": cache["values"]}
            values = {name: runner.value(array) for name, array in arrays.items()}
            runner.run("block_decode", {"h": h, **attention[runner.model.layer_kinds[layer]], **values}, outputs, layer)
            for name, places in cache.items():
                places[self._position] = outputs[name].numpy()[0]
            h = outputs["h_next"]
        self._position += 1
        return runner.logits(h.numpy())
