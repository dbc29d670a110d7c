"""From a GGUF file's keys to what Hugging Face's `config.json` would say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.export.checkpoints.gguf_file import GgufFile, Value
from lcsb_mobile.export.checkpoints.gguf_names import EMBEDDING, HEAD, LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS, Family
from lcsb_mobile.io.bounded import one_line, some

DEFAULT_THETA = 10_000.0  # llama.cpp's, where a file says none
LLAMA3 = (1.0, 4.0, 8192)  # low_freq_factor, high_freq_factor, original_max_position_embeddings of Llama 3.1, 3.2 and 3.3
FACTOR_TOLERANCE = 1e-4  # relative: llama.cpp's converter computes the factors in float32
GEMMA3_27B_LAYERS = 62  # the one Gemma 3 whose queries are not scaled by its head's size; llama.cpp knows it by its layers
GEMMA3_PATTERN = 6  # every sixth layer has no window
GEMMA2_27B_LAYERS = 46  # of Gemma 2, likewise
GEMMA2_PATTERN, GEMMA2_WINDOW, GEMMA2_CAPS = 2, 4096, (50.0, 30.0)  # llama.cpp's, where a file says none; caps of attention and logits
SMOLLM3_NO_ROPE = 4  # every fourth layer is without RoPE; the format has no key for it
TOKEN_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}


def hf_config(file: GgufFile, family: Family) -> dict[str, Any]:
    """What `config.json` would hold. Raises CheckpointError for what is missing or of another type, UnsupportedModelError for an option."""
    keys = _Keys(file.keys, family.name, [])
    layers = keys.integer("block_count")
    heads = keys.integer("attention.head_count", layers)
    hidden = keys.integer("embedding_length")
    head_dim = keys.integer("attention.key_length", default=hidden // max(1, heads))
    rows = file.tensors[EMBEDDING].shape[0] if EMBEDDING in file.tensors else 0
    raw = {
        "architectures": [family.model_class],
        "model_type": family.model_type,
        "vocab_size": keys.integer("vocab_size", default=rows or None),
        "hidden_size": hidden,
        "intermediate_size": keys.integer("feed_forward_length", layers),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", layers, default=heads),
        "head_dim": head_dim,
        "max_position_embeddings": keys.integer("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": HEAD not in file.tensors,
    }
    sizes = {name: keys.integer(name, default=head_dim) for name in ("attention.value_length", "rope.dimension_count")}
    _raise(file, keys.faults)
    rotary_dim = sizes.pop("rope.dimension_count") if family.name == "phi3" else head_dim
    others = [
        f"{family.name}.{name}: found {size}, supported {head_dim}, a head's size" for name, size in sizes.items() if size != head_dim
    ]
    if others:
        raise UnsupportedModelError(f"{file.path}: {some(others)}")
    raw |= _biases(file, family) | _rope(file, family, head_dim)
    own = {"gemma2": _gemma2, "gemma3": _gemma3, "granite": _granite, "smollm3": _smollm3}.get(family.name)
    if own is not None:
        raw |= own(keys, raw)
        _raise(file, keys.faults)
    if family.name == "phi3":
        raw |= _phi3(file, keys, raw, rotary_dim)
        _raise(file, keys.faults)
    ids = {name: file.keys[f"tokenizer.ggml.{key}"] for name, key in TOKEN_IDS.items() if f"tokenizer.ggml.{key}" in file.keys}
    return raw | {name: index for name, index in ids.items() if type(index) is int}


@dataclass
class _Keys:
    """Reads keys below the architecture's name, and gathers what is wrong with them."""

    keys: Mapping[str, Value]
    space: str
    faults: list[str]

    def integer(self, name: str, layers: int | None = None, *, default: int | None = None) -> int:
        """`layers`: it may be a list of one number a layer; these have to be one number."""
        value = self.keys.get(f"{self.space}.{name}", default)
        if isinstance(value, np.ndarray) and layers is not None and len(value) == layers and len(set(value.tolist())) == 1:
            value = value.tolist()[0]
        if type(value) is int and 0 < value < 2**31:
            return value
        self._fault(name, "a number from 1 on", value)
        return 1

    def number(self, name: str, default: float | None = None) -> float:
        value = self.keys.get(f"{self.space}.{name}", default)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < float(value) < math.inf:
            return float(value)
        self._fault(name, "a number above 0", value)
        return 1.0

    def scale(self, name: str, default: float) -> float:
        """0 is none, as llama.cpp has it."""
        value = self.keys.get(f"{self.space}.{name}", 0)
        return default if type(value) in (int, float) and value == 0 else self.number(name)

    def _fault(self, name: str, expected: str, value: object) -> None:
        found = "missing" if value is None else f"expected {expected}, found {one_line(repr(value), 60)}"
        self.faults.append(f"{self.space}.{name}: {found}")


def _raise(file: GgufFile, faults: list[str]) -> None:
    if faults:
        raise CheckpointError(f"{file.path}: {some(faults)}")


def _biases(file: GgufFile, family: Family) -> dict[str, Any]:
    """A model has all biases of a kind or none; those that a file leaves out are zeros."""
    biases = {name.rpartition(".")[0].rpartition(".")[2] for name in file.tensors if name.endswith(".bias")}
    options = {"attention_bias": any(name in biases for name in family.biases if name.startswith("attn_"))}
    options["mlp_bias"] = any(name in biases for name in family.biases if name.startswith("ffn_"))
    own = {"llama": options, "granite": options, "qwen2": {}, "phi3": {}}
    return own.get(family.name, {"attention_bias": options["attention_bias"]})


def _rope(file: GgufFile, family: Family, head_dim: int) -> dict[str, Any]:
    """The base and the scaling, as `rope_parameters`.

    A factor scales the positions (linear), whether or not a type says so, unless the type is none. Llama 3's scaling is a tensor: what each
    frequency is divided by.
    """
    keys = _Keys(file.keys, family.name, [])
    theta = keys.number("rope.freq_base", default=DEFAULT_THETA)
    kind = file.keys.get(f"{family.name}.rope.scaling.type", "linear")
    factor_key = next((name for name in ("rope.scaling.factor", "rope.scale_linear") if f"{family.name}.{name}" in file.keys), None)
    found = file.keys[f"{family.name}.{factor_key}"] if factor_key is not None else 0
    factor = 1.0 if found == 0 or factor_key is None else keys.number(factor_key)  # 0 is none, as llama.cpp has it
    _raise(file, keys.faults)
    if kind not in ("none", "linear") and not (kind == "longrope" and SHORT_FACTORS in file.tensors):
        raise UnsupportedModelError(
            f"{file.path}: {family.name}.rope.scaling.type: found {one_line(repr(kind), 40)}, supported none, linear; "
            "use the model's directory of safetensors"
        )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if kind == "linear" and factor != 1.0:
        rope |= {"rope_type": "linear", "factor": factor}
    if ROPE_FACTORS in file.tensors and ROPE_FACTORS in family.rope_tensors:
        rope |= _llama3(file, head_dim, rope)
    return {"rope_parameters": rope}


def _llama3(file: GgufFile, head_dim: int, rope: Mapping[str, Any]) -> dict[str, Any]:
    """The scaling whose factors the file holds. The format keeps the factors alone, which say all but one common unit of three numbers;
    Llama's own stand for it where they fit."""
    tensor = file.tensors[ROPE_FACTORS]
    if tensor.shape != (head_dim // 2,):
        raise CheckpointError(f"{file.path}: {ROPE_FACTORS}: expected shape {[head_dim // 2]}, found {list(tensor.shape)}")
    factors = tensor.rows(np.zeros(1, np.int64))[0].astype(np.float64)
    if np.all(factors == 1):
        return {}
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    factor = float(factors.max())
    for low, high, original in (LLAMA3, *_fitted(factors, waves, factor)):
        if rope["rope_type"] == "default" and np.allclose(llama3_factors(waves, factor, low, high, original), factors, FACTOR_TOLERANCE, 0):
            scaling = {"low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": original}
            return {"rope_type": "llama3", "factor": factor, **scaling}
    raise UnsupportedModelError(
        f"{file.path}: {ROPE_FACTORS}: these are not the factors of Llama 3's scaling of RoPE; use the model's directory of safetensors"
    )


def llama3_factors(waves: npt.NDArray[np.float64], factor: float, low: float, high: float, original: int) -> npt.NDArray[np.float64]:
    """What each frequency is divided by; `waves`: their lengths in tokens (`_compute_llama3_parameters` of transformers)."""
    smooth = np.clip((original / waves - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth))


def _fitted(factors: npt.NDArray[np.float64], waves: npt.NDArray[np.float64], factor: float) -> list[tuple[float, float, int]]:
    """With 1 for low_freq_factor: `smooth` is linear in 1 / wave between both ends."""
    between = (factors > 1 + 1e-6) & (factors < factor * (1 - 1e-6))
    if between.sum() < 2 or not np.all(np.isfinite(factors)) or factors.min() <= 0:
        return []
    smooth = (1 / factors[between] - 1 / factor) / (1 - 1 / factor)
    slope, offset = np.polyfit(1 / waves[between], smooth, 1)
    if not (slope > 0 and offset < 0):
        return []
    return [(1.0, float(1 - 1 / offset), round(-slope / offset))]


def _phi3(file: GgufFile, keys: _Keys, raw: Mapping[str, Any], rotary_dim: int) -> dict[str, Any]:
    """What Phi-3 has besides: RoPE on a part of a head, longrope where there are factors, windows where their size is not 0."""
    share = rotary_dim / raw["head_dim"]
    if int(raw["head_dim"] * share) != rotary_dim:  # as transformers finds the number again
        share = math.nextafter(share, math.inf)
    found: dict[str, Any] = {"rope_parameters": {**raw["rope_parameters"], "partial_rotary_factor": share}}
    found["pad_token_id"] = None  # where the file says none: Phi3Config's own is a token of Phi-3 mini
    scaling, of_attention = raw["rope_parameters"]["rope_type"], "rope.scaling.attn_factor"
    factor = file.keys.get(f"phi3.{of_attention}")
    if {LONG_FACTORS, SHORT_FACTORS} & file.tensors.keys():
        longrope: dict[str, Any] = {
            "short_factor": _factors(file, SHORT_FACTORS, rotary_dim),
            "long_factor": _factors(file, LONG_FACTORS, rotary_dim),
        }
        longrope |= {} if factor is None else {"attention_factor": keys.number(of_attention)}
        found["rope_parameters"] |= {"rope_type": "longrope", **longrope}
        found["original_max_position_embeddings"] = keys.integer("rope.scaling.original_context_length")
        if scaling != "default":
            raise UnsupportedModelError(f"{file.path}: {SHORT_FACTORS}: expected no other scaling of RoPE, found {scaling}")
    elif factor not in (None, 0, 1):
        raise UnsupportedModelError(f"{file.path}: phi3.{of_attention}: found {one_line(repr(factor), 40)} without {SHORT_FACTORS}")
    if file.keys.get("phi3.attention.sliding_window", 0) != 0:
        found["sliding_window"] = keys.integer("attention.sliding_window")
    return found


def _factors(file: GgufFile, name: str, rotary_dim: int) -> list[float]:
    shape = file.tensors[name].shape if name in file.tensors else ()
    if shape != (rotary_dim // 2,):
        raise CheckpointError(
            f"{file.path}: {name}: expected shape {[rotary_dim // 2]}, found {list(shape) if shape else 'no such tensor'}"
        )
    return [float(value) for value in file.tensors[name].rows(np.zeros(1, np.int64))[0]]


def _gemma3(keys: _Keys, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 3 has besides: windows with a RoPE of their own. The format does not hold the queries' scale."""
    layers, rope = raw["num_hidden_layers"], raw["rope_parameters"]
    local = {"rope_type": "default", "rope_theta": keys.number("rope.freq_base_swa", default=DEFAULT_THETA)}
    return {
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": _window_layers(keys, layers, GEMMA3_PATTERN),
        "query_pre_attn_scalar": _query_scalar(raw, GEMMA3_27B_LAYERS),
        "rope_parameters": {"full_attention": rope, "sliding_attention": local},
    }


def _gemma2(keys: _Keys, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Windows and caps. The format does not hold the queries' scale."""
    attention, final = GEMMA2_CAPS
    return {
        "sliding_window": keys.integer("attention.sliding_window", default=GEMMA2_WINDOW),
        "layer_types": _window_layers(keys, raw["num_hidden_layers"], GEMMA2_PATTERN),
        "query_pre_attn_scalar": _query_scalar(raw, GEMMA2_27B_LAYERS),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", attention),
        "final_logit_softcapping": keys.number("final_logit_softcapping", final),
    }


def _query_scalar(raw: Mapping[str, Any], layers_of_27b: int) -> int:
    """What queries are divided by the root of: a head's size, but of the 27B, which llama.cpp knows by its layers."""
    of_27b: bool = raw["num_hidden_layers"] == layers_of_27b
    return int(raw["hidden_size"] // raw["num_attention_heads"] if of_27b else raw["head_dim"])


def _granite(keys: _Keys, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The four multipliers; logits are divided by theirs."""
    return {
        "embedding_multiplier": keys.scale("embedding_scale", 1.0),
        "attention_multiplier": keys.scale("attention.scale", raw["head_dim"] ** -0.5),
        "residual_multiplier": keys.scale("residual_scale", 1.0),
        "logits_scaling": keys.scale("logit_scale", 1.0),
    }


def _smollm3(keys: _Keys, raw: Mapping[str, Any]) -> dict[str, Any]:
    return {"no_rope_layer_interval": SMOLLM3_NO_ROPE}


def _window_layers(keys: _Keys, layers: int, default: int) -> list[str]:
    """`sliding_window_pattern`: of every so many layers the last has no window, or for each layer whether it has one."""
    pattern = keys.keys.get(f"{keys.space}.attention.sliding_window_pattern", default)
    if isinstance(pattern, np.ndarray) and len(pattern) == layers:
        windows = [bool(value) for value in pattern.tolist()]
    else:
        every = keys.integer("attention.sliding_window_pattern", default=default)
        windows = [(layer + 1) % every != 0 for layer in range(min(layers, 1000))]
    return ["sliding_attention" if window else "full_attention" for window in windows]
