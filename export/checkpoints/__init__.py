"""Checkpoints as they come: Hugging Face directories and GGUF files."""
