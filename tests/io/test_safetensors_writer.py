"""Writing safetensors tensor by tensor: what the library reads, whole or in parts; and what does not fit its entry."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from safetensors.numpy import load

from lcsb_mobile.io.safetensors_writer import Array, TensorEntry, write_safetensors

ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)


def written(parts: Array | list[Array], shape: tuple[int, ...] = (5, 3)) -> dict[str, Array]:
    file = io.BytesIO()
    entries = {"a": TensorEntry("F32", shape), "b": TensorEntry("F16", (2,))}

    def read(name: str) -> Array | Iterator[Array]:
        if name == "b":
            return np.ones(2, np.float16)
        return parts if isinstance(parts, np.ndarray) else iter(parts)

    write_safetensors(file, entries, read, {"format": "pt"})
    return dict(load(file.getvalue()))


@pytest.mark.parametrize(
    "parts", [ROWS, ROWS.T.copy().T, [ROWS[:2], ROWS[2:]], [ROWS[:0], *ROWS]], ids=["whole", "strided", "parts", "rows"]
)
def test_whole_and_in_parts(parts: Array | list[Array]) -> None:
    found = written(parts)
    assert np.array_equal(found["a"], ROWS) and np.array_equal(found["b"], np.ones(2, np.float16))


@pytest.mark.parametrize("parts", [ROWS[:4], ROWS.astype(np.float64), [ROWS, ROWS[:1]], []], ids=["short", "wide", "long", "nothing"])
def test_another_size_than_the_entry_states(parts: Array | list[Array]) -> None:
    with pytest.raises(ValueError, match=r"a: expected 60 bytes, found \d+"):
        written(parts)
