"""Reading Hugging Face's `config.json`: typed fields, both dialects of RoPE, and refusals that name the option.

The classic dialect (transformers 4) writes `rope_theta`, `rope_scaling` and `rope_local_base_freq`; transformers 5 writes
`rope_parameters`, flat or one per layer type. Precedence and defaults follow `transformers.modeling_rope_utils`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from lcsb_mobile.config import AttentionKind, ModelConfig, RopeScaling, default_query_scale
from lcsb_mobile.errors import CheckpointError, UnsupportedModelError
from lcsb_mobile.io.bounded import one_line, some

PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=2**24)]  # a bound, so that no product of them is beyond reason
ContextLength = Annotated[int, msgspec.Meta(ge=2, le=2**31)]  # from 2 on: longrope divides by its logarithm
LayerCount = Annotated[int, msgspec.Meta(ge=1, le=1000)]  # names and kinds are listed by layer
LayerTypes = list[str]
Raw = Mapping[str, Any]
Fields = TypeVar("Fields")

FULL = "full_attention"
SLIDING = "sliding_attention"
LINEAR = "linear_attention"
CONV = "conv"
ROPE_KEYS = (
    "rope_theta", "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    "partial_rotary_factor",
)  # fmt: skip
ROPE_TYPES: Mapping[str, tuple[str, ...]] = {  # what a RoPE dictionary may hold besides
    "default": (),
    "linear": (),
    "llama3": (),
    "dynamic": (),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "longrope": ("attention_factor", "short_factor", "long_factor"),
}


class RopeFields(msgspec.Struct, forbid_unknown_fields=True):
    """One RoPE dictionary of `config.json`, either dialect."""

    rope_theta: float | None = None
    rope_type: str | None = None
    type: str | None = None  # the name of `rope_type` before transformers 4.45
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: ContextLength | None = None
    partial_rotary_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: list[float] | None = None
    long_factor: list[float] | None = None


class ContextFields(msgspec.Struct):
    """What the length of a context is read from, beside the RoPE dictionary."""

    max_position_embeddings: ContextLength | None = None
    original_max_position_embeddings: ContextLength | None = None


def read_fields(raw: Raw, fields: type[Fields]) -> Fields:
    """The fields of `raw` that `fields` declares. Raises CheckpointError naming a field that is missing or mistyped."""
    try:
        return msgspec.convert(dict(raw), fields)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter for half a surrogate pair
        raise CheckpointError(f"config.json: {error}") from error


def read_text_config(raw: Raw, tied: bool) -> Raw:
    """The text model's part of a multimodal configuration. Which part says whether the head is tied depends on transformers' class, so they
    must agree; `tied`: where one says nothing."""
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError(f"config.json: text_config: expected an object, found {text!r}")
    whole, part = raw.get("tie_word_embeddings", tied), text.get("tie_word_embeddings", tied)
    if whole != part:
        raise CheckpointError(f"config.json: tie_word_embeddings is {whole!r}, but {part!r} in text_config")
    return text


def refuse_unless(model_type: str, options: Mapping[str, tuple[object, Sequence[object]]]) -> None:
    """`options`: name -> (found, supported values). Raises one UnsupportedModelError that names every option not supported."""
    faults = [
        f"{name}: found {found!r}, supported {', '.join(map(repr, supported))}"
        for name, (found, supported) in options.items()
        if found not in supported
    ]
    if faults:
        raise UnsupportedModelError(f"{model_type} with an unsupported option: {some(faults)}")


def resolve_layer_types(layer_types: LayerTypes | None, default: LayerTypes, supported: Sequence[str] = (FULL, SLIDING)) -> LayerTypes:
    """`layer_types`, or the default. Raises when there is not one per layer, or one that is not known."""
    layer_types = default if layer_types is None else layer_types
    if len(layer_types) != len(default):
        raise CheckpointError(f"config.json: layer_types has {len(layer_types)} entries, num_hidden_layers is {len(default)}")
    unknown = sorted(set(layer_types) - set(supported))
    if unknown:
        raise UnsupportedModelError(f"layer_types: found {one_line(', '.join(unknown))}, supported {', '.join(supported)}")
    return layer_types


def resolve_attention(
    layer_types: LayerTypes, rope: Mapping[str, tuple[float, RopeScaling | None]], sliding_window: int | None
) -> dict[str, AttentionKind]:
    """`attention_kinds` of the layer types that attend. `rope`: layer type -> (theta, scaling). Kinds stand in order of first use."""
    used = [name for name in dict.fromkeys(layer_types) if name in (FULL, SLIDING)]
    if SLIDING in used and sliding_window is None:
        raise UnsupportedModelError(f"layer_types has {SLIDING}, but sliding_window is null or use_sliding_window is false")
    return {
        name: AttentionKind(rope_theta=rope[name][0], rope_scaling=rope[name][1], window=sliding_window if name == SLIDING else None)
        for name in used
    }


def late_windows(
    layers: int, layer_types: LayerTypes | None, window: int | None, first: int, rope: tuple[float, RopeScaling | None]
) -> tuple[LayerTypes, dict[str, AttentionKind]]:
    """`layer_types` and `attention_kinds` of models whose layers from number `first` on have the window (None: no layer has one) unless
    `layer_types` says it layer by layer, and one RoPE for all."""
    default = [SLIDING if window is not None and layer >= first else FULL for layer in range(layers)]
    resolved = resolve_layer_types(layer_types, default)
    return resolved, resolve_attention(resolved, {FULL: rope, SLIDING: rope}, window)


def read_rope(raw: Raw, rope: object, *, theta: object, default_theta: float, where: str) -> tuple[float, RopeScaling | None]:
    """(theta, scaling) from one RoPE dictionary (or None). `theta`: the classic top-level value; the dictionary's own wins.

    Raises UnsupportedModelError for another `rope_type` or a key of one, CheckpointError for a missing factor.
    """
    rope = {} if rope is None else rope
    if not isinstance(rope, Mapping):
        raise CheckpointError(f"config.json: {where}: expected an object, found {rope!r}")
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    partial = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    refuse_unless(where, {"rope_type": (rope_type, tuple(ROPE_TYPES)), "partial_rotary_factor": (partial, (None, 1.0))})
    known = (*ROPE_KEYS, *ROPE_TYPES[rope_type])
    unknown = sorted(set(rope) - set(known))
    if unknown:
        raise UnsupportedModelError(f"{where} of type {rope_type}: found {one_line(', '.join(unknown))}, supported {', '.join(known)}")
    fields = read_fields(rope, RopeFields)
    found_theta = next((value for value in (fields.rope_theta, theta) if value is not None), default_theta)
    if not isinstance(found_theta, int | float) or found_theta <= 0 or (rope_type == "yarn" and found_theta == 1):
        expected = "a positive number other than 1" if rope_type == "yarn" else "a positive number"  # yarn divides by its logarithm
        raise CheckpointError(f"config.json: rope_theta: expected {expected}, found {found_theta!r}")
    return float(found_theta), _scaling(raw, fields, rope_type, where)


def read_flat_rope(raw: Raw, default_theta: float = 10_000.0) -> tuple[float, RopeScaling | None]:
    """As `read_rope`: the one RoPE of all layers. The classic `rope_scaling` wins."""
    name = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    return read_rope(raw, raw.get(name), theta=raw.get("rope_theta"), default_theta=default_theta, where=name)


def read_partial_rope(
    raw: Raw, head_dim: int, default_factor: float, ignored: Sequence[str] = ()
) -> tuple[tuple[float, RopeScaling | None], int]:
    """As `read_flat_rope`, and how much of a head it turns. `ignored`: keys of the RoPE dictionary that change nothing here."""
    name = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    rope = raw.get(name) or {}
    factor = raw.get("partial_rotary_factor", default_factor)
    if isinstance(rope, Mapping):  # else it is refused below
        factor = rope.get("partial_rotary_factor", factor)
        rope = {key: value for key, value in rope.items() if key not in ("partial_rotary_factor", *ignored)}
    if not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise CheckpointError(f"config.json: partial_rotary_factor: expected a number above 0 and up to 1, found {factor!r}")
    whole = {key: value for key, value in raw.items() if key != "partial_rotary_factor"}
    return read_flat_rope(whole | {name: rope}), int(head_dim * factor)


class DecoderFields(Protocol):
    """What every decoder's `config.json` says under one name. Without key-value heads there are as many as heads."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int | None: ...
    @property
    def rms_norm_eps(self) -> float: ...
    @property
    def tie_word_embeddings(self) -> bool: ...


def decoder_config(
    model_type: str,
    fields: DecoderFields,
    head_dim: int,
    layer_types: Iterable[str],
    attention_kinds: dict[str, AttentionKind],
    **own: Any,
) -> ModelConfig:
    """`own`: what the architecture has besides, or instead: RoPE turns whole heads, and queries are scaled by 1 / sqrt(head_dim). Raises as
    `check_shape`."""
    common: dict[str, Any] = {
        "layer_types": tuple(layer_types),
        "attention_kinds": attention_kinds,
        "vocab_size": fields.vocab_size,
        "hidden_size": fields.hidden_size,
        "intermediate_size": fields.intermediate_size,
        "num_hidden_layers": fields.num_hidden_layers,
        "num_attention_heads": fields.num_attention_heads,
        "num_key_value_heads": fields.num_key_value_heads or fields.num_attention_heads,
        "rms_norm_eps": fields.rms_norm_eps,
        "tie_word_embeddings": fields.tie_word_embeddings,
        "rotary_dim": head_dim,
        "query_scale": default_query_scale(head_dim),
    }
    return check_shape(ModelConfig(model_type=model_type, head_dim=head_dim, **common | own))


def check_shape(config: ModelConfig) -> ModelConfig:
    """`config` itself. Raises CheckpointError naming every field that does not fit the others."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    faults = []
    if heads % kv_heads:
        faults.append(f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv_heads})")
    if config.head_dim % 2:
        faults.append(f"head_dim ({config.head_dim}) is odd, and RoPE needs pairs")
    elif config.rotary_dim % 2 or not config.rotary_dim:
        faults.append(f"partial_rotary_factor: RoPE turns {config.rotary_dim} of head_dim ({config.head_dim}), and needs pairs")
    if not config.intermediate_size:
        faults.append("intermediate_size is too small for block_auto_adjust_ff_dim")
    for kind in config.attention_kinds.values():
        scaling, pairs = kind.rope_scaling, config.rotary_dim // 2
        if scaling is not None and scaling.rope_type == "longrope" and len(scaling.short_factor) != pairs:
            faults.append(f"short_factor has {len(scaling.short_factor)} numbers, RoPE turns {pairs} pairs")
    rule = config.linear_attention
    if rule is not None and rule.num_value_heads % rule.num_key_heads:
        faults.append(f"linear_num_value_heads ({rule.num_value_heads}) is not a multiple of linear_num_key_heads ({rule.num_key_heads})")
    if faults:
        raise CheckpointError(f"config.json: {'; '.join(faults)}")
    return config


def _scaling(raw: Raw, rope: RopeFields, rope_type: str, where: str) -> RopeScaling | None:
    if rope_type == "default":
        return None
    own = {"llama3": ("low_freq_factor", "high_freq_factor"), "longrope": ("short_factor", "long_factor")}
    needed: dict[str, Any] = {name: getattr(rope, name) for name in ("factor", *own.get(rope_type, ()))}
    if rope_type != "linear":
        context = read_fields(raw, ContextFields)
        longest = context.max_position_embeddings
        original = context.original_max_position_embeddings or rope.original_max_position_embeddings or longest
        needed["original_max_position_embeddings"] = longest if rope_type == "dynamic" else original
        if rope_type == "longrope" and rope.factor is None and longest and original:
            needed["factor"] = longest / original
    missing = [name.removeprefix("original_" * (rope_type == "dynamic")) for name, value in needed.items() if value is None]
    if missing:
        raise CheckpointError(f"config.json: {where} of type {rope_type}: missing {', '.join(missing)}")
    needed.pop("long_factor", None)  # of sequences that no bundle has: `RopeScaling.longest`
    scaling = msgspec.convert({"rope_type": rope_type, **needed, **_of_attention(rope, rope_type, needed)}, RopeScaling)
    if not all(0 < value < math.inf for value in scaling.numbers):
        found = one_line(str(scaling.numbers))
        raise CheckpointError(f"config.json: {where} of type {rope_type}: expected positive numbers, found {found}")
    return scaling


def _of_attention(rope: RopeFields, rope_type: str, needed: Mapping[str, Any]) -> dict[str, Any]:
    """Of yarn and longrope, as `needed` has their factor: what cos and sin are multiplied by, and yarn's bounds. 0 of a bound is none."""
    if rope_type not in ("yarn", "longrope"):
        return {}
    found, factor = rope.attention_factor, needed["factor"]

    def grown(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if rope_type == "longrope":
        computed = math.sqrt(1 + math.log(factor) / math.log(needed["original_max_position_embeddings"])) if factor > 1 else 1.0
        return {"attention_factor": computed if found is None else found}
    if found is None:
        both = rope.mscale and rope.mscale_all_dim
        found = grown(rope.mscale) / (grown(rope.mscale_all_dim) or math.nan) if both else grown(1.0)  # type: ignore[arg-type]
    return {"attention_factor": found, "beta_fast": rope.beta_fast or 32.0, "beta_slow": rope.beta_slow or 1.0, "truncate": rope.truncate}
