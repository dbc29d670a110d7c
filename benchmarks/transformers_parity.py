"""Each architecture against transformers, peft and autograd, on a small random model, at lengths beyond the windows.

Logits: of the float checkpoint, by `float_model.model_logits`. Loss and gradients: of law 1 (all layers), law 2 with the exact gradient
and law 2 with identities, each on one long example and on packed ones, against peft's LoRA on transformers' model whose matrices are
those that the bundle's decompress to; identities by `h + (o - h).detach()`. Decoding: with the cache, from a prompt within the window to
the last place. Figures are the largest difference in all these, relative to the largest element (of a layer's gradient, of the logits) or
to the loss. All in float32. Needs the tests' helpers and both targets: run it in .venv-onnxruntime-training.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import ROOT, markdown_table, write_results

sys.path.insert(0, str(ROOT / "tests"))

from helpers.checkpoints import random_model, write_checkpoint
from helpers.tiny_models import TinyModel, example, largest_difference, pack, subset
from helpers.transformers_reference import RecordingRunner, TransformersReference

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.batch import Batch, StepResult, StepRunner
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.export.checkpoints.hugging_face import open_checkpoint
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.reference.float_model import model_logits
from lcsb_mobile.runners import make_runner
from lcsb_mobile.targets import Target

SEQ_LEN, WINDOW = 128, 24
TARGETS: tuple[Target, ...] = ("onnxruntime", "onnxruntime-training")
SIZES = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2}
SIZES |= {"head_dim": 32}
WINDOWS = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}
# On 18 of 24, which is what Phi3Config makes of the sizes: a head is hidden_size / num_attention_heads there.
LONGROPE = {"rope_type": "longrope", "partial_rotary_factor": 0.75, "short_factor": [1 + number / 8 for number in range(9)]}
LONGROPE |= {"long_factor": [4.0**number for number in range(9)]}
GEMMA = {"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] * 3}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "phi3": {"sliding_window": WINDOW, "head_dim": 24, "original_max_position_embeddings": 256, "rope_parameters": LONGROPE},
    "qwen2": WINDOWS,
    "qwen3": WINDOWS,
    "gemma3_text": GEMMA | {"query_pre_attn_scalar": 32},
    "gemma2": GEMMA | {"query_pre_attn_scalar": 32, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0},
    "granite": {"embedding_multiplier": 12.0, "attention_multiplier": 0.3, "residual_multiplier": 0.4, "logits_scaling": 0.7},
    "smollm3": {"no_rope_layer_interval": 4, "use_sliding_window": True, "sliding_window": WINDOW},
}
BATCHES = (pack([example(1, SEQ_LEN)], SEQ_LEN), pack([example(2, 70), example(3, 30), example(4, 20)], SEQ_LEN))
STEPS = (subset(range(6)), subset([1, 2], range(1, 6)), subset([0, 3]))


@dataclass
class Differences:
    """The largest so far."""

    loss: float = 0.0
    lora: float = 0.0

    def add(self, found: StepResult, expected: StepResult) -> None:
        self.loss = max(self.loss, abs(found.loss / expected.loss - 1))
        self.lora = max(self.lora, largest_difference(found, expected))


def cases() -> Iterator[tuple[Batch, Subset]]:
    for batch in BATCHES:
        for step in STEPS:
            yield batch, step


def logits_difference(directory: Path, model_type: str) -> float:
    """Of a long example's logits, relative to the largest."""
    ids = torch.from_numpy(BATCHES[0].input_ids)
    model = random_model(model_type, tied=True, **(SIZES | ARCHITECTURES[model_type]))
    with torch.no_grad(), open_checkpoint(directory) as checkpoint:
        expected = model(ids[None]).logits[0]
        found = model_logits(checkpoint.config, checkpoint.read, ids)
    return float((found - expected).abs().max() / expected.abs().max())


def decoding_difference(runner: StepRunner, reference: TransformersReference, adapter: Float32Array) -> float:
    """As `logits_difference`, of the adapted model's after each token."""
    ids, prompt = BATCHES[0].input_ids, WINDOW // 2
    expected = reference.logits(torch.from_numpy(ids), adapter).numpy()[prompt - 1 :]
    decoder = runner.decoder(adapter)
    found = [decoder.start(ids[:prompt].tolist()), *(decoder.extend(int(token)) for token in ids[prompt:])]
    return float(np.abs(np.stack(found) - expected).max() / np.abs(expected).max())


def opened(bundle: Bundle, directory: Path) -> TinyModel:
    manifest = bundle.manifest
    return TinyModel(directory, manifest.model, manifest.quantization, manifest.adapter, manifest.weights, bundle.weights, {}, SEQ_LEN)


def measure(directory: Path, model_type: str) -> dict[str, Any]:
    checkpoint = write_checkpoint(directory / "huggingface", model_type, tied=True, **(SIZES | ARCHITECTURES[model_type]))
    bundles = {}
    for target in TARGETS:
        export_bundle(ExportOptions(model=str(checkpoint), output=directory / target, target=target, seq_len=SEQ_LEN))
        bundles[target] = Bundle.open(directory / target)
    model = opened(bundles["onnxruntime"], directory)
    reference, adapter = TransformersReference.of(model), model.adapter()
    eager, runners = RecordingRunner(model_of(model.config), model.layout, model.weights), {t: make_runner(b) for t, b in bundles.items()}
    differences, hidden = {name: Differences() for name in ("eager", *TARGETS)}, 0.0
    for batch, step in cases():
        expected, gradients = reference.step(step, batch, adapter)
        differences["eager"].add(eager.step(step, batch, adapter), expected)
        for layer, g in eager.hidden.items():
            hidden = max(hidden, float(np.abs(g - gradients[layer]).max() / np.abs(gradients[layer]).max()))
        for target, runner in runners.items():
            differences[target].add(runner.step(step, batch, adapter), expected)
    windows = sorted({kind.window for kind in model.config.attention_kinds.values() if kind.window is not None})
    found = {name: asdict(values) for name, values in differences.items()}
    logits = logits_difference(checkpoint, model_type)
    decoding = decoding_difference(runners["onnxruntime"], reference, adapter)
    return {"model_type": model_type, "windows": windows, "logits": logits, "hidden": hidden, "decoding": decoding, **found}


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows, table = [], []
    for model_type in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as temporary:
            row = measure(Path(temporary), model_type)
        rows.append(row)
        lora = [f"{row[name]['lora']:.1e}" for name in ("eager", *TARGETS)]
        loss = max(row[name]["loss"] for name in ("eager", *TARGETS))
        window = ", ".join(map(str, row["windows"])) or "–"
        table.append(
            [f"`{model_type}`", window, f"{row['logits']:.1e}", f"{loss:.1e}", f"{row['hidden']:.1e}", *lora, f"{row['decoding']:.1e}"]
        )
        print(table[-1], flush=True)
    header = [
        "architecture",
        "window",
        "logits",
        "loss",
        "gradient of the hidden states",
        "of LoRA, eager",
        *(f"of LoRA, {t}" for t in TARGETS),
        "decoding",
    ]
    setting = f"{SEQ_LEN} tokens, {SIZES['num_hidden_layers']} layers, random weights, int4 in groups of 32, LoRA of rank 8"
    versions = (
        f"\n{setting}; transformers {transformers.__version__}, onnxruntime-training {metadata.version('onnxruntime-training-cpu')}.\n"
    )
    write_results("transformers_parity", markdown_table(header, table) + versions, rows)


if __name__ == "__main__":
    main()
