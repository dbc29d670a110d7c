"""Tiny models as bundles that adapters can be checked against, and as transformers models that peft adapts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import transformers
from peft import PeftModel

from helpers.onnxruntime_bundles import DEFAULTS, manifest_of
from helpers.tiny_models import TinyModel, example
from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import save_adapter
from lcsb_mobile.bundle.directory import Bundle, base_digest
from lcsb_mobile.bundle.manifest import ADAPTER_FILE
from lcsb_mobile.bundle.weights import WEIGHTS_FILE
from lcsb_mobile.export.models import checkpoint_weights, model_of
from lcsb_mobile.export.weights.quantization import dequantize

INPUT = example(seed=3, length=17)  # one example: transformers knows no segments

# Largest difference of a logit, of logits up to 4.5 (Gemma 9). Both sides are float32 and sum in another order, so what is left is
# rounding: over 4 adapters of each model 1.4e-6 to 3.9e-6, Gemma, whose norms scale it up (test_models.py), 6e-6 to 1.3e-5.
TOLERANCE = {"llama": 1e-5, "mistral": 1e-5, "phi3": 1e-5, "qwen2": 1e-5, "qwen3": 1e-5, "gemma3_text": 4e-5}
TOLERANCE |= {"gemma2": 2e-5, "granite": 1e-5, "smollm3": 1e-5}


def bundle_of(model: TinyModel, directory: Path) -> Bundle:
    """An open bundle without programs, tokenizer and a file of its manifest: weights and initial adapter."""
    directory.mkdir(parents=True)
    shutil.copy(model.directory / WEIGHTS_FILE, directory)
    save_adapter(directory / ADAPTER_FILE, model.layout, model.layout.initial(5))
    manifest = manifest_of(model, "onnxruntime", DEFAULTS, {})
    return Bundle(directory, msgspec.structs.replace(manifest, identity="1d" * 32, base=base_digest(manifest, directory / WEIGHTS_FILE)))


def dequantized(model: TinyModel) -> Any:
    """transformers' model of the same architecture with the bundle's weights, put there tensor by tensor."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        model.directory / "huggingface", dtype=torch.float32, attn_implementation="eager"
    )
    state = loaded.state_dict()
    with torch.no_grad():
        for name in checkpoint_weights(model.config):
            state[name].copy_(stored(model, name))
    return loaded.eval()


def stored(model: TinyModel, name: str) -> torch.Tensor:
    """What `weights.bin` holds of a checkpoint's tensor, as float32."""
    table, layer = model.weights, slice(None)
    short = name.removeprefix("model.")
    if short.startswith("layers."):
        _, number, rest = short.split(".", 2)
        whole = model_of(model.config)
        short, layer = f"layers.{whole.places[int(number)].kind}.{rest}", whole.numbers[int(number)]
    if short in table:
        return torch.from_numpy(table[short][layer])
    return dequantize(*(torch.from_numpy(table[f"{short}.{part}"][layer]) for part in ("packed", "scale")))


def runner_logits(model: TinyModel, adapter: Float32Array) -> Float32Array:
    """The toolkit's, (T, vocab_size)."""
    runner = model.runner()
    return np.stack([runner.next_logits(INPUT, position, adapter) for position in range(len(INPUT.input_ids))])


@torch.no_grad()
def logits(model: Any) -> Float32Array:
    """transformers' or peft's, (T, vocab_size)."""
    result: Float32Array = model(torch.from_numpy(INPUT.input_ids)[None]).logits[0].numpy()
    return result


def load_peft(base: Any, directory: Path) -> Any:
    return PeftModel.from_pretrained(base, str(directory)).eval()
