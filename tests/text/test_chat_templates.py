"""Which tokens of a conversation count, under templates as real models have them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import transformers
from helpers.chat_templates import GEMMA3, LLAMA3, MARKED, QWEN3, QWEN25, SPECIAL
from helpers.data import CHATML, all_text, bpe_backend, byte_backend, learned, make_tokenizer

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.data.records import LineExample, read_line
from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.text.tokenizer import Tokenizer

GGUF = Path(os.environ.get("LCSB_MODELS", Path(__file__).parents[2] / "models")) / "SmolLM2-135M-Instruct.Q4_1.gguf"

Turn = dict[str, str]


def system(content: str) -> Turn:
    return {"role": "system", "content": content}


def user(content: str) -> Turn:
    return {"role": "user", "content": content}


def assistant(content: str) -> Turn:
    return {"role": "assistant", "content": content}


CHAT = [system("Be brief."), user("Hi 🙂"), assistant(" Oui.\n"), user("assistant?"), assistant("Two\n\nlines")]
TOOLS = [user("a"), assistant("calling"), {"role": "tool", "content": "42"}, assistant("It is 42.")]
THOUGHTS = [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"), assistant("<think>\nso\n</think>\n\nd")]
NO_THOUGHTS = [user("a"), assistant("b"), user("c"), assistant("d")]
THOUGHTS_AND_TOOLS = [user("a"), THOUGHTS[1], TOOLS[2], assistant("c"), TOOLS[2], assistant("d")]

IM, EOT, TURN = "<|im_end|>\n", "<|eot_id|>", "<end_of_turn>\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"


def tokenizer(template: str, backend=byte_backend) -> Tokenizer:
    return make_tokenizer(backend(), template, special=("<s>", *SPECIAL), bos_token="<s>")


def read(tokenizer: Tokenizer, turns: list[Turn]) -> LineExample:
    return read_line(json.dumps({"messages": turns}).encode(), tokenizer)


@pytest.mark.parametrize(
    ("template", "turns", "counted", "uncounted_turns"),
    [
        (CHATML, CHAT, f" Oui.\n{IM}Two\n\nlines{IM}", 0),
        (CHATML, TOOLS, f"calling{IM}It is 42.{IM}", 0),
        (CHATML, [assistant("I begin."), user("a"), assistant("b")], f"I begin.{IM}b{IM}", 0),
        (CHATML, [assistant(""), user("a"), assistant("b")], f"{IM}b{IM}", 0),
        (QWEN25, CHAT, f" Oui.\n{IM}Two\n\nlines{IM}", 0),
        (QWEN25, CHAT[1:], f" Oui.\n{IM}Two\n\nlines{IM}", 0),
        (QWEN25, [assistant("I begin."), user("a"), assistant("b")], f"b{IM}", 1),  # it refuses the conversation before its first turn
        (LLAMA3, CHAT, f"Oui.{EOT}Two\n\nlines{EOT}", 0),
        (LLAMA3, CHAT[1:], f"Oui.{EOT}Two\n\nlines{EOT}", 0),
        (GEMMA3, CHAT, f"Oui.{TURN}Two\n\nlines{TURN}", 0),
        (GEMMA3, CHAT[1:], f"Oui.{TURN}Two\n\nlines{TURN}", 0),
        (MARKED, CHAT, " Oui.\n<|im_end|>Two\n\nlines<|im_end|>", 0),
        (MARKED, THOUGHTS, "b<|im_end|><think>\nso\n</think>\n\nd<|im_end|>", 0),  # the earlier one as the template has it
        (MARKED, [assistant(""), user("a"), assistant("b")], "<|im_end|>b<|im_end|>", 0),
        (QWEN3, THOUGHTS, f"<think>\nso\n</think>\n\nd{IM}", 1),
        (QWEN3, NO_THOUGHTS, f"{NO_THOUGHT}d{IM}", 1),
        (QWEN3, NO_THOUGHTS[:2], f"{NO_THOUGHT}b{IM}", 0),
        (QWEN3, NO_THOUGHTS[:3], f"{NO_THOUGHT}b{IM}", 0),  # without the question that follows it is the last
        (QWEN3, THOUGHTS_AND_TOOLS, f"<think>\nhm\n</think>\n\nb{IM}{NO_THOUGHT}d{IM}", 1),
    ],
)
@pytest.mark.parametrize("backend", [byte_backend, bpe_backend])
def test_the_assistants_turns_count(template: str, backend, turns: list[Turn], counted: str, uncounted_turns: int) -> None:
    model = tokenizer(template, backend)
    line = read(model, turns)
    assert learned(model, line.example) == counted
    assert line.uncounted_turns == uncounted_turns
    last = max(number for number, turn in enumerate(turns) if turn["role"] == "assistant")
    assert all_text(model, line.example) == model.render_chat(turns[: last + 1])


@pytest.mark.parametrize("template", [CHATML, QWEN25, QWEN3, LLAMA3, GEMMA3])
def test_the_last_turn_is_learned_where_the_model_will_write_it(template: str) -> None:
    """Before its first counted token stands what generating would begin with, and nothing else; after it all counts."""
    model = tokenizer(template)
    for turns in (CHAT, CHAT[1:], THOUGHTS, NO_THOUGHTS):
        example = read(model, turns).example
        start = int(np.flatnonzero(example.labels[:-1] == IGNORED_LABEL)[-1]) + 1  # predicts the first token that counts
        assert example.input_ids[: start + 1].tolist() == model.encode(model.render_chat(turns[:-1], add_generation_prompt=True))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{% if loop.last %}<|im_end|>{% endif %}{% endfor %}",
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
        CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"),  # generates from what no turn begins with
    ],
)
def test_a_last_turn_that_cannot_be_found_is_refused(template: str) -> None:
    with pytest.raises(DataError, match=r"rewrites earlier text at messages\[4\], so that turn cannot be found; give it as prompt"):
        read(tokenizer(template), CHAT)


def test_what_a_template_refuses() -> None:
    with pytest.raises(TokenizerError, match="user and assistant must take turns"):
        read(tokenizer(GEMMA3), [user("a"), user("b"), assistant("c")])
    with pytest.raises(TokenizerError, match="refused the messages"):
        read(tokenizer(QWEN25), [assistant("I begin.")])


def test_a_turn_of_nothing_is_not_counted() -> None:
    """Where a template ends no turn, an empty one is no character long."""
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    model = tokenizer(template)
    assert learned(model, read(model, [user("x"), assistant(""), user("y"), assistant("z")]).example) == "z"


@pytest.mark.parametrize("backend", [byte_backend, bpe_backend])
@pytest.mark.parametrize("turns", [CHAT, TOOLS, THOUGHTS, [assistant(""), user("é🙂"), assistant("🙂é")]])
def test_marked_turns_are_those_of_transformers(turns: list[Turn], backend) -> None:
    model = tokenizer(MARKED, backend)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=model._backend, chat_template=MARKED)
    expected = theirs.apply_chat_template(turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    example = read(model, turns).example
    assert example.input_ids.tolist() == expected["input_ids"]
    assert (example.labels[:-1] != IGNORED_LABEL).tolist() == [bool(counted) for counted in expected["assistant_masks"][1:]]


def test_marks_leave_no_trace() -> None:
    model = tokenizer(MARKED)
    unmarked = MARKED.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    for turns in (CHAT, THOUGHTS):
        assert model.render_chat(turns) == tokenizer(unmarked).render_chat(turns)


def test_a_template_that_marks_nothing_here() -> None:
    """It has the tag, so what it does not mark does not count."""
    model = tokenizer("{% if false %}{% generation %}{% endgeneration %}{% endif %}" + CHATML)
    assert read(model, CHAT).example.counted_labels == 0


def test_marks_within_marks_are_refused() -> None:
    nested = "{% generation %}{% generation %}{{ messages[1].content }}{% endgeneration %}{% endgeneration %}"
    with pytest.raises(TokenizerError, match="tags are not one after the other"):
        read(tokenizer(nested), CHAT)


@pytest.mark.model
@pytest.mark.skipif(not GGUF.is_file(), reason=f"{GGUF} is not there (LCSB_MODELS names another directory)")
def test_the_template_of_smollm2() -> None:
    import gguf

    model = tokenizer(gguf.GGUFReader(GGUF).fields["tokenizer.chat_template"].contents())
    for turns in (CHAT, CHAT[1:]):
        line = read(model, turns)
        assert learned(model, line.example) == f" Oui.\n{IM}Two\n\nlines{IM}"
        assert line.uncounted_turns == 0
    begins = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi 🙂"
    assert all_text(model, read(model, CHAT[1:]).example).startswith(begins)
    line = read(model, [assistant("I begin."), user("a"), assistant("b")])  # it puts a system's turn before what it is given
    assert (learned(model, line.example), line.uncounted_turns) == (f"b{IM}", 1)
