"""Writes what every port of the training run is held to: `write_run_vectors.py [DIRECTORY]` (tests/golden).

`run_vectors.json`: learning rates, schedules, AdamW with clipping over 20 steps, numbers and texts as JSON, PEFT's configuration.
`run_checkpoint.safetensors`: a small checkpoint. `adapter.safetensors`: an adapter that says what it was trained on. The cases are written
by hand, the answers by this package. `peft_imports.json`: PEFT's directories, and what reading them gives or that it is refused.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from helpers.run_checkpoints import make_checkpoint

from lcsb_mobile.adapters.peft import MODEL_FILE, import_peft
from lcsb_mobile.adapters.peft_config import CONFIG_FILE, write_config
from lcsb_mobile.bundle.adapter import AdapterLayout, Base, adapter_matrices, load_adapter, save_adapter
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import ScheduleConfig, make_schedule
from lcsb_mobile.config import AdamWConfig, LoraConfig
from lcsb_mobile.errors import AdapterError
from lcsb_mobile.runs.checkpoint import write_checkpoint
from lcsb_mobile.runs.setup import default_learning_rate
from lcsb_mobile.training.optimizer import AdamW, clip_gradients, gradient_norm, learning_rate

DIRECTORY = Path(__file__).resolve().parents[2] / "tests" / "golden"
LAYERS, SIZE, STEPS = 3, 3072, 20  # those of the test bundles llama and qwen2, whose program `adamw` has them
TRAINED = ((2,), (0, 1), (0, 1, 2), (1,))  # a cycle
DOUBLES = (4e-4, 8e-4, 1e-5, 1.5e-5, 1e-6, 1e-7, 0.1, 1.0, 16.0, 100.0, 12345.678, 1e15, 1e16, 1.25e17, 5e-324, 1.7976931348623157e308)
DOUBLES += (1 / 3, 2 / 3, -0.0, -2.5e-5, 4e-4 * math.sqrt(3), 2.0**53, 9007199254740993.0, 0.1 + 0.2, 123456789.123456789)
TEXTS = ('plain "quoted" \\', "tab\t newline\n return\r \b\f", "\x00\x1f\x7f\x80", "Grüße, 世界", "\U0001f600", "/")
PEFT = ((8, 16.0, "HuggingFaceTB/SmolLM2-135M"), (4, 12.5, 'Größe "x"'), (4, 1e16, "m"), (16, 1e-5, "m"))
PROJECTIONS = {"self_attn.q_proj": (8, 4), "self_attn.k_proj": (4, 4), "mlp.up_proj": (4, 8)}
BASE = Base('Größe "x"', "ab" * 32, "0.1.0")


def element(step: int, layer: int) -> Any:
    """A gradient, by a formula that any language has: exact in float32. In every third step it is small enough not to be clipped."""
    index = np.arange(SIZE, dtype=np.int64)
    whole = (index * 7919 + step * 104729 + layer * 1299709) % 65536 - 32768
    return (whole / (2.0**23 if step % 3 == 0 else 2.0**17)).astype(np.float32)


def adamw(implicit_updates: Any) -> dict[str, Any]:
    """From parameters that are layer 0's gradients of steps 100, 101, 102."""
    adapter = np.concatenate([element(100 + layer, 0) for layer in range(LAYERS)])
    slices = [slice(layer * SIZE, (layer + 1) * SIZE) for layer in range(LAYERS)]
    optimizer = AdamW(adapter, slices, AdamWConfig(implicit_updates=implicit_updates))
    norms = []
    for step in range(STEPS):
        gradients = {layer: element(step, layer) for layer in TRAINED[step % len(TRAINED)]}
        norms.append(gradient_norm(gradients))
        clip_gradients(gradients, norms[-1], optimizer.config.clip_norm)
        optimizer.update(gradients, learning_rate(1e-3, "cosine", step, STEPS, 3))
    arrays = adapter, optimizer.first_moment, optimizer.second_moment
    digests = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return {"implicit_updates": implicit_updates, "norms": norms, "updates": optimizer.updates.tolist(), "sha256": digests}


def learning_rates() -> list[dict[str, Any]]:
    cases: Any = itertools.product(("constant", "cosine", "linear"), (1, 17, 100), (0, 5))
    return [
        {"schedule": schedule, "steps": steps, "warmup": warmup}
        | {"rates": [learning_rate(4e-4, schedule, step, steps, warmup) for step in range(steps)]}
        for schedule, steps, warmup in cases
    ]


def schedules() -> list[dict[str, Any]]:
    cases: Any = itertools.product(("lcsb-exact", "lcsb-identity", "full", "freeze"), ((1, 1), (3, 4), (4, 10), (7, 30)))
    result = []
    for method, (subsets, layers) in cases:
        made = make_schedule(ScheduleConfig(method=method, subsets=subsets), layers)
        rate = default_learning_rate(made, layers)
        result.append(
            {"method": method, "subsets": subsets, "layers": layers, "schedule": msgspec.to_builtins(made), "learning_rate": rate}
        )
    return result


def peft_configs() -> list[dict[str, Any]]:
    result = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "config.json"
        for rank, alpha, base in PEFT:
            layout = AdapterLayout(LoraConfig(rank, alpha), {"block": adapter_matrices(PROJECTIONS, rank)}, ("block",))
            write_config(path, layout, base)
            fields = {name: value for name, value in msgspec.to_builtins(layout).items() if name != "base"}
            result.append({"layout": fields, "base": base, "text": path.read_text("utf-8")})
    return result


def write_trained_adapter(path: Path) -> None:
    """Of the last of PEFT's layouts and a base that is made up; element i is ((7919 i) mod 256 - 128) / 128."""
    lora = LoraConfig(*PEFT[-1][:2])
    layout = AdapterLayout(lora, {"block": adapter_matrices(PROJECTIONS, lora.rank)}, ("block",), base=BASE)
    elements = (np.arange(layout.size) * 7919 % 256 - 128) / 128
    save_adapter(path, layout, elements.astype(np.float32), private=False)


def peft_import_cases(layout: AdapterLayout) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Name -> what is changed in the configuration, and the tensors."""
    elements = ((np.arange(layout.size) * 7919 % 256 - 128) / 128).astype(np.float32)
    whole = dict(layout.named(elements))
    first, second = list(whole)[:2]
    other = {name.replace("model.model.", "model.model.language_model."): tensor for name, tensor in whole.items()}
    strange = np.array([0.0, -0.0, 6e-8, -6e-5, 65504.0, 1 / 3], np.float16)
    halves = {name: np.resize(strange, tensor.shape) for name, tensor in whole.items()}
    upper = {name: tensor.astype(np.float16) if name == first else tensor for name, tensor in whole.items()}
    partly = {name: tensor for name, tensor in whole.items() if "up_proj" not in name}
    return {
        "whole": ({}, whole),
        "all linear": ({"target_modules": "All-Linear", "exclude_modules": ["lm_head"], "later_option": [1]}, whole),
        "rank-stabilised": ({"use_rslora": True, "lora_alpha": 6.25}, whole),
        "another prefix": ({}, other),
        "halves": ({}, halves),
        "mixed": ({"bias": "NONE", "init_lora_weights": "Gaussian"}, upper),
        "without a projection": ({"target_modules": ["q_proj", "k_proj"]}, partly),
        "one layer": (
            {"layers_to_transform": 1},
            {name: tensor for name, tensor in whole.items() if ".1." in name},
        ),
        "no tensors": ({}, {}),
        "a half is missing": ({}, {name: tensor for name, tensor in whole.items() if name != first}),
        "an unknown tensor": ({}, {**whole, "base_model.model.lm_head.lora_A.weight": whole[first]}),
        "another shape": ({}, {**whole, first: whole[second]}),
        "another dtype": ({}, {**whole, first: whole[first].astype(np.int8)}),
        "not finite": ({}, {**whole, first: np.full_like(whole[first], np.nan)}),
        "not reached": ({"target_modules": ["q_proj"]}, whole),
        "excluded": ({"exclude_modules": ["self_attn.k_proj"]}, whole),
        "of other layers": ({"layers_to_transform": [0]}, whole),
        "another rank": ({"r": 8}, whole),
        "no rank": ({"r": 0}, whole),
        "another scaling": ({"lora_alpha": 13}, whole),
        "another method": ({"peft_type": "IA3"}, whole),
        "no method": ({"peft_type": None}, whole),
        "a text for a number": ({"lora_alpha": "16"}, whole),
        "numbers for names": ({"target_modules": [1]}, whole),
        "use_dora": ({"use_dora": True}, whole),
        "bias": ({"bias": "all"}, whole),
        "init_lora_weights": ({"init_lora_weights": "pissa"}, whole),
        "rank_pattern": ({"rank_pattern": {"q_proj": 8}}, whole),
        "modules_to_save": ({"modules_to_save": ["lm_head"]}, whole),
    }


def peft_imports() -> dict[str, Any]:
    """The bundle's initial adapter has 1/4 in every A and 1/2 in every B: a B that is not read becomes zero."""
    layout = AdapterLayout(LoraConfig(4, 12.5), {"block": adapter_matrices(PROJECTIONS, 4)}, ("block", "block"))
    initial = np.zeros(layout.size, np.float32)
    for name, view in layout.named(initial):
        view[:] = 0.25 if ".lora_A." in name else 0.5
    made = SimpleNamespace(manifest=SimpleNamespace(adapter=layout), initial_adapter=initial.copy)
    bundle = cast("Bundle", made)
    cases, models = [], dict[str, None]()  # each of the files once
    for name, (changes, tensors) in peft_import_cases(layout).items():
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary)
            write_config(path / CONFIG_FILE, layout, "m")
            config = json.dumps(json.loads((path / CONFIG_FILE).read_text("utf-8")) | changes)
            (path / CONFIG_FILE).write_text(config, encoding="utf-8")
            content = save({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()})
            (path / MODEL_FILE).write_bytes(content)
            models.setdefault(base64.b64encode(content).decode())
            number = list(models).index(base64.b64encode(content).decode())
            case = {"name": name, "config": config, "model": number, "adapter": None}
            try:
                import_peft(path, bundle, path / "imported")
                case["adapter"] = base64.b64encode(load_adapter(path / "imported", layout).astype("<f4").tobytes()).decode()
            except AdapterError:
                pass  # what is to be refused
            cases.append(case)
    fields = {name: value for name, value in msgspec.to_builtins(layout).items() if name != "base"}
    return {"layout": fields, "models": list(models), "cases": cases}


def main(directory: Path) -> None:
    vectors = {
        "learning_rates": learning_rates(),
        "schedules": schedules(),
        "adamw": [adamw("momentum"), adamw("none")],
        "doubles": [{"value": x, "repr": repr(x), "msgspec": msgspec.json.encode(x).decode()} for x in DOUBLES],
        "texts": [{"text": text, "json": json.dumps(text)} for text in TEXTS],
        "peft_configs": peft_configs(),
    }
    (directory / "run_vectors.json").write_text(json.dumps(vectors, separators=(",", ":")) + "\n", encoding="utf-8")
    (directory / "peft_imports.json").write_text(json.dumps(peft_imports(), separators=(",", ":")) + "\n", encoding="utf-8")
    write_checkpoint(directory / "run_checkpoint.safetensors", make_checkpoint())
    write_trained_adapter(directory / "adapter.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
