"""Where a text ends: stop texts, whatever the tokens are; the tokens that end a text or a turn; and answers to a chat's message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import hostile
from helpers.bundles import RandomBundle, StubRunner, lcsb, lcsb_error, lcsb_json
from helpers.chat_templates import GEMMA3, LLAMA3, QWEN3
from helpers.scripts import ADAPTER, GREEDY, Script, byte_tokenizer, fallback_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcsb_mobile.errors import OptionError, TokenizerError
from lcsb_mobile.generation import generate as generate_module
from lcsb_mobile.generation.generate import Chat, Continuation, continue_prompt
from lcsb_mobile.generation.sampling import SamplingConfig
from lcsb_mobile.generation.stop_texts import StopTexts
from lcsb_mobile.text.tokenizer import Tokenizer, local_time

HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SPECIAL = ("<|im_start|>", "<|im_end|>", *HEADERS, "<start_of_turn>", "<end_of_turn>", "</s>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# Stop texts


def slow_cut(text: str, stop: Sequence[str]) -> str | None:
    """Character by character: before the first stop text to be complete, of those complete at once before the longest; None without one."""
    for end in range(1, len(text) + 1):
        found = [one for one in stop if text[:end].endswith(one)]
        if found:
            return text[: end - max(map(len, found))]
    return None


LETTERS = st.text("ab é€", max_size=14)
STOPS = st.lists(st.text("ab é€", min_size=1, max_size=4), max_size=3)


@settings(max_examples=400, deadline=None)
@given(LETTERS, STOPS, st.lists(st.integers(1, 6), max_size=30))
@example("xaab", ["aab"], [1, 1, 1, 1])  # the stop text begins anew within what looked like its beginning
@example("abab a", ["abab ab"], [2, 2, 2])  # held to the end, and not met
@example("cabd", ["abd", "b"], [4])  # the shorter is complete first, in one token as in four
@example("c€", ["€"], [1, 1, 2])  # within a character
def test_stop_texts(text: str, stop: list[str], sizes: list[int]) -> None:
    """The same text whatever the tokens are, given out as soon as it can be, and nothing of a stop text ever."""
    raw, at, given_out, filter_ = text.encode(), 0, "", StopTexts(stop)
    expected = slow_cut(text, stop)
    for size in [*sizes, len(raw)]:
        at = min(len(raw), at + size)
        given_out += filter_.grow(raw[:at].decode(errors="ignore"))
        so_far = raw[:at].decode(errors="ignore")
        cut = slow_cut(so_far, stop)
        assert filter_.met == (cut is not None)
        if cut is not None:
            break
        held = so_far.removeprefix(given_out)
        assert so_far == given_out + held
        assert held == "" or any(one.startswith(held) for one in stop)
        assert not any(one.startswith(so_far[start:]) for one in stop for start in range(len(given_out)))
    if not filter_.met:
        given_out += filter_.end(text)
    assert filter_.met == (expected is not None)
    assert given_out == (text if expected is None else expected)


def written(text: str, **sampling: Any) -> tuple[list[str], Continuation]:
    """The pieces of a text that a model writes byte by byte, and the end token after it."""
    tokenizer = byte_tokenizer()
    config = SamplingConfig(temperature=0, **sampling)
    continuation = continue_prompt(Script(tokenizer.encode(text)), tokenizer, ADAPTER, "x", 64, config)
    return list(continuation), continuation


def test_text_ends_before_a_stop_text() -> None:
    pieces, continuation = written("so it is.\n\nUser: no", stop=("\nUser:", "never"))
    assert pieces == [*"so it is.", "\n"]  # the first line break can be given out when the second is there
    assert (continuation.ended, continuation.tokens) == ("stop text", len("so it is.\n\nUser:"))


def test_what_was_held_is_given_out_at_the_end() -> None:
    """At the end token, after max_tokens, and when the sequence is full."""
    pieces, continuation = written("a\n\nUse", stop=("\n\nUser:",))
    assert pieces == ["a", "\n\nUse"] and continuation.ended == "end token" and continuation.tokens == 6
    pieces, continuation = written("a\n\nUser:", stop=("\n\nUser:",), max_tokens=5)
    assert pieces == ["a", "\n\nUs"] and continuation.ended == "max tokens"
    pieces, continuation = written("a" + "b" * 70, stop=("b" * 80,))
    assert pieces == ["a", "b" * 62] and continuation.ended == "sequence full"


CHARACTERS = st.tuples(st.sampled_from(["é", "€", "😀", "\N{REPLACEMENT CHARACTER}", "a"]), st.integers(1, 4))  # and how many of its tokens
PARTS = st.lists(st.one_of(CHARACTERS, st.integers(1, 257)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([byte_tokenizer("<s>"), fallback_tokenizer()]), st.sampled_from(["a", "é", "a€"]), PARTS, st.sampled_from(["", "é"]))
@example(fallback_tokenizer(), "a", [("€", 3), ("€", 1), ("a", 1), ("€", 3)], "")  # a stray byte after a good character, and more text
@example(byte_tokenizer(), "a", [("€", 3), ("€", 1), ("a", 1), ("€", 3)], "")
@example(fallback_tokenizer(), "é", [("€", 3), ("€", 1), ("a", 1)], "")  # it breaks the prompt's last character too
@example(byte_tokenizer(), "a", [("\N{REPLACEMENT CHARACTER}", 3)], "")  # a text that ends in a real one
@example(byte_tokenizer(), "a", [("€", 2)], "")  # one that ends within a character
def test_pieces_are_what_all_tokens_are_at_once(tokenizer: Tokenizer, prompt: str, parts: list[tuple[str, int] | int], stop: str) -> None:
    """The oracle is the library: the text of all tokens, from where the prompt's bytes end. Nothing is lost, and nothing taken back."""
    ids = [token for part in parts for token in ([part] if isinstance(part, int) else tokenizer.encode(part[0])[: part[1]])]
    before, whole = tokenizer.encode(prompt), tokenizer.decode([*tokenizer.encode(prompt), *ids])
    broken = tokenizer.settled(before)  # of the prompt's tokens, those before a run of bytes
    begun = len(prompt) if whole.startswith(prompt) else len(tokenizer.decode(before[:broken])) + len(before) - broken
    expected = whole[begun:]
    cut = slow_cut(expected, [stop] if stop else [])
    config = SamplingConfig(temperature=0, stop=(stop,) if stop else ())
    continuation = continue_prompt(Script(ids), tokenizer, ADAPTER, prompt, 64, config)
    assert "".join(continuation) == (expected if cut is None else cut)
    assert continuation.ended == ("end token" if cut is None else "stop text")


def test_stop_texts_do_not_change_what_is_sampled() -> None:
    """The draws are the same with stop texts: the text is the beginning of the one without them."""

    def text(stop: tuple[str, ...]) -> str:
        runner = StubRunner(vocabulary=257, logits=dict.fromkeys(range(60, 90), 3.0))
        return "".join(continue_prompt(runner, byte_tokenizer(), ADAPTER, "x", 64, SamplingConfig(seed=5, stop=stop)))

    whole = text(())
    assert len(whole) > 20
    assert text((whole[10:12],)) == whole[: whole.index(whole[10:12])]


def test_a_special_token_as_a_stop_text() -> None:
    """It has no text that could be met: the token ends the text. Within a text it cannot be met, and is refused."""
    tokenizer = byte_tokenizer("<stop>")
    (stop,) = tokenizer.encode("<stop>")
    continuation = continue_prompt(
        Script([*tokenizer.encode("ab"), stop, 5]), tokenizer, ADAPTER, "x", 64, SamplingConfig(stop=("<stop>",))
    )
    assert "".join(continuation) == "ab" and continuation.ended == "end token"
    with pytest.raises(OptionError, match="stop: expected a text or one special token, found 'a<stop>'"):
        continue_prompt(Script([5]), tokenizer, ADAPTER, "x", 64, SamplingConfig(stop=("a<stop>",)))
    assert "".join(continue_prompt(Script([*tokenizer.encode("ab"), stop]), tokenizer, ADAPTER, "x", 64, GREEDY)) == "ab"


# The tokens that end a text or a turn


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHATML, {"<|im_end|>"}),
        (QWEN3, {"<|im_end|>"}),
        (LLAMA3, {"<|eot_id|>"}),
        (GEMMA3, {"<end_of_turn>"}),
        ("{% for m in messages %}[{{ m.role }}] {{ m.content }} </s>{% endfor %}", {"</s>"}),  # after a blank
        ("{% for m in messages %}{{ m.role }}: {{ m.content }} [end]\n{% endfor %}", set()),  # with text
        ("{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}", set()),  # with nothing
        ("{% for m in messages %}<|im_start|>{{ m.content | upper }}<|im_end|>{% endfor %}", set()),  # not to be found
        ("{{ raise_exception('never') }}", set()),
        (None, set()),
    ],
)
def test_end_of_turn_is_found_by_rendering(template: str | None, ends: set[str]) -> None:
    tokenizer = byte_tokenizer(*SPECIAL, chat_template=template, bos_token="<|im_start|>")
    (end,) = tokenizer.encode("<end>")  # the end token of any text
    assert tokenizer.end_ids == {end, *(tokenizer.encode(token)[0] for token in ends)}


def test_an_answer_ends_with_its_turn() -> None:
    tokenizer = byte_tokenizer(*SPECIAL, chat_template=CHATML)
    (end,) = tokenizer.encode("<|im_end|>")
    continuation = continue_prompt(Script([*tokenizer.encode("yes"), end, 9, 9]), tokenizer, ADAPTER, "well?", 99, GREEDY, Chat())
    assert list(continuation) == [*"yes"]
    assert (continuation.ended, continuation.tokens) == ("end token", 3)


def test_stated_end_ids() -> None:
    """`eos_token_id`, where an export puts what generation_config.json says, with the end token."""
    assert byte_tokenizer().end_ids == {0}
    assert byte_tokenizer(eos_token_id=7).end_ids == {0, 7}
    assert byte_tokenizer(eos_token_id=[7, 8]).end_ids == {0, 7, 8}
    assert byte_tokenizer(eos_token=None, eos_token_id=None).end_ids == set()
    for bad in ("</s>", [1, "2"], True, 1.5):
        with pytest.raises(TokenizerError, match="eos_token_id: expected a number or a list of numbers, found"):
            byte_tokenizer(eos_token_id=bad)


# Chat


def test_what_a_chat_reads() -> None:
    tokenizer = byte_tokenizer(*SPECIAL, chat_template=CHATML, add_bos_token=True, bos_token="</s>")
    for chat, before in ((Chat(), ""), (Chat("be brief"), "<|im_start|>system\nbe brief<|im_end|>\n")):
        runner = Script(tokenizer.encode("ok"), seq_len=200)
        continuation = continue_prompt(runner, tokenizer, ADAPTER, "hi", 200, GREEDY, chat)
        assert "".join(continuation) == "ok"
        expected = tokenizer.encode(f"{before}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")  # no token of beginning besides
        assert runner.seen[0][0].input_ids[: continuation.prompt_tokens].tolist() == expected


def test_a_question_is_asked_today() -> None:
    tokenizer = byte_tokenizer(chat_template="{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}")
    runner = Script([])
    list(continue_prompt(runner, tokenizer, ADAPTER, "hi", 64, GREEDY, Chat()))
    assert tokenizer.decode(runner.seen[0][0].input_ids[:15]) == f"{local_time():%d %b %Y}: hi"


def test_a_chat_without_a_template() -> None:
    with pytest.raises(TokenizerError, match="no chat template"):
        continue_prompt(Script([]), byte_tokenizer(), ADAPTER, "hi", 64, GREEDY, Chat())


# Figures


def test_seconds_are_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that a token takes 2 seconds of and the reader of a piece 100: neither prefill nor decoding has the reader's."""
    now = 0.0
    monkeypatch.setattr(generate_module.time, "perf_counter", lambda: now)

    class Slow(Script):
        def next_logits(self, *arguments: Any) -> Any:
            nonlocal now
            now += 2.0
            return super().next_logits(*arguments)

    tokenizer = byte_tokenizer()
    continuation = continue_prompt(Slow(tokenizer.encode("abc")), tokenizer, ADAPTER, "xyz", 64, GREEDY)
    assert continuation.decode_tokens_per_second is None and continuation.ended is None
    for _ in continuation:
        now += 100.0
    assert (continuation.prompt_tokens, continuation.tokens, continuation.prefill_seconds) == (3, 3, 2.0)
    assert (continuation.decoded, continuation.decode_seconds, continuation.decode_tokens_per_second) == (3, 6.0, 0.5)


# The command


def test_command(random_bundle: RandomBundle) -> None:
    options = ("generate", random_bundle.bundle, "--prompt", "the ", "--max-tokens", 8, "--temperature", 0)
    plain = lcsb_json(*options)
    assert (plain["ended"], plain["tokens"], plain["prompt_tokens"]) == ("max tokens", 8, 3)
    assert plain["prefill_seconds"] > 0 and plain["decode_tokens_per_second"] > 0 and len(plain["text"]) >= 8
    third = plain["text"][2]
    stopped = lcsb_json(*options, "--stop", third, "--stop", "never")
    assert stopped["ended"] == "stop text" and stopped["text"] == plain["text"][: plain["text"].index(third)]
    assert lcsb(*options, "--stop", third) == f"the {stopped['text']}\n"
    answer = lcsb_json(*options, "--chat")
    assert answer["prompt_tokens"] > 10 and answer["prompt"] == "the "
    assert lcsb(*options, "--chat") == f"{answer['text']}\n"
    instructed = lcsb_json(*options[:3], "a", "--system", "b", "--chat", "--max-tokens", 1)
    assert instructed["prompt_tokens"] > lcsb_json(*options[:3], "a", "--chat", "--max-tokens", 1)["prompt_tokens"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stop", ""), "error: stop: expected a text, found an empty one"),
        (("--stop", "</s>."), "error: stop: expected a text or one special token, found '</s>.'"),
        (("--system", "be brief"), "error: system: expected with --chat, found without it"),
        (("--chat", "--system", "b" * 40), "error: prompt: expected 1 to 31 tokens"),
        (("--seed", -1), "error: seed: expected 0 or more, found -1"),
    ],
)
def test_bad_options(random_bundle: RandomBundle, options: tuple[str, ...], message: str) -> None:
    assert lcsb_error(2, "generate", random_bundle.bundle, "--prompt", "x", *options).startswith(message)


def test_chat_with_a_bundle_that_has_no_template(bundle: Path) -> None:
    """As an exported base model: the command says so."""
    settings_ = json.loads((bundle / "tokenizer_config.json").read_text())
    del settings_["chat_template"]
    hostile.replace(bundle, "tokenizer_config.json", json.dumps(settings_).encode())
    assert "no chat template" in lcsb_error(2, "generate", bundle, "--prompt", "x", "--chat")
