"""The embedded model `tiny`: its size, its tokenizer, its sample messages, and that `TRAINING.md` tells the truth about it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer

TINY = Path(__file__).resolve().parents[2] / "lcsb_mobile" / "tiny"
SPECIAL_TOKENS = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
TOKENIZER = Tokenizer.from_file(str(TINY / "tokenizer.json"))


def messages(name: str) -> list[str]:
    lines = [json.loads(line) for line in (TINY / name).read_text("utf-8").splitlines()]
    assert all(set(line) == {"text"} for line in lines)
    return [line["text"] for line in lines]


def test_size() -> None:
    assert (TINY / "model.safetensors").stat().st_size < 5_000_000
    config = json.loads((TINY / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("qwen2", 8)
    with safe_open(TINY / "model.safetensors", "np") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
        assert {tensors.get_slice(name).get_dtype() for name in shapes} == {"F16"}
    assert "lm_head.weight" not in shapes  # tied: stored once
    assert {int(name.split(".")[2]) for name in shapes if name.startswith("model.layers.")} == set(range(8))
    parameters = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes.values())
    assert 2_000_000 <= parameters <= 4_000_000
    assert f"{parameters:,}" in (TINY / "TRAINING.md").read_text()


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<|" not in text))
def test_tokenizer_is_bytes(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert ids == list(text.encode("utf-8"))
    assert TOKENIZER.decode(ids) == text


def test_special_tokens() -> None:
    config = json.loads((TINY / "config.json").read_text())
    settings = json.loads((TINY / "tokenizer_config.json").read_text())
    for token, id in SPECIAL_TOKENS.items():
        assert TOKENIZER.token_to_id(token) == id
        assert TOKENIZER.encode(f"a{token}b").ids == [ord("a"), id, ord("b")]
    assert TOKENIZER.get_vocab_size() == 259 <= config["vocab_size"]
    assert config["eos_token_id"] == SPECIAL_TOKENS[settings["eos_token"]]
    assert config["pad_token_id"] == SPECIAL_TOKENS[settings["pad_token"]]
    assert settings["bos_token"] is None


def test_transformers_reads_the_same_tokenizer() -> None:
    """The same ids for any text in Unicode's composed form.

    For `model_type` qwen2, transformers 5 puts Qwen2's own regex and NFC before any vocabulary; without merges only NFC can be seen.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    text = "ok so  café -- it's 12 o'clock\n\tnaïve 🍞"
    assert tokenizer(text)["input_ids"] == list(text.encode("utf-8"))
    assert tokenizer.decode(list(text.encode("utf-8"))) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_messages() -> None:
    train, held_out = messages("messages.jsonl"), messages("messages_eval.jsonl")
    assert len(train) >= 150
    assert len(held_out) >= 24
    assert len({*train, *held_out}) == len(train) + len(held_out)  # no duplicates, none in both
    for text in train + held_out:
        assert len(TOKENIZER.encode(text).ids) <= 200
        assert text == text.strip().lower() and " -- " in text and text.endswith(", x"), text  # the writer's style


def test_training_report_is_true() -> None:
    """The loss on `messages_eval.jsonl` that TRAINING.md states is the checkpoint's.

    The held-out docstrings differ from Python to Python, so these messages stand for them; 0.02 covers other versions of torch.
    """
    report = (TINY / "TRAINING.md").read_text()
    stated = {key: float(value) for key, value in re.findall(r"\| ([^|]+) \| ([\d.]+) nats per byte \|", report)}
    assert {"held-out loss", "loss on messages_eval.jsonl"} <= set(stated)
    model = transformers.Qwen2ForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    losses = []
    for text in messages("messages_eval.jsonl"):
        ids = torch.tensor([[*text.encode("utf-8"), SPECIAL_TOKENS["<|endoftext|>"]]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none"))
    assert float(torch.cat(losses).mean()) == pytest.approx(stated["loss on messages_eval.jsonl"], abs=0.02)
