"""Writes a Hugging Face checkpoint of random weights in the shape of a known model: `random_checkpoint.py DIR [--layers N]`.

The shape is Qwen2.5-0.5B's. The values are random (normal, 0.02), so it measures time and memory, not quality.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

QWEN2_5_0_5B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4_864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}


def write_random_checkpoint(directory: Path, layers: int) -> None:
    """bfloat16 safetensors, and a byte-level tokenizer (256 of the vocabulary's tokens), as no real one is to be had offline."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**{**QWEN2_5_0_5B, "num_hidden_layers": layers})
    torch.set_default_dtype(torch.bfloat16)
    try:
        transformers.Qwen2ForCausalLM(config).save_pretrained(directory)
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
    parser.add_argument("--layers", type=int, default=QWEN2_5_0_5B["num_hidden_layers"])
    arguments = parser.parse_args()
    write_random_checkpoint(arguments.directory, arguments.layers)
