"""GGUF files of made-up models and tokenizers, with names, order and keys as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3", "phi3": "phi3"}
ARCHITECTURES |= {"gemma2": "gemma2", "granite": "granite", "smollm3": "smollm3"}
PERMUTED, ONE_PLUS = ("llama", "granite", "smollm3"), ("gemma2", "gemma3")
Keys = Mapping[str, Any]


def permuted(tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys as the original RoPE pairs them."""
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def model_tensors(model: Any) -> dict[str, Tensor]:
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    named = "llama" if architecture == "smollm3" else architecture  # the same names; the lowest gguf does not know it
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == named)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        module, _, part = name.rpartition(".")
        if architecture in PERMUTED and module.endswith((".q_proj", ".k_proj")):
            tensor = permuted(tensor, config.num_attention_heads if module.endswith("q_proj") else config.num_key_value_heads)
        if architecture in ONE_PLUS and module.endswith("norm"):
            tensor = tensor + 1
        tensors[f"{names.get_name(module)}.{part}"] = tensor
    return tensors


def model_keys(model: Any) -> dict[str, Any]:
    """Without RoPE's scaling."""
    config = model.config
    rope = config.rope_parameters
    keys: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    if config.model_type == "gemma3_text":
        keys |= {"attention.sliding_window": config.sliding_window}
        keys |= {"attention.sliding_window_pattern": [name == "sliding_attention" for name in config.layer_types]}
    if config.model_type == "gemma2":
        keys |= {name: getattr(config, name) for name in ("attn_logit_softcapping", "final_logit_softcapping")}
        keys |= {"attention.sliding_window": config.sliding_window}
    if config.model_type == "granite":
        keys |= {"embedding_scale": float(config.embedding_multiplier), "residual_scale": config.residual_multiplier}
        keys |= {"attention.scale": config.attention_multiplier, "logit_scale": config.logits_scaling}
    architecture = ARCHITECTURES[config.model_type]
    return {f"{architecture}.{name}": value for name, value in keys.items()}


def write_file(path: Path, architecture: str, keys: Keys, tensors: Mapping[str, Tensor], kind: Any = None) -> Path:
    """`kind`: of the matrices, a GGMLQuantizationType. Numbers are uint32 and float32."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        add(writer, key, value)
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.numpy())
        if kind is not None and array.ndim == 2:
            writer.add_tensor(name, quantized(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# Where a block has its float16 scales, by kind: the kinds that gguf decodes and does not encode (ggml-common.h).
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def quantized(matrix: np.ndarray, kind: Any) -> np.ndarray:
    """`matrix` in blocks of `kind`; where gguf has no encoder, blocks of the matrix's shape that are drawn: bytes, and scales near 1e-3."""
    if kind.name not in SCALES:
        return gguf.quantize(matrix, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(matrix.size)
    blocks = random.integers(0, 256, (*matrix.shape[:-1], matrix.shape[-1] // block, size), np.uint8)
    for place in SCALES[kind.name]:
        blocks[..., place : place + 2] = random.uniform(5e-4, 2e-3, (*blocks.shape[:-1], 1)).astype("<f2").view(np.uint8)
    return blocks.reshape(*matrix.shape[:-1], -1)


def add(writer: Any, key: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
    kinds[type(value)](key, value)


def write_model(path: Path, model: Any, keys: Keys = {}, tensors: Mapping[str, Tensor] = {}, kind: Any = None) -> Path:  # noqa: B006
    """`keys` and `tensors`: what the file holds besides, or instead; None leaves a key or a tensor out."""
    all_keys = {key: value for key, value in (model_keys(model) | dict(keys)).items() if value is not None}
    all_tensors = {name: tensor for name, tensor in (model_tensors(model) | dict(tensors)).items() if tensor is not None}
    return write_file(path, ARCHITECTURES[model.config.model_type], all_keys, all_tensors, kind)


def rope_factors(head_dim: int, theta: float, factor: float, low: float, high: float, original: int) -> Tensor:
    """As llama.cpp's converter computes them, frequency by frequency."""
    factors = []
    for frequency in 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)):
        wave = 2 * torch.pi / frequency
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(factor)
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(float(1 / ((1 - smooth) / factor + smooth)))
    return torch.tensor(factors)
