"""A Qwen3 in GGUF: the model that was written, and its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from helpers.checkpoints import CHAT_TEMPLATE, SIZES, VOCABULARY, random_model, write_tokenizer

from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.export.reference.float_model import model_logits
from lcsb_mobile.text.tokenizer import Tokenizer

HEAD_DIM = 128  # that of every published Qwen3


def write_gguf(path: Path, model: Any) -> Path:
    """With names as llama.cpp writes them, and the tokenizer of `write_tokenizer`."""
    (path.parent / "source").mkdir()  # beside the file, transformers would read it instead
    write_tokenizer(path.parent / "source")
    tokenizer = json.loads((path.parent / "source" / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_key_length(model.config.head_dim)
    writer.add_value_length(model.config.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(tokenizer["vocab"]))
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (VOCABULARY - 4))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, SIZES["num_hidden_layers"])
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not model.config.tie_word_embeddings:
            writer.add_tensor(f"{names.get_name(name.removesuffix('.weight'))}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_model_that_was_written(tmp_path: Path, tied: bool) -> None:
    model = random_model("qwen3", tied=tied, head_dim=HEAD_DIM, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    state, input_ids = model.state_dict(), torch.arange(4, 44)
    with open_checkpoint(write_gguf(tmp_path / "model.gguf", model)) as checkpoint:
        config = checkpoint.config
        assert (config.model_type, config.tie_word_embeddings, config.head_dim) == ("qwen3", tied, HEAD_DIM)
        assert all(torch.equal(checkpoint.read(name), state[name]) for name in checkpoint_weights(config))
        assert any(name.endswith("self_attn.q_norm.weight") for name in checkpoint_weights(config))
        with torch.no_grad():
            expected = model(input_ids[None]).logits[0]
        # float32 on both sides: rounding, as in tests/export/models/test_models.py
        torch.testing.assert_close(model_logits(config, checkpoint.read, input_ids), expected, rtol=0, atol=2e-5)
        checkpoint.write_tokenizer(tmp_path / "out")
    tokenizer = Tokenizer.open(tmp_path / "out", VOCABULARY)
    assert tokenizer.decode(tokenizer.encode("the sea\n")) == "the sea\n"
    assert tokenizer.eos_id == 2 and tokenizer.has_chat_template


def test_another_head_dim(tmp_path: Path) -> None:
    """The file says its size, and its tensors have it."""
    with open_checkpoint(write_gguf(tmp_path / "model.gguf", random_model("qwen3", tied=True))) as checkpoint:
        assert checkpoint.config.head_dim == SIZES["head_dim"]
