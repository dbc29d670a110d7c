"""The table of `weights.bin` and the file read in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lcsb_mobile.bundle.weights import PAGE, DType, MappedWeights, lay_out
from lcsb_mobile.measuring.memory_watch import fields

DTYPES: tuple[DType, ...] = ("uint8", "int8", "float16", "float32")
SHAPES = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple))


@given(st.lists(SHAPES, min_size=1, max_size=8))
def test_tensors_start_on_pages_and_do_not_overlap(tensors: list[tuple[DType, tuple[int, ...]]]) -> None:
    table = lay_out({f"tensor{number}": tensor for number, tensor in enumerate(tensors)})
    end = 0
    for entry, (dtype, shape) in zip(table, tensors, strict=True):
        assert entry.offset % PAGE == 0 and end <= entry.offset < end + PAGE
        assert entry.nbytes == np.zeros(shape, dtype).nbytes
        end = entry.offset + entry.nbytes


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    table = lay_out(
        {
            "norm.weight": ("float32", (5,)),
            "layers.full.q.packed": ("uint8", (3, 4, 2)),
            "layers.full.q.scale": ("float16", (3, 4)),
            "layers.fullest.q.packed": ("uint8", (1, 4, 2)),
        }
    )
    content = np.random.default_rng(0).integers(0, 256, table[-1].offset + table[-1].nbytes, dtype=np.uint8)
    path = tmp_path / "weights.bin"
    path.write_bytes(content.tobytes())
    weights = MappedWeights(path, table)
    assert "norm.weight" in weights and "other" not in weights
    layer = weights.layer("full", 2)
    assert list(layer) == ["q.packed", "q.scale"]
    packed = content[table[1].offset + 16 : table[1].offset + 24].reshape(4, 2)
    np.testing.assert_array_equal(layer["q.packed"], packed)
    assert layer["q.scale"].shape == (4,) and not layer["q.packed"].flags.owndata
    other = content[table[3].offset : table[3].offset + 8].reshape(4, 2)  # a kind's layers are numbered by themselves
    np.testing.assert_array_equal(weights.layer("fullest", 0)["q.packed"], other)
    for kind, number in (("full", 0), ("full", 2), ("fullest", 0)):
        weights.read_ahead(kind, number)  # changes nothing
    weights.release()
    np.testing.assert_array_equal(layer["q.packed"], packed)  # a view outlives the release: its pages are read again


def test_release_gives_pages_back(tmp_path: Path) -> None:
    table = lay_out({"big": ("uint8", (32 << 20,))})
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(32 << 20))
    weights = MappedWeights(path, table)
    assert weights["big"].max() == 0
    before = fields("/proc/self/smaps_rollup", b"Anonymous:", b"Rss:")
    weights.release()
    after = fields("/proc/self/smaps_rollup", b"Anonymous:", b"Rss:")
    assert before is None or (after is not None and before[1] - after[1] > 30 << 20)
