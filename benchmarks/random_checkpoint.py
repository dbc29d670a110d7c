"""Writes a Hugging Face checkpoint of random weights in the shape of a known model: `random_checkpoint.py DIR [--shape NAME]`.

The values are random (normal, 0.02), so it measures time and memory, not quality.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import lcsb_mobile.bench.shapes
from lcsb_mobile.export.random_bundle import write_byte_tokenizer

CONFIGS = {
    "gemma2": transformers.Gemma2Config,
    "gemma3_text": transformers.Gemma3TextConfig,
    "granite": transformers.GraniteConfig,
    "lfm2": transformers.Lfm2Config,
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "qwen3_5_text": transformers.Qwen3_5TextConfig,
    "smollm3": transformers.SmolLM3Config,
}
GEMMA3_270M: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2_048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "tie_word_embeddings": True,
}
SHAPES: dict[str, Mapping[str, Any]] = lcsb_mobile.bench.shapes.SHAPES | {"gemma3-270m": GEMMA3_270M}


def write_random_checkpoint(directory: Path, shape: str, layers: int | None) -> None:
    """bfloat16 safetensors, and a byte-level tokenizer (256 of the vocabulary's tokens), as no real one is to be had offline."""
    torch.manual_seed(0)
    fields = dict(SHAPES[shape]) | ({"num_hidden_layers": layers} if layers else {})
    config = CONFIGS[fields.pop("model_type")](**fields)
    torch.set_default_dtype(torch.bfloat16)
    try:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    finally:
        torch.set_default_dtype(torch.float32)
    write_byte_tokenizer(directory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen2.5-0.5b")
    parser.add_argument("--layers", type=int, help="other than the shape's own")
    arguments = parser.parse_args()
    write_random_checkpoint(arguments.directory, arguments.shape, arguments.layers)
