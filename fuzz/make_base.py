"""Writes `base/`, the smallest bundle of each target and one of two kinds of layers, and the first inputs into `corpus/`.

Needs both targets: `.venv-onnxruntime-training/bin/python fuzz/make_base.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.bundles import export_random
from helpers.crossing_bundle import export_crossing
from helpers.run_checkpoints import IDENTITY
from readers import BASE, CORPUS, CROSSING, SPLIT

from lcsb_mobile.adapters.peft import export_peft
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.runs.checkpoint import RunCheckpoint, RunPlace, write_checkpoint
from lcsb_mobile.training.state import AdapterState

SIZES = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
}
ALIKE = ("tokenizer.json", "tokenizer_config.json")  # in every bundle
KEPT = ("tokenizer.json", "tokenizer_config.json", "golden.json", "adapter.safetensors", "checkpoint")
LINES = (
    {"text": "the boats"},
    {"prompt": "two boats", "completion": " on the canal"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "late again"}, {"role": "user", "content": "so"}]},
)
TEMPLATES = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim }}{{ eos_token }}{% endfor %}",
    "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no') }}{%- endif -%}{% generation %}x{% endgeneration %}",
    "{% set n = namespace(x=1) %}{% for m in messages[::-1] %}{% set n.x = n.x + loop.index %}{% break %}{% endfor %}{{ n.x | tojson }}",
)


def main() -> None:
    shutil.rmtree(BASE, ignore_errors=True)
    for path in CORPUS.rglob("seed-*"):  # what was found stays
        path.unlink()
    with tempfile.TemporaryDirectory() as temporary:
        for target in ("onnxruntime-training", "onnxruntime"):
            bundle = export_random(Path(temporary) / target, target=target, **SIZES).bundle
            for name in KEPT:
                if (bundle / name).exists():
                    write(BASE / name, (bundle / name).read_bytes())
            write(BASE / f"{target}.json", stated(bundle))
            seed("manifest", f"{target}.json", stated(bundle))
            for name in ("optimizer_model", "logits_model", "logits", "gemm"):
                if (bundle / f"{name}.onnx").exists():
                    seed("program", f"{name}.onnx", (bundle / f"{name}.onnx").read_bytes())
        seed_adapters(Bundle.open(bundle), Path(temporary))
        sizes = {name: size for name, size in SIZES.items() if "layers" not in name}
        crossing = export_crossing(Path(temporary) / CROSSING, **sizes).bundle
        for name in KEPT:
            if (crossing / name).exists() and name not in ALIKE:
                write(BASE / CROSSING / name, (crossing / name).read_bytes())
        write(BASE / f"{CROSSING}.json", stated(crossing))
        seed("manifest", f"{CROSSING}.json", stated(crossing))
    for reader, name in (("golden", "golden.json"), ("tokenizer_config", "tokenizer_config.json"), ("training_checkpoint", "checkpoint")):
        seed(reader, name, (BASE / name).read_bytes())
    for number, line in enumerate(LINES):
        seed("data_line", f"{number}.json", json.dumps(line).encode())
    for number, template in enumerate(TEMPLATES):
        config = json.loads((BASE / "tokenizer_config.json").read_bytes()) | {"chat_template": template}
        seed("tokenizer_config", f"{number}.json", json.dumps(config).encode())


def stated(bundle: Path) -> bytes:
    """The manifest with zeros in the place of programs and weights (readers.bundle)."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    for name, entry in manifest["files"].items():
        content = (bundle / name).read_bytes() if name in KEPT else bytes(0 if name.endswith(".onnx") else entry["size"])
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(manifest, separators=(",", ":")).encode()


def seed_adapters(bundle: Bundle, temporary: Path) -> None:
    """The adapter in each of its forms."""
    adapter, file = bundle.initial_adapter(), bundle.path / "adapter.safetensors"
    seed("adapter", "initial", file.read_bytes())
    export_peft(file, bundle, temporary / "peft")
    config, tensors = (temporary / "peft" / name for name in ("adapter_config.json", "adapter_model.safetensors"))
    seed("peft", "initial", config.stat().st_size.to_bytes(SPLIT, "little") + config.read_bytes() + tensors.read_bytes())
    state, layers = AdapterState(adapter, adapter, np.abs(adapter)), len(bundle.manifest.layers)
    place = RunPlace(IDENTITY, 1, IDENTITY.train.accumulation, "onnxruntime 1.32.0", 0)
    updates, steps, evaluations = np.ones(layers, np.int64), np.ones((1, 6)), np.ones((1, 2))
    write_checkpoint(temporary / "step", RunCheckpoint(place, state, updates, steps, evaluations))
    seed("run_checkpoint", "step", (temporary / "step").read_bytes())


def seed(reader: str, name: str, content: bytes) -> None:
    write(CORPUS / reader / f"seed-{name}", content)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
