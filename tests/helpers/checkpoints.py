"""Small random checkpoints, written by transformers as users' own are, with a tokenizer over the same vocabulary."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers

VOCABULARY = 131
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
MERGES = "t h|h e|i n|e r|a n|r e|o n|a t|e n|n d|t i|e s|o r|t e|o f|e d|i s|i t|a l|a r|s t|t o|n t|n g|s e|h a|a s|o u|i o|l e|v e"
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)

# Odd sizes, none a multiple of another without need; head_dim is not hidden_size / num_attention_heads.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "llama": {},
    "ministral": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "mistral": {"sliding_window": 5},
    "phi3": {
        "head_dim": 8,  # hidden_size / num_attention_heads: what Phi3Config counts the factors by
        "sliding_window": 5,
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "partial_rotary_factor": 0.75,  # 6 of 8
            "short_factor": [1.0, 1.25, 2.5],
            "long_factor": [1.0, 3.0, 40.0],
        },
    },
    "qwen2": {},
    "qwen3": {},
    "gemma3_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "sliding_window": 5,
        "query_pre_attn_scalar": 20,
    },
    # Caps that the scores and logits of random weights come near to; multipliers of which none is 1 and none the usual value.
    "gemma2": {"sliding_window": 5, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0},
    "granite": {"embedding_multiplier": 6, "attention_multiplier": 0.4, "residual_multiplier": 0.3, "logits_scaling": 0.7},
    "smollm3": {"no_rope_layer_interval": 2},
    "lfm2": {
        "num_hidden_layers": 5,
        "full_attn_idxs": [1, 4],
        "block_auto_adjust_ff_dim": False,
    },
    "qwen3_5_text": {
        "num_hidden_layers": 5,
        "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 24,
        "linear_value_head_dim": 20,
        "rms_norm_eps": 1e-4,  # the norm of what the delta rule reads divides by almost nothing now and then, and so makes rounding large
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.34},  # 4 of 12
    },
}


def write_checkpoint(
    directory: Path, model_type: str, *, tied: bool, seed: int = 0, shards: int = 1, dtype: str = "float32", **overrides: Any
) -> Path:
    """Writes a checkpoint of random weights into `directory`, which is made. `overrides` are fields of HF's config class.

    Norms and biases are random too, so that nothing is 0 or 1 by accident. With `shards` > 1 there are at least so many.
    """
    model = random_model(model_type, tied=tied, seed=seed, **overrides).to(getattr(torch, dtype))
    model.config.dtype = dtype
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    model.save_pretrained(directory, max_shard_size=math.ceil(size / shards) if shards > 1 else "5GB")
    write_tokenizer(directory)
    return directory


def random_model(model_type: str, *, tied: bool, seed: int = 0, **overrides: Any) -> Any:
    """A transformers causal LM, float32, eager attention, random weights."""
    options = SIZES | OWN_SIZES[model_type] | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3} | overrides
    config = transformers.AutoConfig.for_model(model_type, tie_word_embeddings=tied, **options)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            deviation = 0.3 if parameter.dim() == 1 else parameter[0].numel() ** -0.5  # matrices keep the variance of their input
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
            elif name.endswith("dt_bias"):
                parameter.sub_(3.0)  # as trained models have it: some heads remember few tokens, others hundreds
                parameter.mul_(1.5)
    return model.eval()


def write_tokenizer(directory: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`: printable ASCII by characters and some pairs, VOCABULARY tokens."""
    merges = [(left, right) for left, right in (pair.split(" ") for pair in MERGES.split("|"))]
    characters = [*sorted(string.digits + string.ascii_letters + string.punctuation), "Ġ", "Ċ"]
    tokens = [*SPECIAL_TOKENS, *characters, *(left + right for left, right in merges)]
    assert len(tokens) == len(set(tokens)) == VOCABULARY, len(tokens)
    model = models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 48, "num_position_embeddings": 16}


SIGLIP = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}


def multimodal_model(model_type: str, tied: bool) -> tuple[Any, Any]:
    """`model_type` "gemma3" or "qwen3_5": transformers' model with a vision tower, and its text model by itself."""
    text = SIZES | OWN_SIZES[f"{model_type}_text"] | {"tie_word_embeddings": tied}
    if model_type == "gemma3":
        config: Any = transformers.Gemma3Config(text_config=text, vision_config=SIGLIP, tie_word_embeddings=tied, mm_tokens_per_image=4)
        model: Any = transformers.Gemma3ForConditionalGeneration(config).eval()
    else:
        config = transformers.Qwen3_5Config(text_config=text, vision_config=VISION, tie_word_embeddings=tied)
        model = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    random = random_model(f"{model_type}_text", tied=tied)
    model.model.language_model.load_state_dict(random.model.state_dict())
    model.lm_head.load_state_dict(random.lm_head.state_dict())
    return model, random


def write_multimodal(directory: Path, tied: bool, shards: bool = False, model_type: str = "qwen3_5") -> Any:
    """With a vision tower; Qwen3.5 also with a tensor of the layers for multi-token prediction that published checkpoints have. Returns its
    text model by itself."""
    model, random = multimodal_model(model_type, tied)
    model.save_pretrained(directory, max_shard_size="100KB" if shards else "5GB")
    if model_type == "gemma3":
        write_tokenizer(directory)
        return random
    file = sorted(directory.glob("*.safetensors"))[0]
    save_file(load_file(file) | {"mtp.fc.weight": torch.zeros(3)}, file, metadata={"format": "pt"})
    if shards:
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        index["weight_map"]["mtp.fc.weight"] = file.name
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    write_tokenizer(directory)
    return random
