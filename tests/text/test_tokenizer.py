"""The tokenizer against the `tokenizers` library and against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.text.tokenizer import Tokenizer

SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<yes> & 'no'"}]
TEXTS = ["", "hello world", "  two  blanks ", "naïve 🙂 déjà\nvu", "<|im_start|>user\n", "a\t\x00b", "日本語"]


def byte_level(post_processor: Any = None) -> Backend:
    """256 byte tokens without merges, then SPECIAL (ids 256 to 260)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    if post_processor is not None:
        backend.post_processor = post_processor
    return backend


def sentencepiece_like() -> Backend:
    """Llama-2's way: a blank before the first word, bytes for what is not in the vocabulary."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁b", "ab", "▁ab"]
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def small_bpe() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(["hello world, the world said hello to the other worlds"] * 4, trainer)
    return backend


def write(directory: Path, backend: Backend, **config: Any) -> Path:
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"} | config), encoding="utf-8")
    return directory


def opened(directory: Path, backend: Backend, vocab_size: int = 1000, **config: Any) -> Tokenizer:
    return Tokenizer.open(write(directory, backend, **config), vocab_size)


@pytest.mark.parametrize("make", [byte_level, small_bpe])
@pytest.mark.parametrize("text", TEXTS)
def test_encode_is_the_librarys_and_decodes_back(tmp_path: Path, make: Any, text: str) -> None:
    tokenizer = opened(tmp_path, make())
    assert tokenizer.encode(text) == make().encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("<|im_start|>", "")
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)
    assert all(start < end for start, end in offsets)
    assert {position for start, end in offsets for position in range(start, end)} == set(range(len(text)))


def test_offsets_of_blanks_that_the_post_processor_trims(tmp_path: Path) -> None:
    backend = byte_level(processors.ByteLevel(trim_offsets=True))
    assert (1, 1) in backend.encode("a  b", add_special_tokens=False).offsets or (2, 2) in backend.encode("a  b").offsets
    assert opened(tmp_path, backend).encode_with_offsets("a  b")[1] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_decoding_with_special_tokens(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, byte_level())
    ids = tokenizer.encode("a<|im_end|>é</s>")
    assert tokenizer.decode(ids) == "aé"
    assert tokenizer.decode(ids, special_tokens=True) == "a<|im_end|>é</s>"


def test_special_ids(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, byte_level(), eos_token={"content": "</s>", "lstrip": False}, pad_token="<pad>")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (256, 257, 258)
    assert opened(tmp_path, byte_level()).pad_id == 257
    assert opened(tmp_path, byte_level(), pad_token="<pad>", vocab_size=258).pad_id == 257  # outside the model: not usable
    bare = opened(tmp_path, byte_level(), eos_token=None, bos_token=None)
    assert (bare.bos_id, bare.eos_id, bare.pad_id) == (None, None, 0)
    assert bare.encode_document("a") == bare.encode("a")


def test_bos_is_added_by_post_processor_or_configuration(tmp_path: Path) -> None:
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)])
    text = byte_level().encode("a").ids
    assert opened(tmp_path, byte_level()).encode_document("a") == [*text, 257]
    assert opened(tmp_path, byte_level(template)).encode_document("a") == [256, *text, 257]
    assert opened(tmp_path, byte_level(template)).encode_prompt("a") == [256, *text]
    assert opened(tmp_path, byte_level(), add_bos_token=True).encode_document("a") == [256, *text, 257]
    assert opened(tmp_path, byte_level(template), add_bos_token=False).encode_document("a") == [*text, 257]


def test_continuation_has_no_sentencepiece_blank(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, sentencepiece_like())
    assert tokenizer.decode(tokenizer.encode("a") + tokenizer.encode_continuation("b")) == "ab"
    assert tokenizer.decode(tokenizer.encode("a") + tokenizer.encode("b")) == "a b"
    byte = opened(tmp_path, byte_level())
    assert byte.encode_continuation("\nb") == byte.encode("\nb")


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(3)
    backend.enable_padding(length=3)
    assert len(opened(tmp_path, backend).encode("a")) == 1
    assert len(opened(tmp_path, backend).encode("abcdef")) == 6


def test_ids_outside_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, byte_level(), vocab_size=259)
    assert max(tokenizer.encode("~ÿ")) < 259
    with pytest.raises(TokenizerError, match=r"^token 259 \('<\|im_start\|>'\) is outside the model's vocabulary of 259$"):
        tokenizer.encode("a<|im_start|>b")
    with pytest.raises(TokenizerError, match=r"eos_token: token 257 .* vocabulary of 257"):
        opened(tmp_path, byte_level(), vocab_size=257)


def test_text_that_is_not_unicode(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be tokenised"):
        opened(tmp_path, byte_level()).encode("a\udc80")


def test_render_chat(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, byte_level(), chat_template=CHATML)
    assert tokenizer.has_chat_template
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<yes> & 'no'<|im_end|>\n"
    assert tokenizer.render_chat(TURNS) == expected
    assert tokenizer.render_chat(TURNS[:1], add_generation_prompt=True) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ bos_token }}{{ eos_token }}[{{ pad_token }}]", "<s></s>[]"),
        ("{{ messages[1] | tojson }}", '{"role": "assistant", "content": "<yes> & \'no\'"}'),
        ("{{ {'é': 1} | tojson(indent=1) }}", '{\n "é": 1\n}'),
        ("{% for m in messages %}{{ loop.index }}{% break %}{% endfor %}", "1"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ tools is none }}{{ messages[0].get('x', 'y') }}", "Truey"),
    ],
)
def test_template_environment(tmp_path: Path, template: str, expected: str) -> None:
    assert opened(tmp_path, byte_level(), chat_template=template).render_chat(TURNS) == expected


def test_template_choice(tmp_path: Path) -> None:
    entries = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert opened(tmp_path, byte_level(), chat_template=entries).render_chat(TURNS) == "D"
    assert opened(tmp_path, byte_level(), chat_template=entries[:1]).render_chat(TURNS) == "T"
    (tmp_path / "chat_template.jinja").write_text("J", encoding="utf-8")
    assert opened(tmp_path, byte_level(), chat_template=entries).render_chat(TURNS) == "J"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.append(1) }}", "refused the messages"),
        ("{{ ''.__class__.__mro__ }}", "refused the messages"),
        ("{{ messages[9].content }}", "refused the messages"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_template_that_fails(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        opened(tmp_path, byte_level(), chat_template=template).render_chat(TURNS)
    assert "\n" not in str(caught.value)


def test_messages_without_a_template(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, byte_level())
    assert not tokenizer.has_chat_template
    with pytest.raises(TokenizerError, match="no chat template"):
        tokenizer.render_chat(TURNS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"chat_template": "{% if %}"}, "chat_template: line 1"),
        ({"chat_template": 5}, "chat_template: expected a string"),
        ({"chat_template": [{"name": "x"}]}, "chat_template: expected a list of"),
        ({"eos_token": 5}, "eos_token: expected a string"),
        ({"eos_token": "<nope>"}, "eos_token '<nope>' is not a token of tokenizer.json"),
    ],
)
def test_faulty_configuration(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        opened(tmp_path, byte_level(), **config)
    assert str(caught.value).startswith(str(tmp_path))


def test_files_that_are_missing_or_unreadable(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json: no such file"):
        Tokenizer.open(tmp_path, 10)
    write(tmp_path, byte_level())
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"', encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer.json: not a readable tokenizer"):
        Tokenizer.open(tmp_path, 1000)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer.json: no such file"):
        Tokenizer.open(tmp_path, 1000)
    for content, message in (("{", "not readable JSON"), ("[]", "expected a JSON object, found list")):
        (tmp_path / "tokenizer_config.json").write_text(content, encoding="utf-8")
        with pytest.raises(TokenizerError, match=message):
            Tokenizer.open(tmp_path, 1000)


def test_equals_transformers(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, small_bpe(), chat_template=CHATML, tokenizer_class="PreTrainedTokenizerFast")
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert tokenizer.render_chat(TURNS, add_generation_prompt=True) == theirs.apply_chat_template(
        TURNS, tokenize=False, add_generation_prompt=True
    )
    for text in TEXTS:
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)
