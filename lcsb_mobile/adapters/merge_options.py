"""What `merge` is asked for. It stands apart, so that its defaults can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MergeDtype = Literal["bfloat16", "float32", "float16"]


@dataclass(frozen=True)
class MergeOptions:
    """`source`: an adapter file, or a run's checkpoints. `model`: a Hugging Face directory, a .gguf file, or "tiny". `dequantized`:
    the bundle's own weights instead of the model's, those that the adapter was trained on."""

    source: Path
    model: str
    output: Path
    dequantized: bool = False
    dtype: MergeDtype = "bfloat16"
    force: bool = False
