"""The embedded model: a byte-level Qwen2 of 2 M parameters, and a sample data set. TRAINING.md says how it was trained."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
MESSAGES = DIRECTORY / "messages.jsonl"
EVAL_MESSAGES = DIRECTORY / "messages_eval.jsonl"


def tiny_checkpoint() -> Path:
    """The Hugging Face checkpoint directory of `tiny`."""
    return DIRECTORY
