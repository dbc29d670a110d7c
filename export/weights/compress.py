"""From a checkpoint's float tensors to `weights.bin`, one matrix at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lcsb_mobile.bundle.weights import TAIL, DType, WeightTensor, lay_out, layer_tensor
from lcsb_mobile.config import ModelConfig, Programs, QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint
from lcsb_mobile.export.models import Model, embedding_name, final_norm_name, head_name, layer_prefix, layer_vectors, model_of
from lcsb_mobile.export.models.tables import table_weights
from lcsb_mobile.export.weights.calibrate import ROWS_AT_ONCE, LayerTensor, calibrated_layers
from lcsb_mobile.export.weights.layer_tensors import check_groups, kind_tensors, packed_tensors
from lcsb_mobile.export.weights.quantization import QuantizedMatrix, quantize, unsigned


def weight_table(
    config: ModelConfig, quantization: QuantizationConfig, seq_len: int, programs: Programs = "cpu"
) -> tuple[WeightTensor, ...]:
    """What `weights.bin` holds, in file order. `programs`: what they are for, which decides how scales and 8-bit values are stored.

    Raises UnsupportedModelError when the group size divides not all matrices.
    """
    head = {} if config.tie_word_embeddings else {"lm_head.weight": None}
    tensors: dict[str, tuple[DType, tuple[int, ...]]] = {}
    for name in ("embed_tokens.weight", *head):
        rows = (config.vocab_size, config.hidden_size)
        tensors |= packed_tensors(name, rows, quantization.embedding_bits, quantization.group_size, programs)
    tensors["norm.weight"] = ("float32", (config.hidden_size,))
    model = model_of(config)
    check_groups(model.kinds.values(), quantization)
    tensors |= {name: ("float32", tuple(table.shape)) for name, table in table_weights(config, seq_len).items()}
    for kind in model.kinds.values():
        for name, (dtype, shape) in kind_tensors(kind, quantization, programs).items():
            tensors[layer_tensor(kind.name, name)] = (dtype, (model.count(kind.name), *shape))
    return lay_out(tensors)


def write_weights(
    path: Path,
    checkpoint: Checkpoint,
    quantization: QuantizationConfig,
    seq_len: int,
    progress: Callable[[int, int], None],
    calibration: Tensor | None = None,
    programs: Programs = "cpu",
) -> tuple[tuple[WeightTensor, ...], dict[str, float]]:
    """Quantises and writes everything; holds one matrix, or a part of the embedding, in float at a time.

    `calibration`: token ids int64 [S, T] that the layers are rounded against, for gptq; then a layer is held at a time.
    `progress(done, total)` counts matrices. Returns the table and the relative error of each matrix, those of the layers
    averaged over the layers.
    """
    config = checkpoint.config
    model = model_of(config)
    table = weight_table(config, quantization, seq_len, programs)
    writer = _Writer(table, progress, model)
    with path.open("wb") as file:
        writer.file = file
        for name, full_name in _large_matrices(config).items():
            writer.large_matrix(name, checkpoint, full_name, quantization)
        writer.tensor("norm.weight", checkpoint.read(final_norm_name(config)))
        for name, rope in table_weights(config, seq_len).items():
            writer.tensor(name, rope)
        layers = (
            searched_layers(checkpoint, quantization) if calibration is None else calibrated_layers(checkpoint, quantization, calibration)
        )
        for layer, name, tensor in layers:
            stack, number = layer_tensor(model.places[layer].kind, name), model.numbers[layer]
            if isinstance(tensor, QuantizedMatrix):
                writer.matrix(stack, tensor, number)
            else:
                writer.tensor(stack, tensor, number)
        file.truncate(table[-1].offset + table[-1].nbytes + TAIL)
    return table, {name: sum(errors) / len(errors) for name, errors in writer.errors.items()}


def searched_layers(checkpoint: Checkpoint, quantization: QuantizationConfig) -> Iterator[LayerTensor]:
    """Each matrix by itself."""
    for layer, (_, kind) in enumerate(model_of(checkpoint.config).walk()):
        for name in kind.matrices:
            tensor = checkpoint.read(f"{layer_prefix(checkpoint.config, layer)}{name}.weight")
            yield layer, f"{name}.weight", quantize(tensor, quantization.bits, quantization.group_size)
        yield from ((layer, name, tensor) for name, tensor in layer_vectors(checkpoint.read, checkpoint.config, layer, kind).items())


def _large_matrices(config: ModelConfig) -> dict[str, str]:
    names = {"embed_tokens.weight": embedding_name(config)}
    return names if config.tie_word_embeddings else names | {"lm_head.weight": head_name(config)}


class _Writer:
    """Puts tensors where the table says, as the type that it says. `errors`: matrix -> relative error of each layer."""

    file: BinaryIO

    def __init__(self, table: tuple[WeightTensor, ...], progress: Callable[[int, int], None], model: Model) -> None:
        self.table = {tensor.name: tensor for tensor in table}
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.progress = progress
        self.total = len(_large_matrices(model.config)) + sum(len(kind.matrices) for _, kind in model.walk())

    def tensor(self, name: str, tensor: Tensor, layer: int = 0, byte_offset: int = 0) -> int:
        """Returns the bytes written. Scales are rounded to float16, and 8-bit values are signed, whatever they are stored as."""
        entry = self.table[name]
        stride = entry.nbytes // entry.shape[0] if entry.per_layer else 0
        self.file.seek(entry.offset + layer * stride + byte_offset)
        stored = tensor.float() if entry.dtype == "float32" else tensor
        if entry.dtype == "uint8" and stored.dtype == torch.int8:
            stored = unsigned(stored)
        return self.file.write(stored.contiguous().numpy().data)

    def matrix(self, name: str, matrix: QuantizedMatrix, layer: int) -> None:
        self.tensor(f"{name}.packed", matrix.packed, layer)
        self.tensor(f"{name}.scale", matrix.scale, layer)
        self._done(name, matrix.error)

    def large_matrix(self, name: str, checkpoint: Checkpoint, full_name: str, quantization: QuantizationConfig) -> None:
        squares, weights, offsets = 0.0, 0.0, [0, 0]
        for rows in _row_parts(checkpoint, full_name):
            matrix = quantize(rows, quantization.embedding_bits, quantization.group_size)
            for index, (part, tensor) in enumerate((("packed", matrix.packed), ("scale", matrix.scale))):
                offsets[index] += self.tensor(f"{name}.{part}", tensor, byte_offset=offsets[index])
            norm = float(torch.linalg.vector_norm(rows))
            squares, weights = squares + (matrix.error * norm) ** 2, weights + norm**2
        self._done(name, (squares / weights) ** 0.5 if weights else 0.0)

    def _done(self, name: str, error: float) -> None:
        self.errors[name].append(error)
        self.progress(sum(map(len, self.errors.values())), self.total)


def _row_parts(checkpoint: Checkpoint, name: str) -> Iterator[Tensor]:
    rows = checkpoint.config.vocab_size
    for start in range(0, rows, ROWS_AT_ONCE):
        yield checkpoint.read_rows(name, start, min(start + ROWS_AT_ONCE, rows))
