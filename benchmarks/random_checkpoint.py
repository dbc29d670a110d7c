"""Writes a Hugging Face checkpoint of random weights in the shape of a known model: `random_checkpoint.py DIR [--shape NAME]`.

The values are random (normal, 0.02), so it measures time and memory, not quality.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIGS = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig, "gemma3_text": transformers.Gemma3TextConfig}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4_864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "rope_theta": 1_000_000.0,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 100_000.0,
    },
    "gemma3-270m": {
        "model_type": "gemma3_text",
        "vocab_size": 262_144,
        "hidden_size": 640,
        "intermediate_size": 2_048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
    },
}


def write_random_checkpoint(directory: Path, shape: str, layers: int | None) -> None:
    """bfloat16 safetensors, and a byte-level tokenizer (256 of the vocabulary's tokens), as no real one is to be had offline."""
    torch.manual_seed(0)
    fields = SHAPES[shape] | {"tie_word_embeddings": True} | ({"num_hidden_layers": layers} if layers else {})
    config = CONFIGS[fields.pop("model_type")](**fields)
    torch.set_default_dtype(torch.bfloat16)
    try:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    finally:
        torch.set_default_dtype(torch.float32)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}\n')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen2.5-0.5b")
    parser.add_argument("--layers", type=int, help="other than the shape's own")
    arguments = parser.parse_args()
    write_random_checkpoint(arguments.directory, arguments.shape, arguments.layers)
