"""PEFT's `adapter_config.json`: what a plain LoRA adapter needs of it, and what of it would change the function.

Checked against the source of peft 0.21.2 (`tuners/lora/config.py`, `tuners/lora/layer.py`, `tuners/tuners_utils.py`).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lcsb_mobile.bundle.adapter import AdapterLayout
from lcsb_mobile.errors import AdapterError

CONFIG_FILE = "adapter_config.json"
MOST_CONFIG_BYTES = 4 * 2**20
SCALING_TOLERANCE = 1e-6  # relative: alpha/sqrt(rank) has no exact decimal, and the product is float32 anyway
ALL_LINEAR = "all-linear"  # instead of target_modules: every linear layer but the head

# Matching a foreign pattern may take exponential time, and nothing stops Python's `re`: so it is done in a process that can be stopped.
PATTERN_SECONDS = 10
MATCH = "import json, re, sys; p, names = json.load(sys.stdin); print(json.dumps([re.fullmatch(p, n) is not None for n in names]))"

# Option -> the values with which an adapter is a plain LoRA. PEFT adds options with every release; one that is not here is ignored.
PLAIN: dict[str, tuple[object, ...]] = {
    "alora_invocation_tokens": (None, []),
    "alpha_pattern": (None, {}),
    "arrow_config": (None,),
    "bias": ("none",),
    "fan_in_fan_out": (False, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal", "mica"),  # the others subtract from the base
    "kasa_config": (None,),
    "layer_replication": (None, []),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "monteclora_config": (None,),
    "rank_pattern": (None, {}),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None,),
    "use_dora": (False, None),
    "use_qalora": (False, None),
}


class PeftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that decide how the tensors are used, with PEFT's defaults."""

    peft_type: str
    r: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 8
    lora_alpha: float = 8
    use_rslora: bool | None = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    base_model_name_or_path: str | None = None

    @property
    def scaling(self) -> float:
        """What B A is multiplied by: alpha/rank, with use_rslora alpha/sqrt(rank) (arXiv 2312.03732)."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def write_config(path: Path, layout: AdapterLayout, base_model: str) -> tuple[str, ...]:
    """A plain LoRA, in fields that PEFT has long had: an old release refuses one that it does not know.

    Returns the target modules.
    """
    alpha = layout.lora.alpha
    modules = {module for layer in range(layout.num_layers) for module in layout.modules(layer)}
    targets = tuple(sorted({module.rpartition(".")[2] for module in modules}))
    config: dict[str, Any] = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": _number(alpha),  # PEFT declares an int
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": layout.lora.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": list(targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return targets


def read_config(path: Path, layout: AdapterLayout) -> PeftConfig:
    """Raises AdapterError for a file that is none, another method than LoRA, and, all at once, for every option that changes the
    function and a rank or scaling other than the bundle's."""
    raw, config = _decode(path)
    if config.peft_type != "LORA":
        raise AdapterError(f"{path}: peft_type: expected LORA, found {config.peft_type[:40]!r}")
    faults = [
        f"{name}: expected {_json(plain[0])}, found {_json(raw[name])}"
        for name, plain in PLAIN.items()
        if name in raw and (raw[name].lower() if isinstance(raw[name], str) else raw[name]) not in plain
    ]
    faults += _scaling_faults(config, layout)
    if faults:
        raise AdapterError(f"{path}: does not fit the bundle's plain LoRA: {'; '.join(faults)}")
    return config


def _decode(path: Path) -> tuple[dict[str, Any], PeftConfig]:
    if not path.is_file():
        raise AdapterError(f"{path}: no such file; expected a directory that PEFT's save_pretrained wrote")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_CONFIG_BYTES + 1)
        if len(text) > MOST_CONFIG_BYTES:
            raise AdapterError(f"{path}: expected at most {MOST_CONFIG_BYTES} bytes, found more")
        return msgspec.json.decode(text, type=dict[str, Any]), msgspec.json.decode(text, type=PeftConfig)
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterError(f"{path}: malformed: {error}") from error


def _scaling_faults(config: PeftConfig, layout: AdapterLayout) -> list[str]:
    faults = []
    if config.r != layout.lora.rank:
        faults.append(f"r: expected {layout.lora.rank}, found {config.r}")
    if not math.isclose(config.scaling, layout.lora.scaling, rel_tol=SCALING_TOLERANCE):
        formula = "lora_alpha/sqrt(r)" if config.use_rslora else "lora_alpha/r"
        faults.append(f"{formula}: expected {layout.lora.scaling:g}, found {config.scaling:g}")
    alpha = config.scaling * config.r
    if faults and 0 < alpha < math.inf:
        faults[-1] += f" (a bundle of lcsb export --rank {config.r} --alpha {_number(alpha)} would fit)"
    return faults


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _json(value: object) -> str:
    """For an error: short, and in the file's own spelling."""
    try:
        text = json.dumps(value)
    except RecursionError:  # it was just not too deep to be read
        return f"a deep {type(value).__name__}"
    return text if len(text) <= 60 else text[:60] + "…"


def unreached(path: Path, config: PeftConfig, modules: Mapping[str, int]) -> list[str]:
    """`modules`: full name of a projection, such as model.layers.0.self_attn.q_proj -> its layer. Returns those that PEFT would not
    adapt under the `config` of `path`, whatever the file holds for them (`check_target_module_exists`). Raises AdapterError for a bad
    pattern."""
    names, targets = list(modules), config.target_modules
    if targets is None or (isinstance(targets, str) and targets.lower() == ALL_LINEAR):  # None: PEFT's choice for the architecture
        reached = set(names)
    else:
        reached = _matching(f"{path}: target_modules", targets, names)
    if config.exclude_modules:
        reached -= _matching(f"{path}: exclude_modules", config.exclude_modules, names)
    layers = config.layers_to_transform
    if not isinstance(targets, str) and layers not in (None, []):
        reached = {name for name in reached if modules[name] in (layers if isinstance(layers, list) else [layers])}
    return [name for name in names if name not in reached]


def _matching(option: str, wanted: list[str] | str, names: list[str]) -> set[str]:
    """By a list: names that are, or end in, one of it; by a string: those that are wholly matched by this pattern."""
    if isinstance(wanted, list):
        ends = set(wanted)
        return {name for name in names if not ends.isdisjoint(_endings(name))}
    command = (sys.executable, "-I", "-S", "-c", MATCH)
    question = json.dumps([wanted, names])
    try:
        done = subprocess.run(command, input=question, capture_output=True, text=True, check=True, timeout=PATTERN_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise AdapterError(
            f"{option}: {_json(wanted)} is no regular expression, or one that takes over {PATTERN_SECONDS} s; expected a list of names"
        ) from error
    return {name for name, matches in zip(names, json.loads(done.stdout), strict=True) if matches}


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[number:]) for number in range(len(parts))]
