"""Merging into a GGUF file's model: read, merged, written as a Hugging Face directory, and the same function there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from helpers.checkpoints import SIZES, VOCABULARY, random_model, write_tokenizer
from helpers.onnxruntime_bundles import DEFAULTS, manifest_of
from helpers.peft_models import TOLERANCE, load_peft, logits
from helpers.tiny_models import LORA, SEQ_LEN, TinyModel

from lcsb_mobile.adapters.merge_options import MergeOptions
from lcsb_mobile.adapters.peft import export_peft
from lcsb_mobile.bundle.adapter import save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.weights import WEIGHTS_FILE, MappedWeights
from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.merge import merge
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.weights.compress import write_weights
from lcsb_mobile.export.weights.layer_tensors import lora_layout

LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_gguf(path: Path, directory: Path) -> None:
    """A Qwen2, in whose GGUF no matrix is permuted, with the tokenizer of `write_tokenizer`."""
    write_tokenizer(directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())["model"]
    state = random_model("qwen2", tied=True, head_dim=8).state_dict()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(tokenizer["vocab"]))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_eos_token_id(2)
    tensors = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for layer in range(SIZES["num_hidden_layers"]):
        for theirs, ours in LAYER.items():
            for part in ("weight", "bias"):
                if (name := f"model.layers.{layer}.{ours}.{part}") in state:
                    tensors[f"blk.{layer}.{theirs}.{part}"] = name
    for theirs, ours in tensors.items():
        writer.add_tensor(theirs, state[ours].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bundle_of_gguf(path: Path, directory: Path) -> tuple[TinyModel, Bundle]:
    with open_checkpoint(path) as checkpoint:
        assert not {"quantization_config", "_name_or_path"} & checkpoint.raw.keys()  # of the file, not of the model
        config, quantization = checkpoint.config, QuantizationConfig(group_size=8)
        table, errors = write_weights(directory / WEIGHTS_FILE, checkpoint, quantization, SEQ_LEN, lambda done, total: None)
    weights = MappedWeights(directory / WEIGHTS_FILE, table)
    model = TinyModel(directory, config, quantization, lora_layout(model_of(config), LORA), table, weights, errors)
    return model, Bundle(directory, manifest_of(model, "onnxruntime", DEFAULTS, {}))


def test_merged_gguf_is_the_same_function(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", tmp_path)
    model, bundle = bundle_of_gguf(tmp_path / "model.gguf", tmp_path)
    save_adapter(tmp_path / "adapter", model.layout, model.adapter())
    options = MergeOptions(tmp_path / "adapter", str(tmp_path / "model.gguf"), tmp_path / "merged", dtype="float32")
    result = merge(bundle, options)
    assert result.base_difference is not None and 0 < result.base_difference < 0.1
    config: dict[str, Any] = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and config["dtype"] == "float32"
    assert not {"quantization_config", "_name_or_path"} & config.keys()
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    base = random_model("qwen2", tied=True, head_dim=8)
    export_peft(tmp_path / "adapter", bundle, tmp_path / "peft")
    expected = logits(load_peft(base, tmp_path / "peft"))
    np.testing.assert_allclose(logits(merged), expected, rtol=0, atol=TOLERANCE["qwen2"])
    assert merged.dtype == torch.float32
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.decode(tokenizer.encode("the rain, again")) == "the rain, again"
