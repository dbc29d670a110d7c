"""From a checkpoint's float tensors to `weights.bin`, one matrix at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lcsb_mobile.bundle.weights import LAYERS, DType, WeightTensor, lay_out
from lcsb_mobile.config import ModelConfig, QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint
from lcsb_mobile.export.models import architecture
from lcsb_mobile.export.models.layers import rope_tables
from lcsb_mobile.export.weights.calibrate import ROWS_AT_ONCE, LayerTensor, calibrated_layers
from lcsb_mobile.export.weights.layer_tensors import layer_tensors, packed_tensors
from lcsb_mobile.export.weights.quantization import QuantizedMatrix, quantize


def weight_table(config: ModelConfig, quantization: QuantizationConfig, seq_len: int) -> tuple[WeightTensor, ...]:
    """What `weights.bin` holds, in file order. Raises UnsupportedModelError when the group size divides not all matrices."""
    head = {} if config.tie_word_embeddings else {"lm_head.weight": None}
    tensors: dict[str, tuple[DType, tuple[int, ...]]] = {}
    for name in ("embed_tokens.weight", *head):
        tensors |= packed_tensors(name, (config.vocab_size, config.hidden_size), quantization.embedding_bits, quantization.group_size)
    tensors["norm.weight"] = ("float32", (config.hidden_size,))
    rope = (len(config.attention_kinds), seq_len, config.head_dim)
    tensors |= {"rope.cos": ("float32", rope), "rope.sin": ("float32", rope)}
    for name, (dtype, shape) in layer_tensors(config, quantization).items():
        tensors[LAYERS + name] = (dtype, (config.num_hidden_layers, *shape))
    return lay_out(tensors)


def write_weights(
    path: Path,
    checkpoint: Checkpoint,
    quantization: QuantizationConfig,
    seq_len: int,
    progress: Callable[[int, int], None],
    calibration: Tensor | None = None,
) -> tuple[tuple[WeightTensor, ...], dict[str, float]]:
    """Quantises and writes everything; holds one matrix, or a part of the embedding, in float at a time.

    `calibration`: token ids int64 [S, T] that the layers are rounded against, for gptq; then a layer is held at a time.
    `progress(done, total)` counts matrices. Returns the table and the relative error of each matrix, those of the layers
    averaged over the layers.
    """
    config = checkpoint.config
    table = weight_table(config, quantization, seq_len)
    writer = _Writer(table, progress, config)
    with path.open("wb") as file:
        writer.file = file
        for name, full_name in _large_matrices(config).items():
            writer.large_matrix(name, checkpoint, full_name, quantization)
        writer.tensor("norm.weight", checkpoint.read("model.norm.weight"))
        for name, rope in zip(("rope.cos", "rope.sin"), rope_tables(config, seq_len)):
            writer.tensor(name, rope)
        layers = _searched(checkpoint, quantization) if calibration is None else calibrated_layers(checkpoint, quantization, calibration)
        for layer, name, tensor in layers:
            if isinstance(tensor, QuantizedMatrix):
                writer.matrix(LAYERS + name, tensor, layer)
            else:
                writer.tensor(LAYERS + name, tensor, layer)
        file.truncate(table[-1].offset + table[-1].nbytes)
    return table, {name: sum(errors) / len(errors) for name, errors in writer.errors.items()}


def _searched(checkpoint: Checkpoint, quantization: QuantizationConfig) -> Iterator[LayerTensor]:
    """Each matrix by itself."""
    config = checkpoint.config
    for layer in range(config.num_hidden_layers):
        for name, shape in architecture(config.model_type).layer_weights(config).items():
            tensor = checkpoint.read(f"model.layers.{layer}.{name}")
            yield layer, name, quantize(tensor, quantization.bits, quantization.group_size) if len(shape) == 2 else tensor


def _large_matrices(config: ModelConfig) -> dict[str, str]:
    names = {"embed_tokens.weight": "model.embed_tokens.weight"}
    return names if config.tie_word_embeddings else names | {"lm_head.weight": "lm_head.weight"}


class _Writer:
    """Puts tensors where the table says. `errors`: matrix -> relative error of each layer."""

    file: BinaryIO

    def __init__(self, table: tuple[WeightTensor, ...], progress: Callable[[int, int], None], config: ModelConfig) -> None:
        self.table = {tensor.name: tensor for tensor in table}
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.progress = progress
        self.total = len(_large_matrices(config)) + 7 * config.num_hidden_layers

    def tensor(self, name: str, tensor: Tensor, layer: int = 0, byte_offset: int = 0) -> None:
        entry = self.table[name]
        stride = entry.nbytes // entry.shape[0] if entry.per_layer else 0
        self.file.seek(entry.offset + layer * stride + byte_offset)
        self.file.write(tensor.contiguous().numpy().data)

    def matrix(self, name: str, matrix: QuantizedMatrix, layer: int) -> None:
        self.tensor(f"{name}.packed", matrix.packed, layer)
        self.tensor(f"{name}.scale", matrix.scale, layer)
        self._done(name, matrix.error)

    def large_matrix(self, name: str, checkpoint: Checkpoint, full_name: str, quantization: QuantizationConfig) -> None:
        squares, weights, offsets = 0.0, 0.0, [0, 0]
        for rows in _row_parts(checkpoint, full_name):
            matrix = quantize(rows, quantization.embedding_bits, quantization.group_size)
            for index, (part, tensor) in enumerate((("packed", matrix.packed), ("scale", matrix.scale))):
                self.tensor(f"{name}.{part}", tensor, byte_offset=offsets[index])
                offsets[index] += tensor.numel() * tensor.element_size()
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
