"""Quantising a checkpoint against a calibration text: layer by layer, each matrix for the inputs that it will meet.

All sequences pass through a layer at once, and twice: h [2 S T, D] holds what the float layers below give, then what the quantised
ones give. A layer's projections are quantised when its forward pass comes to them, so each sees inputs that all before it have made.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.data.dataset import LINE_LIMIT, read_dataset
from lcsb_mobile.errors import DataError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint
from lcsb_mobile.export.models import embedding_name, layer_prefix, layer_vectors, model_of
from lcsb_mobile.export.models.kinds import BlockKind, Values, bound_gives, bound_values
from lcsb_mobile.export.models.layers import Mix, WholeLinear
from lcsb_mobile.export.models.tables import step_tables
from lcsb_mobile.export.weights.gptq import InputStatistics, gram_matrix, input_statistics, quantize_together
from lcsb_mobile.export.weights.quantization import QuantizedMatrix, dequantize, quantize
from lcsb_mobile.text.tokenizer import Tokenizer

OWN_TEXT = "calibration_text.jsonl"
SEQUENCE = 128  # tokens
SEQUENCES = 64  # at most; of a longer text as many as these, evenly spaced
LEAST_SEQUENCES = 8
MEASURED = 8  # sequences at most on which the loss is measured
FIRST_TOKEN = 4.0  # what a sequence's first token counts: all others attend to it, so its errors are everywhere
ROWS_AT_ONCE = 16384  # of the embedding, whose float form may be larger than all else together
TILE = 256  # rows of gate and up whose outputs exist at a time
NARROW = 3  # so many times more columns than rows: what the drift does to the rows is then cheaper than the drift
TOKENS_AT_ONCE = 1024  # whose drift exists at a time

LayerTensor = tuple[int, str, Tensor | QuantizedMatrix]  # layer, name within it


@dataclass(frozen=True)
class CalibrationText:
    """`tokens`: int64 [S, T], to round against. `description`: what they are, for the manifest. `measured`: int64 [R, T], on which the loss
    is measured: what is left of the text (`held_out`), or where nothing is left, a few of `tokens`."""

    tokens: Tensor
    description: str
    measured: Tensor
    held_out: bool


def read_calibration(path: Path | None, tokenizer: Tokenizer) -> CalibrationText:
    """A text file, a .jsonl file of training data, or None for the text that comes with the package.

    Raises DataError for a file that cannot be read or is too short, TokenizerError as `read_dataset` does.
    """
    if path is None:
        with resources.as_file(resources.files(__package__) / OWN_TEXT) as own:
            ids, digest = _lines_of(own, tokenizer)
        name = "the toolkit's own text"
    else:
        ids, digest = _lines_of(path, tokenizer) if path.suffix == ".jsonl" else _whole(path, tokenizer)
        name = path.name
    found = len(ids) // SEQUENCE
    if found < LEAST_SEQUENCES:
        raise DataError(
            f"{path or name}: calibration needs at least {LEAST_SEQUENCES * SEQUENCE} tokens, found {len(ids)}; use a longer text"
        )
    sequences = torch.from_numpy(ids)[: found * SEQUENCE].reshape(found, SEQUENCE)
    chosen = _evenly(range(found), SEQUENCES)
    others = sorted(set(range(found)) - set(chosen))
    description = f"{name}, {len(chosen) * SEQUENCE} of {len(ids)} tokens, sha256 {digest[:16]}"
    return CalibrationText(sequences[chosen], description, sequences[_evenly(others or chosen, MEASURED)], bool(others))


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spaced."""
    count = min(len(numbers), most)
    return [numbers[index * len(numbers) // count] for index in range(count)]


def _lines_of(path: Path, tokenizer: Tokenizer) -> tuple[np.ndarray, str]:
    dataset = read_dataset(path, tokenizer, LINE_LIMIT)
    return np.concatenate([dataset.example(index).input_ids for index in range(len(dataset))]).astype(np.int64), dataset.sha256


def _whole(path: Path, tokenizer: Tokenizer) -> tuple[np.ndarray, str]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error.reason} at byte {error.start}; give a text file or a .jsonl file") from error
    return np.array(tokenizer.encode_document(text), np.int64), hashlib.sha256(content).hexdigest()


def calibrated_layers(checkpoint: Checkpoint, quantization: QuantizationConfig, tokens: Tensor) -> Iterator[LayerTensor]:
    """The tensors of the layers, matrices quantised. Holds one layer's, beside what the sequences take.

    `tokens`: int64 [S, T]. Raises UnsupportedModelError for weights or activations that are not finite.
    """
    config = checkpoint.config
    length = tokens.shape[1]
    tables = step_tables(config, length)(position_ids=torch.arange(length), segment_ids=torch.zeros(length, dtype=torch.int64))
    h = _embed(checkpoint, quantization, tokens.flatten()) * config.embedding_scale
    crossing: dict[str, Tensor] = {}
    shared: dict[str, tuple[tuple[str, ...], ...]] = {}
    for layer, (place, kind) in enumerate(model_of(config).walk()):
        vectors = layer_vectors(checkpoint.read, config, layer, kind)
        values = {"h": h, **bound_values(kind, place, tables, crossing)}
        if kind.name not in shared:
            shared[kind.name] = shared_inputs(kind, values, vectors, length)
        linear = _CalibratedLinear(
            checkpoint, layer_prefix(config, layer), vectors, kind, shared[kind.name], quantization.group_size, length
        )
        try:
            with torch.no_grad():
                h, *given = kind.block(values, vectors, linear)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"layer {layer}: {error}") from error
        crossing |= bound_gives(kind, place, given)
        yield from ((layer, name, tensor) for name, tensor in (linear.matrices | vectors).items())


def _embed(checkpoint: Checkpoint, quantization: QuantizationConfig, ids: Tensor) -> Tensor:
    """Rows of the embedding, float and then as they are stored, [2 ids, D]."""
    needed, index = torch.unique(ids, return_inverse=True)
    exact = embedding_rows(checkpoint, needed)
    stored = quantize(exact, quantization.embedding_bits, quantization.group_size)
    return torch.cat([exact[index], dequantize(stored.packed, stored.scale)[index]])


def embedding_rows(checkpoint: Checkpoint, ids: Tensor) -> Tensor:
    """Float rows [ids, D] of ascending ids; of the float embedding a part exists at a time."""
    parts = []
    for start in range(0, checkpoint.config.vocab_size, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, checkpoint.config.vocab_size)
        rows = ids[(ids >= start) & (ids < stop)] - start
        parts.append(checkpoint.read_rows(embedding_name(checkpoint.config), start, stop)[rows])
    return torch.cat(parts)


def shared_inputs(kind: BlockKind, values: Values, vectors: Values, length: int) -> tuple[tuple[str, ...], ...]:
    """The kind's matrices in the order of their use, those that meet one input together: q, k and v, or gate and up.

    Found by running the block on tensors without data, of the shapes of one sequence of `length` tokens.
    """
    users: list[tuple[Tensor, list[str]]] = []

    def note(name: str, x: Tensor) -> Tensor:
        names = next((names for known, names in users if known is x), None)
        if names is None:
            users.append((x, names := []))
        names.append(name)
        return x.new_empty(len(x), kind.matrices[name][0])

    of_tokens = ("h", *kind.takes)
    shapes = {name: (value[:length] if name in of_tokens else value).to("meta") for name, value in values.items()}
    kind.block(shapes, {name: vector.to("meta") for name, vector in vectors.items()}, WholeLinear(note))
    return tuple(tuple(names) for _, names in users)


def output_pull(x: Tensor, weight: Tensor, length: int) -> Tensor:
    """W (X - X̂)ᵀ X̂ [N, K] of x [2 S T, K], float then quantised, from what the drift of the inputs does to the outputs, [S T, N]."""
    exact, quantized = x.chunk(2)
    parts = zip(torch.split(exact, TOKENS_AT_ONCE), torch.split(quantized, TOKENS_AT_ONCE))
    outputs = torch.cat([(float_part - part) @ weight.t() for float_part, part in parts])
    outputs[::length] *= FIRST_TOKEN
    return outputs.t() @ quantized


class _CalibratedLinear:
    """A layer's `models.layers.Linear` that quantises a matrix, and all that share its input, when it is first used. x: [2 S T, in], float
    then quantised."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prefix: str,
        vectors: Mapping[str, Tensor],
        kind: BlockKind,
        shared: tuple[tuple[str, ...], ...],
        group_size: int,
        length: int,
    ) -> None:
        self.matrices: dict[str, QuantizedMatrix] = {}
        self._checkpoint, self._prefix, self._vectors, self._shapes = checkpoint, prefix, vectors, kind.matrices
        self._shared = {name: names for names in shared for name in names}
        self._group_size, self._length = group_size, length
        self._waiting: dict[str, Tensor] = {}  # float matrices that are quantised and not used yet

    def __call__(self, name: str, x: Tensor) -> Tensor:
        weight, stored = self._quantize(name, x)
        return self._outputs(name, x, weight, stored, slice(None))

    def rows(self, name: str, x: Tensor, sizes: Sequence[int] | None = None) -> Iterator[Tensor]:
        weight, stored = self._quantize(name, x)
        starts = range(0, len(weight) + TILE, TILE) if sizes is None else itertools.accumulate(sizes, initial=0)
        for start, stop in itertools.pairwise(starts):
            yield self._outputs(name, x, weight, stored, slice(start, stop))

    def halves(self, name: str, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        weight, stored = self._quantize(name, x)
        half = len(weight) // 2
        for start in range(0, half, TILE):
            stop = min(start + TILE, half)
            first, second = (self._outputs(name, x, weight, stored, slice(begin + start, begin + stop)) for begin in (0, half))
            yield first, second

    def columns(self, name: str, tiles: Iterable[Tensor]) -> Tensor:
        x, start = torch.empty(0), 0
        for tile in tiles:
            if not start:
                x = tile.new_empty(len(tile), self._shapes[name][1])
            x[:, start : start + tile.shape[1]] = tile
            start += tile.shape[1]
        return self(name, x)

    def within_sequences(self, mix: Mix) -> Mix:
        """Each sequence of `length` tokens alone, of many in a row."""
        return lambda *tensors: torch.cat([mix(*parts) for parts in zip(*(torch.split(x, self._length) for x in tensors))])

    def _outputs(self, name: str, x: Tensor, weight: Tensor, stored: Tensor, rows: slice) -> Tensor:
        y = x.new_empty(len(x), len(weight[rows]))
        for part, inputs, matrix in zip(y.chunk(2), x.chunk(2), (weight, stored)):
            torch.mm(inputs, matrix[rows].t(), out=part)
        bias = self._vectors.get(f"{name}.bias")
        return y if bias is None else y.add_(bias[rows])

    def _quantize(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The float matrix, and the stored one in float."""
        if name not in self._waiting:
            names = self._shared[name]
            weights = [self._checkpoint.read(f"{self._prefix}{name}.weight") for name in names]
            narrow = NARROW * sum(map(len, weights)) < x.shape[1]
            pull = output_pull(x, torch.cat(weights), self._length) if narrow else None
            matrices = quantize_together(weights, self._measure(name, x, pull), self._group_size, pull)
            self.matrices |= {f"{name}.weight": matrix for name, matrix in zip(names, matrices)}
            self._waiting |= dict(zip(names, weights))
        matrix = self.matrices[f"{name}.weight"]
        return self._waiting.pop(name), dequantize(matrix.packed, matrix.scale)

    def _measure(self, name: str, x: Tensor, pull: Tensor | None) -> InputStatistics:
        exact, quantized = x.chunk(2)
        first_exact, first = (part[:: self._length] * (FIRST_TOKEN - 1) ** 0.5 for part in (exact, quantized))
        gram = gram_matrix(quantized).addmm_(first.t(), first)
        drift = (exact.t() @ quantized).addmm_(first_exact.t(), first).sub_(gram) if pull is None else None
        if not all(found.isfinite().all() for found in (gram, drift, pull) if found is not None):
            raise UnsupportedModelError(f"{name}: its inputs on the calibration text are not finite; use --quantizer search")
        return input_statistics(gram, drift)
