"""The evaluator's rules against coremltools' own definitions of the operators, which it has for constants; int4 likewise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcsb_mobile.errors import BundleError
from lcsb_mobile.export.coreml.constants import repacked
from lcsb_mobile.export.coreml.package import WeightFile as Writer
from lcsb_mobile.export.weights.quantization import pack_int4
from lcsb_mobile.mil.operators import LISTS, RULES
from lcsb_mobile.mil.package import TensorType
from lcsb_mobile.mil.weight_file import WeightFile

GENERATOR = np.random.default_rng(0)
X, Y = (GENERATOR.standard_normal((3, 4)).astype(np.float32) for _ in range(2))
POSITIVE, ROW = np.abs(X) + np.float32(0.1), Y[:1]
TWO = np.float32(2)

# Operator -> operands of several uses.
CASES: dict[str, list[dict[str, Any]]] = {
    **{name: [{"x": X, "y": Y}, {"x": X, "y": ROW}, {"x": X, "y": TWO}] for name in ("add", "sub", "mul", "real_div", "maximum")},
    "pow": [{"x": POSITIVE, "y": TWO}],
    **{name: [{"x": X}] for name in ("abs", "exp", "exp2", "ceil", "floor", "relu", "sigmoid", "tanh", "identity")},
    "sqrt": [{"x": POSITIVE}],
    "log": [{"x": POSITIVE, "epsilon": np.float32(1e-45)}, {"x": POSITIVE, "epsilon": np.float32(0.5)}],
    "rsqrt": [{"x": POSITIVE, "epsilon": np.float32(1e-30)}, {"x": POSITIVE, "epsilon": np.float32(0.5)}],
    "softmax": [{"x": X, "axis": -1}, {"x": X, "axis": 0}],
    "cast": [{"x": X, "dtype": "fp16"}, {"x": X > 0, "dtype": "fp32"}, {"x": 10 * X, "dtype": "int32"}],
    **{name: [{"x": np.arange(5, dtype=np.int32), "y": np.int32(2)}] for name in ("equal", "not_equal", "less", "greater")},
    "logical_and": [{"x": X > 0, "y": Y > 0}],
    "select": [{"cond": X > 0, "a": X, "b": Y}],
    "matmul": [{"x": X, "y": Y, "transpose_x": x, "transpose_y": y} for x, y in ((False, True), (True, False))],
    "linear": [{"x": X, "weight": Y, "bias": np.arange(3, dtype=np.float32)}],
    **{
        f"reduce_{name}": [{"x": X, "axes": axes, "keep_dims": keep} for axes in ([-1], [0], [0, 1]) for keep in (True, False)]
        for name in ("mean", "sum", "max")
    },
    "reshape": [{"x": X, "shape": [2, 6]}],
    "transpose": [{"x": X, "perm": [1, 0]}],
    "slice_by_index": [{"x": X, "begin": [1, 0], "end": [3, 4], "stride": [1, 2]}],
    "slice_by_size": [{"x": X, "begin": [1, 2], "size": [2, 1]}],
    "gather": [{"x": X, "indices": np.int32([2, 0, 2]), "axis": axis, "batch_dims": 0, "validate_indices": False} for axis in (0, 1)],
    "split": [{"x": X, "split_sizes": [1, 3], "axis": 1}],
    "concat": [{"values": [X, Y], "axis": 1, "interleave": False}],
    "tile": [{"x": X, "reps": [2, 1]}, {"x": ROW, "reps": [3, 1]}],
    "fill": [{"shape": [2, 3], "value": np.float32(7)}],
}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, types

    for operands in CASES[name]:
        with Function({"unused": mb.placeholder((1,), types.fp32)}, opset_version=ct.target.iOS18):
            result = getattr(mb, name)(**{key: mb.const(val=x) if key in ("x", "a", "b", "cond") else x for key, x in operands.items()})
        expected = [np.asarray(x.val) for x in (result if isinstance(result, (list, tuple)) else [result])]
        kinds = [TensorType(x.dtype.name, x.shape) for x in expected]
        plain = {key: x if key in LISTS or isinstance(x, str) else _array(x) for key, x in operands.items()}
        found = RULES[name](kinds, **plain)
        for ours, theirs in zip(found if isinstance(found, list) else [found], expected, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def _array(x: Any) -> np.ndarray:
    return np.asarray(x, np.int32) if isinstance(x, (list, int)) and not isinstance(x, bool) else np.asarray(x)


def test_every_rule_is_held_to_something() -> None:
    assert RULES.keys() - CASES.keys() == {"const", "constexpr_blockwise_shift_scale"}  # the latter below


@pytest.mark.parametrize("offset", [None, np.float32([[1, 2], [3, 4], [5, 6]])])
def test_blocks(offset: np.ndarray | None) -> None:
    """An element's scale and offset are those of its block, along any dimension."""
    data, scale = np.arange(-12, 12).reshape(6, 4).astype(np.int8), np.float32([[1, 10], [2, 20], [3, 30]])
    found = RULES["constexpr_blockwise_shift_scale"]([TensorType("float32", (6, 4))], data=data, scale=scale, offset=offset)
    for row in range(6):
        for column in range(4):
            block = row // 2, column // 2
            shift = 0 if offset is None else offset[block]
            assert found[row, column] == scale[block] * (data[row, column] - shift)
    with pytest.raises(ValueError, match="expected scales that divide"):
        RULES["constexpr_blockwise_shift_scale"]([TensorType("float32", (6, 4))], data=data, scale=scale[:, :1].repeat(3, 1))


@pytest.mark.parametrize("group", [2, 8, 32])
def test_nibbles(tmp_path: Path, group: int) -> None:
    """From the order of weights.bin to the order of the format and back: every value of every place; and coremltools reads them alike."""
    import torch
    from coremltools.libmilstoragepython import _BlobStorageReader

    q = GENERATOR.integers(-8, 8, (16, 3, group)).astype(np.int8)
    writer = Writer((tmp_path / "weight.bin").open("wb"))
    floats = writer.add("floats", "float32", np.float32([1, 2, 3]))
    place = writer.add("q", "int4", repacked(pack_int4(torch.from_numpy(q)).numpy()))
    writer.close()
    reader = WeightFile(tmp_path / "weight.bin")
    assert reader.count == 2 and reader.read(floats, "float32", (3,)).tolist() == [1, 2, 3]
    np.testing.assert_array_equal(reader.read(place, "int4", (16, 3 * group)), q.reshape(16, -1))
    theirs = _BlobStorageReader(str(tmp_path / "weight.bin")).read_int4_data(place)
    np.testing.assert_array_equal(theirs, q.reshape(-1))
    with pytest.raises(BundleError, match="damaged: the tensor at byte"):
        reader.read(place, "int4", (16, 3 * group + 1))


def test_unsigned_nibbles_and_odd_counts(tmp_path: Path) -> None:
    """As coremltools writes them."""
    from coremltools.converters.mil.mil import types
    from coremltools.libmilstoragepython import _BlobStorageWriter

    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    values = np.arange(15).astype(types.np_uint4_dtype)
    places = writer.write_uint4_data(values), writer.write_int4_data((np.arange(15) - 8).astype(types.np_int4_dtype))
    del writer
    reader = WeightFile(path)
    np.testing.assert_array_equal(reader.read(places[0], "uint4", (15,)), np.arange(15))
    np.testing.assert_array_equal(reader.read(places[1], "int4", (5, 3)), (np.arange(15) - 8).reshape(5, 3))
    with pytest.raises(BundleError, match="expected one of .*, found uint3"):
        reader.read(places[0], "uint3", (15,))


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("gather", {"x": X, "indices": np.int32([3]), "axis": np.int32(0), "batch_dims": np.int32(0), "validate_indices": False}),
        ("gather", {"x": X, "indices": np.int32([-1]), "axis": np.int32(0), "batch_dims": np.int32(0), "validate_indices": False}),
        ("slice_by_size", {"x": X, "begin": np.int32([2, 0]), "size": np.int32([2, 4])}),
        ("concat", {"values": [X, Y], "axis": np.int32(0), "interleave": np.bool_(True)}),
    ],
)
def test_refusals(name: str, operands: dict[str, Any]) -> None:
    """What the format leaves undefined, or is not done here, is no result."""
    with pytest.raises(ValueError, match="expected"):
        RULES[name]([TensorType("float32", (1, 4))], **operands)
