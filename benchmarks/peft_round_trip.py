"""Adapters in peft and transformers, and merged: `peft_round_trip.py [architectures] [dtypes]`, both without arguments.

`architectures`: a small random model of each, trained for some steps: logits here and there. `dtypes`: SmolLM2-135M fine-tuned and merged
(needs `make models`). transformers computes in float32 whatever the weights are stored in, so that the difference is that of the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from common import MODELS, lcsb, markdown_table, random_text, write_results

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.adapter import load_adapter
from lcsb_mobile.bundle.batch import Batch
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.export.random_bundle import write_byte_tokenizer
from lcsb_mobile.measuring.machine import scratch_directory
from lcsb_mobile.runners import make_runner
from lcsb_mobile.targets import RunnerName

SEQ_LEN, STEPS = 32, 12
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
ARCHITECTURES = ("gemma3_text", "llama", "qwen2", "qwen3")  # of the others: tests/runs/test_hybrid_models.py
DTYPES = ("float32", "float16", "bfloat16")
SEQUENCE, SEQUENCES = 128, 24  # tokens of held-out text
TRAINED_STEPS = 60

Row = dict[str, Any]


def random_checkpoint(directory: Path, model_type: str) -> None:
    """Weights that keep the variance of their input, so that logits are of the size of one."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, tie_word_embeddings=True, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    model.save_pretrained(directory)
    write_byte_tokenizer(directory)


def load(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> Float32Array:
    """(T, vocab_size)."""
    result: Float32Array = model(ids[None]).logits[0].numpy()
    return result


def runner_logits(bundle: Bundle, name: RunnerName, ids: torch.Tensor, adapter: Float32Array) -> Float32Array:
    runner, positions = make_runner(bundle, name, threads=1), np.arange(len(ids))
    batch = Batch(ids.numpy(), np.full_like(positions, -100), positions, np.zeros_like(positions))
    return np.stack([runner.next_logits(batch, position, adapter) for position in positions])


def round_trip(model_type: str, directory: Path) -> Row:
    """A trained adapter of a random model. Differences are the largest of any logit of a sequence."""
    checkpoint, path, trained, back = (directory / name for name in ("checkpoint", "bundle", "trained.safetensors", "back.safetensors"))
    random_checkpoint(checkpoint, model_type)
    shape = ("--seq-len", str(SEQ_LEN), "--group-size", "16", "--rank", "4", "--subsets", "2")
    lcsb("export", checkpoint, "--target", "onnxruntime", *shape, "--output", path)
    random_text(directory / "data.jsonl", SEQ_LEN)
    lcsb("simulate", path, "--data", directory / "data.jsonl", "--steps", str(STEPS), "--lr", "1e-2", "--adapter", trained)
    of_bundle = ("--bundle", path)
    base, merging = directory / "base", ("--model", checkpoint, "--dequantized")
    lcsb("adapter", "merge", path / "adapter.safetensors", *of_bundle, *merging, "--dtype", "float32", "--output", base)  # its B is zero
    lcsb("adapter", "export", trained, *of_bundle, "--output", directory / "peft")

    ids = torch.randint(0, 256, (SEQ_LEN,), generator=torch.Generator().manual_seed(1))
    alone = logits(load(base), ids)
    adapted = peft.PeftModel.from_pretrained(load(base), str(directory / "peft")).eval()
    reference = logits(adapted, ids)
    adapted.save_pretrained(str(directory / "saved"))
    lcsb("adapter", "import", directory / "saved", *of_bundle, "--output", back)
    bundle = Bundle.open(path)
    adapter, returned = (load_adapter(file, bundle.manifest.adapter) for file in (trained, back))
    row: Row = {"architecture": model_type, "largest_logit": float(np.abs(reference).max()), "adapter": largest(reference, alone)}
    runners: tuple[RunnerName, ...] = ("eager", "onnxruntime")
    row |= {name: largest(runner_logits(bundle, name, ids, adapter), reference) for name in runners}
    row["same_bits"] = bool(np.array_equal(adapter, returned))
    for dtype in DTYPES:
        lcsb("adapter", "merge", trained, *of_bundle, *merging, "--dtype", dtype, "--output", directory / dtype)
        row[dtype] = largest(logits(load(directory / dtype), ids), reference)
    return row


def largest(found: Float32Array, expected: Float32Array) -> float:
    return float(np.abs(found - expected).max())


def architectures() -> None:
    rows, table = [], []
    for model_type in ARCHITECTURES:
        with tempfile.TemporaryDirectory(dir=scratch_directory()) as directory:
            rows.append(row := round_trip(model_type, Path(directory)))
        figures = [f"{row[name]:.1e}" for name in ("eager", "onnxruntime", *DTYPES)]
        bits = "the same bits" if row["same_bits"] else "other bits"
        table.append([model_type, f"{row['largest_logit']:.1f}", f"{row['adapter']:.1f}", *figures[:2], bits, *figures[2:]])
    header = ["architecture", "largest logit", "the adapter's share", "PyTorch runner", "ONNX Runtime", "back from PEFT"]
    header += [f"merged, {dtype}" for dtype in DTYPES]
    versions = f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    note = (
        f"\nLargest difference of a logit from peft's on the dequantised base; 4 layers, 64 wide, random weights, rank 4, {STEPS} steps; "
        f"{versions}.\n"
    )
    write_results("peft_round_trip", markdown_table(header, table) + note, rows, "peft_round_trip.py architectures")


def held_out(tokenizer: Any) -> Sequence[torch.Tensor]:
    sayings = [json.loads(line)["text"] for line in (MODELS / "fortunes.eval.jsonl").read_text().splitlines()]
    ids = tokenizer("\n\n".join(sayings[:400]), return_tensors="pt").input_ids[0]
    return [part for part in ids[: SEQUENCE * SEQUENCES].split(SEQUENCE) if len(part) == SEQUENCE]


def evaluate(directory: Path) -> tuple[float, list[torch.Tensor]]:
    """Mean loss, and the log-probabilities (T, vocab_size) of each sequence."""
    model = load(directory)
    sequences = held_out(transformers.AutoTokenizer.from_pretrained(directory))
    found = [torch.from_numpy(logits(model, ids)).log_softmax(-1) for ids in sequences]
    losses = [torch.nn.functional.nll_loss(scores[:-1], ids[1:]) for scores, ids in zip(found, sequences, strict=True)]
    return float(torch.stack(losses).mean()), found


def divergence(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Mean Kullback-Leibler divergence of the predicted token, in nats."""
    parts = [(right.exp() * (right - left)).sum(-1).mean() for left, right in zip(found, expected, strict=True)]
    return float(torch.stack(parts).mean())


def dtypes() -> None:
    """What storing the merged weights costs, on the model's own weights and on the bundle's."""
    gguf, rows = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf", []
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as temporary:
        directory = Path(temporary)
        path, trained, merged = directory / "bundle", directory / "trained.safetensors", directory / "merged"
        lcsb("export", gguf, "--quantizer", "search", "--output", path)
        lcsb("simulate", path, "--data", MODELS / "fortunes.train.jsonl", "--steps", str(TRAINED_STEPS), "--adapter", trained)
        initial, model = path / "adapter.safetensors", directory / "model"
        lcsb(
            "adapter", "merge", initial, "--bundle", path, "--model", gguf, "--dtype", "float32", "--output", model
        )  # decoded once for all
        for base, options in (("the model's", ()), ("the bundle's", ("--dequantized",))):
            expected: list[torch.Tensor] = []
            for adapter, dtype in ((initial, "float32"), *((trained, dtype) for dtype in DTYPES)):
                arguments = ("--bundle", path, "--model", model, "--dtype", dtype, *options, "--output", merged, "--force")
                size = lcsb("adapter", "merge", adapter, *arguments)["size"]
                loss, found = evaluate(merged)
                expected = found if dtype == "float32" else expected  # the second time with the adapter
                row = {"base": base, "adapter": adapter == trained, "dtype": dtype, "size": size, "loss": loss}
                rows.append(row | {"divergence": divergence(found, expected)})
    cells = [
        [row["base"], "merged" if row["adapter"] else "none", row["dtype"], f"{row['size'] / 1e6:.0f} MB", f"{row['loss']:.4f}", apart(row)]
        for row in rows
    ]
    header = ["base weights", "adapter", "stored as", "size", "held-out loss", "divergence from float32, nats"]
    note = (
        f"\nSmolLM2-135M-Instruct (GGUF, Q4_1), {TRAINED_STEPS} steps on `fortunes`, rank 8; {SEQUENCES} sequences of {SEQUENCE} tokens.\n"
    )
    write_results("peft_merge_dtypes", markdown_table(header, cells) + note, rows, "peft_round_trip.py dtypes")


def apart(row: Mapping[str, Any]) -> str:
    return "–" if row["dtype"] == "float32" else f"{row['divergence']:.1e}"


PARTS = {"architectures": architectures, "dtypes": dtypes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"expected some of {', '.join(PARTS)}, found {', '.join(unknown)}")
    os.environ["HF_HUB_OFFLINE"] = "1"  # peft asks the hub for the base when it saves
    warnings.simplefilter("ignore")
    for part in parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
