"""Chat templates in the manner of the models that phones run, written for these tests; and tokens that they use."""

from __future__ import annotations

SPECIAL = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>")

QWEN25 = """\
{%- if messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou are a model.<|im_end|>\\n' -}}
{%- endif -%}
{%- for m in messages -%}
    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

# With the tag by which templates say themselves what the assistant writes. Thoughts of earlier turns are dropped.
MARKED = """\
{%- for m in messages -%}
    {{- '<|im_start|>' + m.role + '\\n' -}}
    {%- if m.role == 'assistant' -%}
        {%- generation -%}
            {{- (m.content if loop.last else m.content.split('</think>')[-1].lstrip('\\n')) + '<|im_end|>' -}}
        {%- endgeneration -%}
        {{- '\\n' -}}
    {%- else -%}
        {{- m.content + '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

# Thoughts stay in the turns after the last question alone, and the last turn has a place for one even where it has none.
QWEN3 = """\
{%- set at = namespace(question=-1) -%}
{%- for m in messages if m.role == 'user' -%}
    {%- set at.question = messages.index(m) -%}
{%- endfor -%}
{%- for m in messages -%}
    {{- '<|im_start|>' + m.role + '\\n' -}}
    {%- set thought, answer = '', m.content -%}
    {%- if m.role == 'assistant' and '</think>' in m.content -%}
        {%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
        {%- set answer = m.content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {%- if m.role == 'assistant' and loop.index0 > at.question and (loop.last or thought) -%}
        {{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}
    {%- endif -%}
    {{- answer + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

LLAMA3 = """\
{%- set system, rest = '', messages -%}
{%- if messages[0].role == 'system' -%}
    {%- set system, rest = messages[0].content | trim, messages[1:] -%}
{%- endif -%}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + strftime_now('%Y') + '\\n\\n' + system + '<|eot_id|>' -}}
{%- for m in rest -%}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

GEMMA3 = """\
{{- bos_token -}}
{%- set first, rest = '', messages -%}
{%- if messages[0].role == 'system' -%}
    {%- set first, rest = messages[0].content + '\\n\\n', messages[1:] -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('user and assistant must take turns') -}}
    {%- endif -%}
    {%- set role = 'model' if m.role == 'assistant' else m.role -%}
    {{- '<start_of_turn>' + role + '\\n' + (first if loop.first else '') + m.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""
