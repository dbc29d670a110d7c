"""Chat templates as data: what is derived writes what the template writes, and a template of another form gets none."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from helpers.bundles import RandomBundle
from helpers.chat_templates import GEMMA3, LLAMA3, MARKED, QWEN3, QWEN25, SPECIAL
from helpers.data import CHATML, byte_backend, make_tokenizer
from tokenizers import Tokenizer as Backend

from lcsb_mobile.bundle.manifest import MANIFEST_FILE
from lcsb_mobile.export.chat_format import NotOfThisForm, Refused, derive, render, write_chat_format
from lcsb_mobile.text.chat_format import CHAT_FILE, DATE_MARK, ChatFormat
from lcsb_mobile.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
TRIMMING = CHATML.replace("message['content']", "message['content'] | trim")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "golden" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokenizer(template: str | None) -> Tokenizer:
    return make_tokenizer(byte_backend(), template, special=("<s>", *SPECIAL), bos_token="<s>")


@pytest.mark.parametrize("template", [CHATML, QWEN25, QWEN3, LLAMA3, GEMMA3, TRIMMING])
def test_it_writes_what_the_template_writes(template: str) -> None:
    """On conversations that were not probed with, beside those of the proof."""
    model = tokenizer(template)
    chat = derive(model)
    contents = ("Hi", " 🙂\n", "<think>\nso\n</think>\n\nyes", "no </think>")
    for roles in (["user"], ["system", "user", "assistant"], ["user", "assistant"] * 3, ["system", *["user", "assistant"] * 2, "user"]):
        messages = [{"role": role, "content": f"{contents[place % 4]}{place}"} for place, role in enumerate(roles)]
        for prompt in (False, True):
            expected = model.render_chat(messages, prompt, strftime_now=lambda _: "some day")
            assert render(chat, messages, prompt, "some day") == expected


def test_what_is_derived() -> None:
    chat = derive(tokenizer(GEMMA3))
    assert (chat.opening, chat.generation_prompt, chat.alternates) == ("<s>", "<start_of_turn>model\n", True)
    assert chat.system_in_next and chat.system and not chat.system.trimmed and chat.user.trimmed
    assert derive(tokenizer(QWEN25)).opening == "<|im_start|>system\nYou are a model.<|im_end|>\n"
    assert derive(tokenizer(QWEN25)).empty is None
    dated = derive(tokenizer(LLAMA3))
    assert dated.date_format == "%Y" and f"Today: {DATE_MARK}" in dated.opening
    thoughts = derive(tokenizer(QWEN3)).thoughts
    assert thoughts and (thoughts.open, thoughts.close) == ("<think>\n", "\n</think>\n\n")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (MARKED, "marks itself what the assistant writes"),
        (CHATML.replace("message['content']", "message['content'] | upper"), "does not write every content as it stands"),
        (CHATML.replace("message['content']", "message['content'].strip('\n')"), "a conversation of .* is written otherwise"),
        (CHATML.replace("{% for", "{{ messages | length }}{% for"), "a conversation of .* is written otherwise"),
        (CHATML.replace("{% for", "{{ strftime_now('%A') }}{% for"), "writes the date as '%A'"),
        (CHATML.replace("{% for", "{{ strftime_now('%d') }}{{ strftime_now('%Y') }}{% for"), "writes the date as '%Y', '%d'"),
        (CHATML.replace("message['role']", "message.role if message.content else 'nobody'"), "a conversation of .* is written otherwise"),
        ("{{ raise_exception('no') }}", "refuses a conversation of user, assistant"),
        (CHATML.replace("<|im_end|>\n", "{% if loop.last %}<|im_end|>{% endif %}"), "writes a turn otherwise|is written otherwise"),
    ],
)
def test_templates_of_no_known_form(template: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(NotOfThisForm, match=reason):
        derive(tokenizer(template))
    warning = write_chat_format(tmp_path, tokenizer(template))
    assert warning and warning.startswith("no chat.json, so that a phone cannot use messages: the chat template is of no known form: ")
    assert not (tmp_path / CHAT_FILE).exists()


def test_without_a_template_nothing_is_written(tmp_path: Path) -> None:
    assert write_chat_format(tmp_path, tokenizer(None)) is None
    assert not (tmp_path / CHAT_FILE).exists()


def test_the_file(tmp_path: Path) -> None:
    assert write_chat_format(tmp_path, tokenizer(QWEN3)) is None
    assert msgspec.json.decode((tmp_path / CHAT_FILE).read_bytes(), type=ChatFormat) == derive(tokenizer(QWEN3))


def test_what_a_format_refuses() -> None:
    chat = derive(tokenizer(QWEN3))
    for messages in ([{"role": "tool", "content": "x"}], [{"role": "user", "content": "<tool_response>x</tool_response>"}]):
        with pytest.raises(Refused):
            render(chat, messages, False, "")


def test_a_bundle_has_it(random_bundle: RandomBundle) -> None:
    manifest = json.loads((random_bundle.bundle / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert manifest["files"][CHAT_FILE]["size"] == (random_bundle.bundle / CHAT_FILE).stat().st_size


def test_the_golden_files_are_current() -> None:
    writer = script("write_chat_golden")
    assert writer.text() == writer.FILE.read_text(encoding="utf-8")


def test_the_tokenizers_golden_file_is_the_librarys() -> None:
    """Every 20th line again, with the checked-in tokenizers: a newer library that does otherwise is seen here."""
    writer = script("write_tokenizer_golden")
    backends = [Backend.from_str(gzip.decompress((writer.DIRECTORY / f"{style}.json.gz").read_bytes()).decode()) for style in writer.STYLES]
    lines = gzip.decompress((writer.DIRECTORY / "golden.jsonl.gz").read_bytes()).decode().removesuffix("\n").split("\n")
    assert len(lines) == writer.STRINGS + writer.DECODED
    for number, text in list(enumerate(lines))[: writer.STRINGS : 20]:
        wanted = json.loads(text)
        assert writer.line(backends, wanted["text"], "offsets" in wanted) == wanted, number
