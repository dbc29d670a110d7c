"""Reading JSON lines, labels, and the laws of packing."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from lcsb_mobile.batch import IGNORED_LABEL, Batch
from lcsb_mobile.data import DataReport, Example, epochs, fill, pack, read_examples
from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.tokenizer import Tokenizer

PAD = 7
SPECIAL = ["</s>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Ça va 🙂?"},
    {"role": "assistant", "content": " Oui, très bien.\n"},
    {"role": "user", "content": "assistant"},
    {"role": "assistant", "content": "Two\n\nlines 🙂"},
]


def byte_backend() -> Backend:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Backend(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))


def bpe_backend() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(["assistant user system Two lines Oui, bien.\n\n"] * 4, trainer)
    return backend


def make_tokenizer(backend: Backend, template: str | None = CHATML, vocab_size: int = 1000, **config: Any) -> Tokenizer:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return Tokenizer(backend, {"eos_token": "</s>", "chat_template": template} | config, vocab_size)


@pytest.fixture(params=[byte_backend, bpe_backend])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make_tokenizer(request.param())


def write(directory: Path, *lines: Any) -> Path:
    path = directory / "data.jsonl"
    path.write_bytes(b"".join(line + b"\n" if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return path


def read_one(directory: Path, tokenizer: Tokenizer, line: Any, seq_len: int = 1000) -> Example:
    examples, report = read_examples(write(directory, line), tokenizer, seq_len)
    assert (len(examples), report.lines) == (1, 1)
    return examples[0]


def counted_text(tokenizer: Tokenizer, example: Example) -> str:
    """What is learned, with special tokens."""
    counted = [label for label in example.labels if label != IGNORED_LABEL]
    return str(tokenizer._backend.decode(counted, skip_special_tokens=False))


def test_text_counts_everything_after_the_first_token(tmp_path: Path, tokenizer: Tokenizer) -> None:
    example = read_one(tmp_path, tokenizer, {"text": "Two lines"})
    assert example.input_ids == [*tokenizer.encode("Two lines"), tokenizer.eos_id]
    assert example.labels == [*example.input_ids[1:], IGNORED_LABEL]


def test_completion_counts_from_the_prompts_last_position(tmp_path: Path, tokenizer: Tokenizer) -> None:
    example = read_one(tmp_path, tokenizer, {"prompt": "user: ", "completion": "bien."})
    prompt = tokenizer.encode("user: ")
    completion = [*tokenizer.encode("bien."), tokenizer.eos_id]
    assert example.input_ids == prompt + completion
    assert example.labels == [IGNORED_LABEL] * (len(prompt) - 1) + completion + [IGNORED_LABEL]


def test_bos_is_not_counted(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(byte_backend(), bos_token="<|im_start|>", add_bos_token=True)
    example = read_one(tmp_path, tokenizer, {"text": "ab"})
    assert example.input_ids == [257, *tokenizer.encode("ab"), 256]
    assert example.labels == [*tokenizer.encode("ab"), 256, IGNORED_LABEL]


def test_messages_count_the_assistants_turns(tmp_path: Path, tokenizer: Tokenizer) -> None:
    example = read_one(tmp_path, tokenizer, {"messages": CHAT})
    assert example.input_ids == tokenizer.encode(tokenizer.render_chat(CHAT))
    assert counted_text(tokenizer, example) == " Oui, très bien.\n<|im_end|>\nTwo\n\nlines 🙂<|im_end|>\n"
    assert all(label in (IGNORED_LABEL, token) for label, token in zip(example.labels, example.input_ids[1:], strict=False))


def test_a_token_that_straddles_the_turns_start_is_counted(tmp_path: Path) -> None:
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate([*"abu:Ġ", ":a"])}, merges=[(":", "a")]))
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    tokenizer = make_tokenizer(backend, template)
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    turns = [{"role": "user", "content": "b"}, {"role": "assistant", "content": "ab"}]
    example = read_one(tmp_path, tokenizer, {"messages": turns})
    assert [backend.id_to_token(token) for token in example.input_ids] == ["u", ":", "b", "a", ":a", "b"]
    assert [label != IGNORED_LABEL for label in example.labels] == [False, False, False, True, True, False]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{% if loop.last %}<|im_end|>{% endif %}{% endfor %}",
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
    ],
)
def test_template_that_rewrites_history(tmp_path: Path, template: str) -> None:
    with pytest.raises(DataError, match=r"data.jsonl:2: .* rewrites earlier text at messages\[2\]"):
        path = write(tmp_path, {"text": "ok"}, {"messages": CHAT})
        read_examples(path, make_tokenizer(byte_backend(), template), 1000)


def test_truncation_is_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path, {"text": "ab"}, {"text": "abcdefgh"}, {"prompt": "abcdefgh", "completion": "x"}, {"text": "cd"})
    sizes = [len(tokenizer.encode(text)) + 1 for text in ("ab", "abcdefgh", "cd")]
    cut = sizes[1] - 4
    examples, report = read_examples(path, tokenizer, 4)
    assert report == DataReport(
        lines=4,
        examples=3,
        tokens=sizes[0] + 4 + sizes[2],
        counted_labels=sizes[0] - 1 + 4 + sizes[2] - 1,
        truncated=2,
        tokens_cut=cut + cut + 1,
        without_labels=1,
    )
    assert examples[1].labels == (tokenizer.encode("abcdefgh") + tokenizer.eos())[1:5]  # the token after the cut is known


def test_windows_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "ab"}\r\n{"text": "cd"}')
    assert len(read_examples(path, tokenizer, 10)[0]) == 2


FAULTS = [
    (b"", "a blank line; expected"),
    (b"{", "not JSON: "),
    (b'{"text": "a"} x', "not JSON: .*trailing characters"),
    (b'{"text": "\\ud800"}', "not JSON: "),
    (b"[" * 100_000, "Expected `object`, got `array`"),
    (b'{"text": ' + b"[" * 100_000, "not JSON: "),
    (b'{"text": "\xff"}', "not UTF-8: invalid start byte at byte 10"),
    (b'["text"]', "Expected `object`, got `array`"),
    ({}, "expected the keys of .*, found none"),
    ({"txt": "a"}, "expected the keys of .*, found 'txt'"),
    ({"text": "a", "prompt": "b"}, "expected the keys of .*, found 'prompt', 'text'"),
    ({"text": "a", "id": 1}, "Object contains unknown field `id`"),
    ({"prompt": "a"}, "missing required field `completion`"),
    ({"text": 5}, r"Expected `str`, got `int` - at `\$.text`"),
    ({"text": None}, r"Expected `str`, got `null` - at `\$.text`"),
    ({"text": ""}, "text: expected text, found an empty string"),
    ({"prompt": "a", "completion": ""}, "completion: expected text"),
    ({"messages": []}, "messages: expected text"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages: expected text"),
    ({"messages": [{"role": "", "content": "a"}]}, "role: expected text"),
    ({"messages": [{"role": "user"}]}, r"missing required field `content` - at `\$.messages\[0\]`"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, r"Expected `str`, got `array` - at `\$.messages\[0\].content`"),
    ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "unknown field `name`"),
    ({"messages": [{"role": "user", "content": "a"}]}, "at least one with the role 'assistant', found none"),
]


@pytest.mark.parametrize(("line", "message"), FAULTS)
def test_malformed_line(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path, {"text": "a"}, line, {"text": "b"})
    with pytest.raises(DataError, match=message) as caught:
        read_examples(path, make_tokenizer(byte_backend()), 10)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


def test_files_without_anything_to_train_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="the file is empty"):
        read_examples(write(tmp_path), tokenizer, 10)
    with pytest.raises(DataError, match="none of the 1 lines has a counted label within 2 tokens"):
        read_examples(write(tmp_path, {"prompt": "ab" * 9, "completion": "c"}), tokenizer, 2)
    with pytest.raises(DataError, match="No such file"):
        read_examples(tmp_path / "nope", tokenizer, 10)
    with pytest.raises(DataError, match="Is a directory"):
        read_examples(tmp_path, tokenizer, 10)


def test_tokenizer_faults_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"data.jsonl:1: token 258 .* vocabulary of 258"):
        read_examples(write(tmp_path, {"text": "a<|im_end|>"}), make_tokenizer(byte_backend(), vocab_size=258), 10)
    with pytest.raises(TokenizerError, match=r"data.jsonl:1: the tokenizer has no chat template"):
        read_examples(write(tmp_path, {"messages": CHAT}), make_tokenizer(byte_backend(), None), 10)


SEQ_LEN = 12
EXAMPLES = st.lists(
    st.lists(st.integers(0, 50), min_size=2, max_size=SEQ_LEN).flatmap(
        lambda ids: st.integers(0, len(ids) - 2).map(
            lambda first: Example(ids, [IGNORED_LABEL] * first + ids[first + 1 :] + [IGNORED_LABEL]),
        )
    ),
    min_size=1,
    max_size=20,
)


def unpack(batch: Batch) -> list[Example]:
    """The examples of one batch, by its segments; checks the batch's own laws on the way."""
    arrays = (batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids)
    assert all(array.shape == (SEQ_LEN,) and array.dtype == np.int64 for array in arrays)
    assert batch.counted_labels > 0
    changes = np.diff(batch.segment_ids)
    assert batch.segment_ids[0] == 0 and set(changes.tolist()) <= {0, 1}  # contiguous, numbered from 0
    examples = []
    for segment in range(int(batch.segment_ids[-1]) + 1):
        mask = batch.segment_ids == segment
        assert batch.position_ids[mask].tolist() == list(range(mask.sum()))
        examples.append(Example(batch.input_ids[mask].tolist(), batch.labels[mask].tolist()))
    if not examples[-1].counted_labels:
        assert set(examples.pop().input_ids) == {PAD}
    return examples


@given(EXAMPLES)
def test_packing_loses_and_doubles_nothing(examples: list[Example]) -> None:
    batches = pack(examples, SEQ_LEN, PAD)
    assert [example for batch in batches for example in unpack(batch)] == examples
    assert sum(batch.counted_labels for batch in batches) == sum(example.counted_labels for example in examples)
    tokens = sum(len(example.input_ids) for example in examples)
    assert fill(batches) == pytest.approx(tokens / (SEQ_LEN * len(batches)))
    for one, following in itertools.pairwise(batches):  # next fit: what opened the following sequence did not fit
        used = sum(len(example.input_ids) for example in unpack(one))
        assert used + len(unpack(following)[0].input_ids) > SEQ_LEN


@given(EXAMPLES, st.integers(0, 2**40))
def test_epochs_hold_every_example_once_and_depend_on_the_seed_alone(examples: list[Example], seed: int) -> None:
    def frozen(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(example.input_ids), tuple(example.labels)

    stream = (frozen(example) for batch in epochs(examples, SEQ_LEN, PAD, seed) for example in unpack(batch))
    once = Counter(map(frozen, examples))
    for _ in range(3):
        assert Counter(itertools.islice(stream, len(examples))) == once
    first = list(itertools.islice(epochs(examples, SEQ_LEN, PAD, seed), 9))
    again = list(itertools.islice(epochs(examples, SEQ_LEN, PAD, seed), 9))
    for one, other in zip(first, again, strict=True):
        assert (one.input_ids == other.input_ids).all() and (one.labels == other.labels).all()


def test_epochs_differ_from_each_other_and_between_seeds() -> None:
    examples = [Example([token] * SEQ_LEN, [token] * (SEQ_LEN - 1) + [IGNORED_LABEL]) for token in range(30)]

    def order(seed: int) -> list[int]:
        return [int(batch.input_ids[0]) for batch in itertools.islice(epochs(examples, SEQ_LEN, PAD, seed), 60)]

    assert order(0)[:30] != order(0)[30:]
    assert order(0) != order(1)
    assert order(3)[:6] == [27, 1, 24, 19, 25, 14]  # the same on every version of Python and numpy, so that a run can be resumed


def test_packing_refuses_what_it_cannot_place() -> None:
    with pytest.raises(ValueError, match="at most 3 tokens"):
        pack([Example([1] * 4, [1, 1, 1, IGNORED_LABEL])], 3, PAD)
    with pytest.raises(ValueError, match="with a counted label"):
        pack([Example([1, 2], [IGNORED_LABEL, IGNORED_LABEL])], 3, PAD)
    with pytest.raises(ValueError, match="found none"):
        next(epochs([], 3, PAD, 0))
    assert pack([], 3, PAD) == []
    assert fill([]) == 0.0
