"""Tiny models as the toolkit holds them: `weights.bin`, the adapter's layout, batches. Everything is random and seeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers.checkpoints import VOCABULARY, write_checkpoint
from lcsb_mobile.arrays import Float32Array, Int64Array
from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch, StepResult
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.bundle.weights import WEIGHTS_FILE, MappedWeights, WeightTensor
from lcsb_mobile.config import LoraConfig, ModelConfig, Programs, QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.eager import EagerRunner
from lcsb_mobile.export.weights.compress import write_weights
from lcsb_mobile.export.weights.layer_tensors import lora_layout

SEQ_LEN = 20
EXAMPLES = (7, 1, 8)  # tokens; the rest of SEQ_LEN is padding. Longer than the windows of 5, and one without any label
LORA = LoraConfig(rank=4, alpha=12.0)

# Name -> (model_type, tied, overrides of HF's config): every architecture, tied and untied, windows, biases.
MODELS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "llama": ("llama", True, {"attention_bias": True, "mlp_bias": True}),
    "llama-untied": ("llama", False, {}),
    "qwen2": ("qwen2", True, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen2-untied": ("qwen2", False, {}),
    "qwen3": ("qwen3", True, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3-untied": ("qwen3", False, {"attention_bias": True}),
    "mistral": ("mistral", False, {}),
    "phi3": ("phi3", True, {}),
    "phi3-untied": ("phi3", False, {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "gemma3": ("gemma3_text", True, {}),
    "gemma3-untied": ("gemma3_text", False, {}),
    "gemma2": ("gemma2", True, {}),
    "granite": ("granite", True, {"attention_bias": True, "mlp_bias": True}),
    "smollm3": ("smollm3", True, {"no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 5}),
}
# Models of several kinds of layers, of which some ask for whole chunks of tokens.
HYBRIDS: dict[str, tuple[str, bool, dict[str, Any]]] = {"lfm2": ("lfm2", True, {}), "qwen3_5": ("qwen3_5_text", True, {})}
HYBRID_SEQ_LEN = 64
HYBRID_EXAMPLES = (25, 1, 30)  # one of them across the edge of a chunk of 32
ARCHITECTURES = ("llama", "phi3", "qwen2", "qwen3", "gemma3")  # one model each
# Every model, and both kinds of blocks: how weights are decompressed does not depend on the architecture.
WITH_BLOCK_BITS = [*((name, 8 if name.endswith("-untied") else 4) for name in MODELS), ("llama", 8), ("llama-untied", 4)]
# (model, (bits, embedding_bits)), of what the training API's whole step adds to the blocks: heads of their own and tied ones, capped or
# not, weights of either kind, and in its loop layers that differ in their tables.
WITH_STEP_GRAPHS = [*((name, (4, 8)) for name in (*ARCHITECTURES, "gemma2")), ("llama-untied", (8, 4))]


@dataclass(frozen=True)
class TinyModel:
    """`directory` holds `weights.bin`. `errors`: the relative error of each matrix, as `write_weights` reports it."""

    directory: Path
    config: ModelConfig
    quantization: QuantizationConfig
    layout: AdapterLayout
    table: tuple[WeightTensor, ...]
    weights: MappedWeights
    errors: Mapping[str, float]
    seq_len: int = SEQ_LEN

    def runner(self) -> EagerRunner:
        return EagerRunner(model_of(self.config), self.layout, self.weights)

    def adapter(self, seed: int = 0) -> Float32Array:
        """The initial adapter plus 0.05 * normal, so that B is not zero."""
        noise = 0.05 * np.random.default_rng(seed + 1).standard_normal(self.layout.size)
        return self.layout.initial(seed) + noise.astype(np.float32)


def matrices_of(config: ModelConfig) -> int:
    """Of all layers, with LoRA on each: seven a layer, four where some are fused."""
    return sum(len(kind.matrices) for _, kind in model_of(config).walk())


# As the `tiny` fixture gives it: `tiny(model, bits=..., embedding_bits=..., layers=..., on=...)`.
MakeTiny = Callable[..., TinyModel]


def make_tiny(
    directory: Path, model: str, bits: int = 4, embedding_bits: int = 8, layers: int | None = None, on: Programs = "cpu"
) -> TinyModel:
    """Groups of 8, which divides the widths 48, 72 and 80; rank 4. `layers` replaces the model's own depth; weights are stored for programs
    `on` what computes them."""
    model_type, tied, overrides = (MODELS | HYBRIDS)[model]
    if layers is not None:
        overrides = overrides | {"num_hidden_layers": layers}
        if model_type == "gemma3_text":
            overrides["layer_types"] = [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]
    seq_len = HYBRID_SEQ_LEN if model in HYBRIDS else SEQ_LEN
    quantization = QuantizationConfig(bits=bits, embedding_bits=embedding_bits, group_size=8)  # type: ignore[arg-type]
    with open_checkpoint(write_checkpoint(directory / "huggingface", model_type, tied=tied, **overrides)) as checkpoint:
        config = checkpoint.config
        table, errors = write_weights(directory / WEIGHTS_FILE, checkpoint, quantization, seq_len, lambda done, total: None, programs=on)
    layout, weights = lora_layout(model_of(config), LORA), MappedWeights(directory / WEIGHTS_FILE, table)
    return TinyModel(directory, config, quantization, layout, table, weights, errors, seq_len)


def example(seed: int, length: int) -> Batch:
    """One example: random tokens, each to be predicted at the one before it; the first third of the labels is not counted."""
    tokens = np.random.default_rng(seed).integers(4, VOCABULARY, length)
    labels = np.append(tokens[1:], IGNORED_LABEL)
    labels[: length // 3] = IGNORED_LABEL
    return Batch(tokens, labels, np.arange(length), np.zeros(length, np.int64))


def pack(examples: Sequence[Batch], seq_len: int = SEQ_LEN) -> Batch:
    """The examples one after another, each a segment, then padding as a segment of its own without labels."""
    padding = seq_len - sum(len(part.input_ids) for part in examples)
    rest = Batch(np.full(padding, 3), np.full(padding, IGNORED_LABEL), np.arange(padding), np.zeros(padding, np.int64))
    parts = [*examples, rest]

    def joined(field: str) -> Int64Array:
        return np.concatenate([getattr(part, field) for part in parts]).astype(np.int64)

    segments = np.repeat(np.arange(len(parts)), [len(part.input_ids) for part in parts])
    return Batch(joined("input_ids"), joined("labels"), joined("position_ids"), segments)


def packed_batch(seed: int = 0, seq_len: int = SEQ_LEN) -> Batch:
    """Of SEQ_LEN tokens or of HYBRID_SEQ_LEN."""
    lengths = {SEQ_LEN: EXAMPLES, HYBRID_SEQ_LEN: HYBRID_EXAMPLES}[seq_len]
    return pack([example(seed * 100 + number, length) for number, length in enumerate(lengths)], seq_len)


def subset(train: Sequence[int], propagate: Sequence[int] = ()) -> Subset:
    return Subset(train=tuple(train), propagate=tuple(sorted({*train, *propagate})))


def largest_difference(found: StepResult, expected: StepResult) -> float:
    """The largest difference of any gradient element, relative to the largest element of that layer's gradient."""
    assert found.gradients.keys() == expected.gradients.keys()
    return max(float(np.abs(found.gradients[k] - g).max() / np.abs(g).max()) for k, g in expected.gradients.items())


def assert_steps_equal(found: StepResult, expected: StepResult, tolerance: float) -> None:
    """Losses within `tolerance`, gradients within `tolerance` of each layer's largest element; the same layers in both."""
    assert abs(found.loss - expected.loss) <= tolerance * abs(expected.loss)
    assert largest_difference(found, expected) <= tolerance
