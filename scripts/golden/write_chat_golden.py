"""Writes what a port of chat formats is held to, tests/golden/chat_formats.json: `write_chat_golden.py [FILE]`.

For each template in the manner of a family: its `chat.json`; what the template itself renders for conversations, or null where it refuses;
and the labels of the data pipeline, whose tokenizer has a token for each byte and the special tokens after those.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lcsb_mobile.bundle.batch import IGNORED_LABEL
from lcsb_mobile.data.records import read_line
from lcsb_mobile.errors import DataError, TokenizerError
from lcsb_mobile.export.chat_format import derive
from lcsb_mobile.text.chat_format import DATE_MARK
from lcsb_mobile.text.tokenizer import Tokenizer

FILE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "chat_formats.json"
SEED, RENDERED, LABELLED = 5, 120, 60  # conversations of a template
SPECIAL = (
    "<s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
)
CONTENTS = (
    "Hi", "Ça va 🙂?", " two\n\nlines \n", "", "<think>\nhm\n</think>\n\nyes", "<think>no", "\n\nb", "x</think>\ny", "\u00a0q\u2003",
    "\u0085 q\x1f", "a<|im_end|>b", "e\u0301",
    "[1, 2]", "{% if %}",
)  # fmt: skip

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_WITH_DEFAULT = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a model.<|im_end|>\n' }}{% endif %}" + CHATML.removeprefix("{% for m in messages %}")
)
QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set seen = namespace(searching=true, question=messages | length) %}
{%- for m in messages[::-1] %}
    {%- if seen.searching and m.role == 'user' %}
        {%- set seen.searching = false %}
        {%- set seen.question = messages | length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set thought, answer = '', m.content %}
        {%- if '</think>' in answer %}
            {%- set thought = answer.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set answer = answer.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > seen.question and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + answer.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + answer }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = (
    "{% for m in messages %}"
    "{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA32 = """\
{{- bos_token }}
{%- set system, rest = '', messages %}
{%- if messages[0].role == 'system' %}
    {%- set system, rest = messages[0].content | trim, messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nKnows until: 2023\\n' }}
{{- 'Today: ' + strftime_now('%d %b %Y') + '\\n\\n' + system + '<|eot_id|>' }}
{%- for m in rest %}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
GEMMA3 = """\
{{ bos_token }}
{%- set first, rest = '', messages -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first, rest = messages[0]['content'] + '\\n\\n', messages[1:] -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('user and assistant must take turns') }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + (first if loop.first else '') }}
    {{- m['content'] | trim }}
    {{- '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""
TEMPLATES = {
    "chatml": CHATML, "chatml with a default": CHATML_WITH_DEFAULT, "qwen3": QWEN3, "llama3": LLAMA3, "llama3.2": LLAMA32, "gemma3": GEMMA3,
}  # fmt: skip


# Thoughts before the last turn, with and without a question between.
THOUGHTS = [
    [{"role": role, "content": content} for role, content in turns]
    for turns in (
        (("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("assistant", "c")),
        (("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "<think>d</think>e")),
    )
]


def backend() -> Backend:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Backend(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return made


def conversation(rng: random.Random, most: int) -> list[dict[str, str]]:
    """Of taking turns for the most part, with or without a system's message."""
    count = rng.randint(0, most)
    roles = [("user", "assistant")[place % 2] for place in range(count)]
    if rng.random() < 0.4:
        roles = [rng.choice(("system", "user", "assistant")) for _ in roles]
    elif rng.random() < 0.5:
        roles = ["system", *roles]
    return [{"role": role, "content": rng.choice(CONTENTS)} for role in roles]


def rendered(tokenizer: Tokenizer, messages: list[dict[str, str]], prompt: bool) -> str | None:
    try:
        return tokenizer.render_chat(messages, prompt, strftime_now=lambda _: DATE_MARK)
    except TokenizerError:
        return None


def labels(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> dict[str, Any]:
    """Ids that count, and how many turns do not; null where the line is refused."""
    try:
        line = read_line(json.dumps({"messages": messages}).encode(), tokenizer)
    except (DataError, TokenizerError):
        return {"messages": messages, "tokens": 0, "counted": None, "uncounted_turns": 0}
    counted = [index for index, label in enumerate(line.example.labels.tolist()) if label != IGNORED_LABEL]
    runs = [
        (run[0][1], len(run)) for _, group in itertools.groupby(enumerate(counted), lambda pair: pair[1] - pair[0]) if (run := list(group))
    ]
    return {"messages": messages, "tokens": len(line.example.input_ids), "counted": runs, "uncounted_turns": line.uncounted_turns}


def golden(template: str) -> dict[str, Any]:
    tokenizer = Tokenizer(backend(), {"bos_token": "<s>", "chat_template": template}, 1000)
    rng = random.Random(SEED)
    conversations = [(turns, False) for turns in THOUGHTS] + [(conversation(rng, 6), rng.random() < 0.5) for _ in range(RENDERED)]
    dated = "strftime_now" in template  # then the text, and its length, are another each day
    return {
        "chat": msgspec.to_builtins(derive(tokenizer)),
        "rendered": [
            {"messages": messages, "prompt": prompt, "text": rendered(tokenizer, messages, prompt)} for messages, prompt in conversations
        ],
        "labels": [] if dated else [labels(tokenizer, turns) for turns in [*THOUGHTS, *(conversation(rng, 7) for _ in range(LABELLED))]],
    }


def text() -> str:
    """One conversation a line."""
    parts = []
    for name, template in TEMPLATES.items():
        content = golden(template)
        lists = [f' "{key}": [\n  ' + ",\n  ".join(json.dumps(case) for case in content[key]) + "\n ]" for key in ("rendered", "labels")]
        parts.append(f'{json.dumps(name)}: {{\n "chat": {json.dumps(content["chat"])},\n' + ",\n".join(lists) + "}")
    tokenizer = json.dumps(json.loads(backend().to_str()))
    return "{" + f'"tokenizer": {tokenizer},\n"formats": {{\n' + ",\n".join(parts) + "\n}}\n"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    path.write_text(text(), encoding="utf-8")
