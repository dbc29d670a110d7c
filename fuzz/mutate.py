"""Changes of an input that keep its form: of JSON, and of safetensors' header, which is JSON behind its length."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 8, 255, 4096, 2**31 - 1, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-320, 1e308)
TEXTS = ("", "..", "../x", "/", "x" * 300, "\x00", "\x1b[2J", "\ud800", "é", "layers.", "kept.0", "weights.bin", "float16", "-1")
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": ""})
DEEP = 2000  # levels of nesting


def mutate(data: bytes, random: Random) -> bytes:
    """One to four changes of the JSON that `data` is, or that stands in it behind its length; else one of bytes."""
    start, end = _document(data)
    if start and _document(data[end:])[0] and random.random() < 0.5:  # a second one behind the first
        return data[:end] + mutate(data[end:], random)
    try:
        holder = [json.loads(data[start:end])]
    except (ValueError, RecursionError):
        return _bytes(data, random)
    for _ in range(random.randint(1, 4)):
        _change(*_place(holder, random), random)
    text = json.dumps(holder[0] if holder else None, separators=(",", ":")).encode()
    if random.random() < 0.02:
        text = b"[" * DEEP + text + b"]" * DEEP
    return text if not start else len(text).to_bytes(8, "little") + text + data[end:]


def _document(data: bytes) -> tuple[int, int]:
    """Where a JSON document starts and ends: behind eight bytes with its length, or all of it."""
    length = int.from_bytes(data[:8], "little")
    return (8, 8 + length) if data[8:9] == b"{" and length <= len(data) - 8 else (0, len(data))


def _bytes(data: bytes, random: Random) -> bytes:
    if not data:
        return bytes([random.randrange(256)])
    at = random.randrange(len(data))
    return random.choice(
        (data[:at], data[:at] + bytes([random.randrange(256)]) + data[at + 1 :], data[:at] + data[at + 1 :], data + data[at:])
    )


def _place(value: Any, random: Random) -> tuple[Any, Any]:
    """A list or an object of `value`, and a key of it."""
    while True:
        key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
        if not isinstance(value[key], (dict, list)) or not value[key] or random.random() < 0.15:
            return value, key
        value = value[key]


def _change(holder: Any, key: Any, random: Random) -> None:
    value = holder[key]
    kind = random.randrange(8)
    if kind == 0 and len(holder) > 1:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(random.randint(0, len(holder)), holder[key])
    elif kind == 1:
        holder[random.choice(TEXTS)] = value
    elif kind == 2:
        holder[key] = deepcopy(random.choice(OTHERS))
    elif kind == 3 and isinstance(holder, list):
        random.shuffle(holder)
    elif kind <= 4:
        other = random.choice(list(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
        holder[key] = holder[other]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        holder[key] = random.choice((*NUMBERS, value + 1, value - 1, value * 2, value / 2))
    else:
        holder[key] = random.choice((*TEXTS, *NUMBERS))
