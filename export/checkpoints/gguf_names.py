"""What a GGUF file may say: every tensor and every key is read, known to change nothing, or refused by name.

The names are llama.cpp's (`src/llama-arch.cpp`, `src/models/*.cpp`), and so is what a key means. Keys below `tokenizer.` are
`gguf_tokenizer`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.checkpoints.gguf_file import Value
from lcsb_mobile.io.bounded import one_line, some

EMBEDDING, HEAD, FINAL_NORM, ROPE_FACTORS = "token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"
ATTENTION = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
FUSED = {"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj", "ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GEMMA_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
WINDOWS = {"attention.sliding_window", "attention.sliding_window_pattern"}
QKV = ("attn_q", "attn_k", "attn_v")
LAYER = re.compile(r"blk\.(\d{1,9})\.(.+)")
# A table of angles that every program computes itself; llama.cpp passes it over, too.
UNUSED_TENSOR = re.compile(r"(?:blk\.\d+\.)?(?:attn_rot_embd|attn\.rotary_emb\.inv_freq)(?:\.weight)?")


@dataclass(frozen=True)
class Family:
    """An architecture in GGUF. `weights` and `biases`: a layer's names -> Hugging Face's module within the layer.

    `permuted`: queries and keys stand in the order of the original RoPE, pairs beside each other. `one_plus_norms`: norms hold 1 + w.
    `neutral`: as NEUTRAL, of this family alone, and before READ and HARMLESS. `rope_tensors`: those that the RoPE is read of."""

    name: str
    model_type: str
    model_class: str
    weights: Mapping[str, str]
    biases: Mapping[str, str]
    read: frozenset[str] = frozenset()  # keys that are read of this family alone
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    permuted: bool = False
    one_plus_norms: bool = False
    rope_tensors: frozenset[str] = frozenset({ROPE_FACTORS})


def _only(names: Mapping[str, str], kept: tuple[str, ...]) -> dict[str, str]:
    return {name: names[name] for name in kept}


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "llama", "LlamaForCausalLM", ATTENTION | MLP | NORMS, ATTENTION | MLP, permuted=True),
        Family("qwen2", "qwen2", "Qwen2ForCausalLM", ATTENTION | MLP | NORMS, _only(ATTENTION, QKV)),
        Family("qwen3", "qwen3", "Qwen3ForCausalLM", ATTENTION | MLP | NORMS | HEAD_NORMS, ATTENTION),
        Family(
            "gemma3",
            "gemma3_text",
            "Gemma3ForCausalLM",
            ATTENTION | MLP | GEMMA_NORMS | HEAD_NORMS,
            ATTENTION,
            frozenset({"rope.freq_base_swa"} | WINDOWS),
            one_plus_norms=True,
        ),
        Family(
            "phi3",
            "phi3",
            "Phi3ForCausalLM",
            FUSED | NORMS,
            {},
            frozenset({"attention.sliding_window", "rope.scaling.attn_factor"}),
            rope_tensors=frozenset({LONG_FACTORS, SHORT_FACTORS}),
        ),
        Family(
            "gemma2",
            "gemma2",
            "Gemma2ForCausalLM",
            ATTENTION | MLP | GEMMA_NORMS,
            {},
            frozenset({"attn_logit_softcapping", "final_logit_softcapping"} | WINDOWS),
            one_plus_norms=True,
        ),
        Family(
            "granite",
            "granite",
            "GraniteForCausalLM",
            ATTENTION | MLP | NORMS,
            ATTENTION | MLP,
            frozenset({"embedding_scale", "residual_scale", "logit_scale", "attention.scale"}),
            {"rope.scaling.finetuned": (True,)},  # there it says whether there is RoPE at all
            permuted=True,
        ),
        Family("smollm3", "smollm3", "SmolLM3ForCausalLM", ATTENTION | MLP | NORMS, {}, permuted=True),
    )
}

# Keys below the architecture's name. Those of NEUTRAL change nothing at the values listed, and are refused by name at any other, as is
# every key that stands in none of the three.
READ = frozenset({
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
})  # fmt: skip
HARMLESS = frozenset({
    "pooling_type",  # how a sentence's vector is made of the last layer's
    "tensor_data_layout",  # of files written by hand from Meta's own: the same order
    "rope.scaling.finetuned",
    # YaRN's, which is refused by its type.
    "rope.scaling.original_context_length", "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
})  # fmt: skip
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("expert_count", "expert_used_count", "expert_shared_count", "expert_group_count", "expert_group_used_count"), (0,)),
    **dict.fromkeys(("expert_feed_forward_length", "expert_shared_feed_forward_length", "nextn_predict_layers"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"), (0,)),
    **dict.fromkeys(("attention.max_alibi_bias", "attention.clamp_kqv", "attention.scale", "rope.scaling.alpha"), (0,)),
    **dict.fromkeys(
        ("logit_scale", "residual_scale", "embedding_scale", "rope.scaling.attn_factor"), (0, 1)
    ),  # 0: none, as llama.cpp has it
    "attention.causal": (True,),
    "use_parallel_residual": (False,),
}
ELSEWHERE = ("general", "tokenizer", "split")  # namespaces that are checked, or describe the file
TOOLS = ("quantize", "imatrix", "mradermacher")  # programs that leave notes of their own


def tensor_name(family: Family, layers: int, name: str) -> str | None:
    """Hugging Face's name of a tensor; "" for one that changes nothing, None for one that is not read."""
    whole = {
        EMBEDDING: "model.embed_tokens.weight",
        FINAL_NORM: "model.norm.weight",
        HEAD: "lm_head.weight",
        **dict.fromkeys(family.rope_tensors, ""),
    }
    if name in whole:
        return whole[name]
    if UNUSED_TENSOR.fullmatch(name):
        return ""
    found = LAYER.fullmatch(name)
    if found is None or int(found[1]) >= layers:
        return None
    module, _, part = found[2].rpartition(".")
    names = {"weight": family.weights, "bias": family.biases}.get(part, {})
    return f"model.layers.{int(found[1])}.{names[module]}.{part}" if module in names else None


def check_keys(family: Family, keys: Mapping[str, Value], architectures: frozenset[str]) -> tuple[str, ...]:
    """The namespaces, of other programs, whose keys are passed over. `architectures`: all names that llama.cpp has.

    Raises one UnsupportedModelError that names every key that would change the model and is not read.
    """
    faults, others = [], set()
    for key, value in keys.items():
        space, _, name = key.partition(".")
        if space == family.name:
            fault = _fault(family, key, name, value)
            if fault is not None:
                faults.append(fault)
        elif space in architectures or space in ("adapter", "clip"):
            faults.append(f"{key}: a key of another architecture ({family.name} is this file's)")
        elif space not in ELSEWHERE + TOOLS:
            others.add(space)
    kind = keys.get("general.type", "model")
    if kind != "model":
        faults.append(f"general.type: found {one_line(repr(kind), 40)}, supported 'model'")
    if faults:
        raise UnsupportedModelError(f"keys that are not read and would change the model: {some(faults)}")
    return tuple(sorted(others))


def _fault(family: Family, key: str, name: str, value: Value) -> str | None:
    neutral = {**NEUTRAL, **family.neutral}
    if name not in family.neutral and (name in READ or name in HARMLESS or name in family.read):
        return None
    if name not in neutral:
        return f"{key}: found {one_line(repr(value), 40)}"
    values = set(value.tolist()) if isinstance(value, np.ndarray) else {str(value)} if isinstance(value, list) else {value}
    if values <= set(neutral[name]):
        return None
    return f"{key}: found {one_line(repr(value), 40)}, supported {' or '.join(map(repr, neutral[name]))}"
