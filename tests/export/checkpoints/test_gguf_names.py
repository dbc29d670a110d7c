"""Every key that llama.cpp's own list has is read, without effect, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator

import gguf
import numpy as np
import pytest

from lcsb_mobile.errors import TokenizerError, UnsupportedModelError
from lcsb_mobile.export.checkpoints import gguf_names
from lcsb_mobile.export.checkpoints.gguf_names import FAMILIES, Family, check_keys
from lcsb_mobile.export.checkpoints.gguf_tokenizer import check_tokenizer_keys

ARCHITECTURES = frozenset(gguf.MODEL_ARCH_NAMES.values())
# Of llama.cpp's src/llama-arch.cpp, which the package's list does not have.
NEWER = (
    "{arch}.rope.scale_linear", "{arch}.hidden_activation", "{arch}.deepstack_mapping", "{arch}.attention.value_scale",
    "{arch}.attention.output_group_count", "{arch}.attention.recurrent_layers", "{arch}.hyper_connection.count", "{arch}.target_layers",
    "{arch}.hash_layer_count", "{arch}.norm_before_residual", "{arch}.attention.compress_rope_freq_base",
    "tokenizer.ggml.suppress_tokens", "tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.normalizer.strip_accents",
)  # fmt: skip
# What the model's function may not depend on at any value, or is made of: everything else is refused at a value that says something.
FREE = {
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor", "pooling_type",
    "tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length", "rope.scaling.yarn_log_multiplier",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
}  # fmt: skip
WINDOWS = {"attention.sliding_window", "attention.sliding_window_pattern"}
OWN = {
    "gemma2": WINDOWS | {"attn_logit_softcapping", "final_logit_softcapping"},
    "gemma3": WINDOWS | {"rope.freq_base_swa"},
    "granite": {"attention.scale", "embedding_scale", "residual_scale", "logit_scale"},
    "phi3": {"attention.sliding_window", "rope.scaling.attn_factor"},
}
SWITCHES = {"granite": {"rope.scaling.finetuned"}}  # where llama.cpp takes it for whether there is RoPE at all


def listed(space: type) -> Iterator[str]:
    for name, value in vars(space).items():
        if isinstance(value, type):
            yield from listed(value)
        elif isinstance(value, str) and not name.startswith("__"):
            yield value


KEYS = sorted({*listed(gguf.Keys), *NEWER})


def test_the_list_is_there() -> None:
    assert len(KEYS) >= 200  # of gguf 0.17; later ones have more


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_key(family: Family) -> None:
    for template in KEYS:
        key = template.format(arch=family.name, id=0, name="tool", dense="dense_2")
        space, _, name = key.partition(".")
        if space == family.name:
            allowed = name in (FREE | OWN.get(family.name, set())) - SWITCHES.get(family.name, set())
            assert_refused(family, key, 7, not allowed)
        elif space in ("adapter", "clip"):
            assert_refused(family, key, 7, True)
        elif space in ("general", "split", "tokenizer", "imatrix"):  # the tokenizer's keys are held to a list of their own
            assert_refused(family, key, 7, key == "general.type")
        else:
            assert check_keys(family, {key: 7}, ARCHITECTURES) == (space,)


def assert_refused(family: Family, key: str, value: object, expected: bool) -> None:
    try:
        assert check_keys(family, {key: value}, ARCHITECTURES) == () and not expected, key  # type: ignore[dict-item]
    except UnsupportedModelError as error:
        assert expected and key in str(error)


def test_every_key_of_the_tokenizer() -> None:
    refused = []
    for key in (template.format(name="tool") for template in KEYS if template.startswith("tokenizer.")):
        try:
            check_tokenizer_keys({key: 7})
        except TokenizerError as error:
            assert key in str(error)
            refused.append(key)
    assert refused == [
        "tokenizer.ggml.normalizer.lowercase",
        "tokenizer.ggml.normalizer.strip_accents",
        "tokenizer.ggml.precompiled_charsmap",
        "tokenizer.ggml.remove_extra_whitespaces",
        "tokenizer.ggml.suppress_tokens",
        "tokenizer.rwkv.world",
    ]
    check_tokenizer_keys({"tokenizer.ggml.suppress_tokens": np.zeros(0), "tokenizer.ggml.remove_extra_whitespaces": False})


@pytest.mark.parametrize("name", gguf_names.NEUTRAL)
def test_neutral_values_change_nothing(name: str) -> None:
    family = FAMILIES["qwen3"]
    for value in gguf_names.NEUTRAL[name]:
        assert check_keys(family, {f"qwen3.{name}": value}, ARCHITECTURES) == ()
        assert check_keys(family, {f"qwen3.{name}": np.array([value, value])}, ARCHITECTURES) == ()  # one a layer
    assert_refused(family, f"qwen3.{name}", np.array([*gguf_names.NEUTRAL[name], 3]), True)


def test_granite_without_rope_is_refused() -> None:
    family = FAMILIES["granite"]
    assert check_keys(family, {"granite.rope.scaling.finetuned": True}, ARCHITECTURES) == ()
    with pytest.raises(UnsupportedModelError, match=r"granite\.rope\.scaling\.finetuned: found False, supported True"):
        check_keys(family, {"granite.rope.scaling.finetuned": False}, ARCHITECTURES)


def test_all_faults_are_named_at_once_and_bounded() -> None:
    keys = {f"llama.expert_{number}": 1 for number in range(1000)} | {"qwen2.block_count": 2, "general.type": "mmproj"}
    with pytest.raises(UnsupportedModelError, match=r"llama\.expert_0: found 1; .* \(and 994 more\)") as caught:
        check_keys(FAMILIES["llama"], keys, ARCHITECTURES)
    assert len(str(caught.value)) < 600
    with pytest.raises(UnsupportedModelError, match=r"qwen2\.block_count: a key of another architecture .*general\.type: found 'mmproj'"):
        check_keys(FAMILIES["llama"], {"qwen2.block_count": 2, "general.type": "mmproj"}, ARCHITECTURES)


def test_notes_of_programs_are_passed_over() -> None:
    keys = {"quantize.imatrix.file": "x", "mradermacher.quantized_by": "y", "general.size_label": "1B", "somebody.note": 1}
    assert check_keys(FAMILIES["llama"], keys, ARCHITECTURES) == ("somebody",)
