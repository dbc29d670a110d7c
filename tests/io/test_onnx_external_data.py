"""The walk through an ONNX file, held to the onnx package; and each thing that it refuses."""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.bundles import RandomBundle, python
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.bundle.manifest import SESSION_CONFIG
from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.onnx_external_data import MOST_FIELDS, PROGRAM_BYTES, check_external_data, external_tensors

EXTERNAL = onnx.TensorProto.EXTERNAL
DATA = "weights.bin"


def tensor(name: str, **entries: str) -> onnx.TensorProto:
    """Without entries it holds its own data."""
    made = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [4], np.arange(4, dtype=np.float32).tobytes(), raw=True)
    if entries:
        made.ClearField("raw_data")
        made.data_location = EXTERNAL
    for key, value in entries.items():
        made.external_data.add(key=key, value=value)
    return made


def graph_of(*tensors: onnx.TensorProto) -> onnx.GraphProto:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy")
    node = onnx.helper.make_node("Add", ["x", tensors[0].name if tensors else "x"], ["y"])
    return onnx.helper.make_graph([node], "g", [x], [y], list(tensors))


def write(path: Path, graph: onnx.GraphProto) -> Path:
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


# The reference: every message of the file, found by protobuf's own description of them.


def messages(message: object) -> Iterator[object]:
    yield message
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        if field.type == field.TYPE_MESSAGE:
            for inner in value if hasattr(value, "add") else [value]:  # repeated or single
                yield from messages(inner)


def reference(path: Path) -> list[tuple[str, dict[str, str]]]:
    found = [m for m in messages(onnx.load(path, load_external_data=False)) if isinstance(m, onnx.TensorProto)]
    external = [t for t in found if t.data_location == EXTERNAL or t.external_data]
    return sorted(((t.name, {entry.key: entry.value for entry in t.external_data}) for t in external), key=str)


def walked(path: Path) -> list[tuple[str, dict[str, str]]]:
    return sorted(((found.name, found.entries) for found in external_tensors(path)), key=str)


def check_programs(bundle: Path) -> None:
    for path in bundle.glob("*.onnx"):
        assert walked(path) == reference(path)
        check_external_data(path, DATA, (path.parent / DATA).stat().st_size, None)


def test_programs_of_a_bundle(random_bundle: RandomBundle) -> None:
    check_programs(random_bundle.bundle)
    assert walked(random_bundle.bundle / "embed.onnx") == []  # it is fed its weights


@pytest.mark.training_api
def test_programs_for_the_training_api(random_training_bundle: RandomBundle) -> None:
    check_programs(random_training_bundle.bundle)
    assert len(walked(random_training_bundle.bundle / "training_model.onnx")) == 21  # tensors of weights.bin


NAMES = st.sampled_from(["w", "v", ""])
TENSORS = st.builds(tensor, NAMES, location=st.sampled_from([DATA, "../x", ""]), offset=st.just("0")) | st.builds(tensor, NAMES)

SPARSE = st.builds(lambda values, indices: onnx.SparseTensorProto(values=values, indices=indices), TENSORS, TENSORS)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2) -> onnx.GraphProto:
    """Tensors in every place that may hold one: initializers, sparse ones, attributes of every kind, subgraphs."""
    graph = graph_of(*draw(st.lists(TENSORS, max_size=2)))
    graph.sparse_initializer.extend(draw(st.lists(SPARSE, max_size=1)))
    attribute = graph.node[0].attribute.add(name="a", type=onnx.AttributeProto.TENSOR)
    if draw(st.booleans()):
        attribute.t.CopyFrom(draw(TENSORS))
        attribute.tensors.extend(draw(st.lists(TENSORS, max_size=2)))
        attribute.sparse_tensor.values.CopyFrom(draw(TENSORS))
        attribute.sparse_tensors.add().indices.CopyFrom(draw(TENSORS))
    if depth and draw(st.booleans()):
        attribute.g.CopyFrom(draw(graphs(depth - 1)))
        attribute.graphs.extend(draw(st.lists(graphs(depth - 1), max_size=1)))
    return graph


@settings(deadline=None, max_examples=60)
@given(graph=graphs(), inner=graphs(0))
def test_tensors_are_found_wherever_they_are(
    tmp_path_factory: pytest.TempPathFactory, graph: onnx.GraphProto, inner: onnx.GraphProto
) -> None:
    model = onnx.helper.make_model(graph)
    function = model.functions.add(name="f")
    function.node.extend(inner.node)
    function.attribute_proto.add(name="b").t.CopyFrom(tensor("in a function", location="../x"))
    model.training_info.add().algorithm.CopyFrom(inner)
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert walked(path) == reference(path)


# What is refused


def refusal(path: Path, names: list[str] | None = None) -> str:
    with pytest.raises(BundleError) as error:
        check_external_data(path, DATA, 1000, names)
    return str(error.value)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"location": "../secret"}, "'w' has its data in '../secret', expected 'weights.bin'"),
        ({"location": "/etc/passwd"}, "'w' has its data in '/etc/passwd'"),
        ({"location": "link"}, "'w' has its data in 'link'"),
        ({"location": "./weights.bin"}, "'w' has its data in './weights.bin'"),
        ({"location": "Weights.bin"}, "'w' has its data in 'Weights.bin'"),
        ({"location": "weights.bin\0"}, r"'w' has its data in 'weights.bin\x00'"),
        ({"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096"}, "'w' has its data in '*/_ORT_MEM_ADDR_/*'"),
        ({"offset": "0"}, "'w' has its data in None, expected"),
        ({"location": DATA, "basepath": "/etc"}, "'w' has its data in 'weights.bin', expected 'weights.bin' and no keys but location"),
        ({"location": DATA, "offset": "985", "length": "16"}, "expected its data within 1000 bytes, found '16' bytes from '985'"),
        ({"location": DATA, "offset": "-1"}, "found '0' bytes from '-1'"),
        ({"location": DATA, "offset": "0x10"}, "from '0x10'"),
        ({"location": DATA, "offset": "\u0661"}, "from '\u0661'"),
        ({"location": DATA, "length": "9" * 5000}, "expected its data within 1000 bytes, found '999"),
    ],
)
def test_a_place_elsewhere(tmp_path: Path, entries: dict[str, str], expected: str) -> None:
    path = write(tmp_path / "m.onnx", graph_of(tensor("w", **entries)))
    message = refusal(path)
    assert message.startswith(f"{path}: ") and expected in message and len(message) < 500


def test_the_last_byte_is_within(tmp_path: Path) -> None:
    check_external_data(write(tmp_path / "m.onnx", graph_of(tensor("w", location=DATA, offset="984", length="16"))), DATA, 1000, ["w"])


def test_only_named_tensors_have_data_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", graph_of(tensor("w", location=DATA)))
    assert "'w' has its data outside the program, expected no tensor to have" in refusal(path, [])
    assert "expected v, u to have" in refusal(path, ["v", "u"])


def test_marked_without_a_place(tmp_path: Path) -> None:
    made = tensor("w")
    made.data_location = EXTERNAL
    assert "'w' has its data in None" in refusal(write(tmp_path / "m.onnx", graph_of(made)))


def test_a_place_without_the_mark(tmp_path: Path) -> None:
    """Today's ONNX Runtime takes no notice of it; no exporter writes it."""
    made = tensor("w")
    made.external_data.add(key="location", value="../secret")
    assert "'w' has its data in '../secret'" in refusal(write(tmp_path / "m.onnx", graph_of(made)))


def test_a_key_twice(tmp_path: Path) -> None:
    made = tensor("w", location=DATA)
    made.external_data.add(key="location", value="../secret")
    assert "the tensor 'w' has 'location' twice" in refusal(write(tmp_path / "m.onnx", graph_of(made)))


def tagged(number: int, content: bytes) -> bytes:
    """A field of bytes, with a size of up to four bytes."""
    size = len(content)
    return bytes([*varint(number << 3 | 2), *varint(size)]) + content


def varint(value: int) -> list[int]:
    return [value] if value < 128 else [value & 127 | 128, *varint(value >> 7)]


GRAPH, NODE, ATTRIBUTE, SUBGRAPH = 7, 1, 5, 6


def nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = tagged(NODE, tagged(ATTRIBUTE, tagged(SUBGRAPH, graph)))
    return tagged(GRAPH, graph)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tagged(GRAPH, b"") * 2, "field 7 of 'model' stands twice"),
        (tagged(GRAPH, tagged(5, tagged(8, b"a") * 2)), "field 8 of 'tensor' stands twice"),
        (tagged(GRAPH, tagged(5, tagged(13, tagged(1, b"location") * 2))), "field 1 of 'entry' stands twice"),
        (tagged(GRAPH, tagged(5, tagged(14, b"x"))), "field 14 of 'tensor' is of wire type 2"),
        (bytes([GRAPH << 3, 1]), "field 7 of 'model' is of wire type 0"),
        (bytes([GRAPH << 3 | 3]), "wire type 3"),
        (b"\x02\x00", "field number 0"),
        (tagged(GRAPH, b"abc")[:-1], "a field of 3 bytes where 2 are left"),
        (bytes([GRAPH << 3 | 2]) + b"\xff" * 9 + b"\x01", "a field of 18446744073709551615 bytes where 0 are left"),
        (b"\xff" * 11, "a number that does not end"),
        (b"not a model", "wire type 6"),
        (tagged(GRAPH, tagged(5, tagged(8, b"\xff"))), "codec can't decode"),
        (nested(40), "more than 100 messages within each other"),
        (b"\x08\x01" * (MOST_FIELDS + 1), f"more than {MOST_FIELDS} fields"),
    ],
)
def test_not_as_exporters_write(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path}: not an ONNX file as exporters write them: ") and expected in message


def test_nesting_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(nested(33))
    assert walked(tmp_path / "m.onnx") == []


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "absent.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")  # nobody writes to it: opening it the usual way would wait for ever
    assert "cannot be read: not a regular file" in refusal(tmp_path / "pipe.onnx")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(PROGRAM_BYTES + 1)
    assert f"{PROGRAM_BYTES + 1} bytes, more than the {PROGRAM_BYTES} that are read" in refusal(tmp_path / "large.onnx")


@settings(deadline=None, max_examples=100)
@given(cut=st.integers(0, 10**6), at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_any_change_is_read_or_refused(random_bundle: RandomBundle, cut: int, at: int, byte: int) -> None:
    content = bytearray((random_bundle.bundle / "logits.onnx").read_bytes())
    content[at % len(content)] = byte
    path = random_bundle.bundle.parent / "changed.onnx"
    path.write_bytes(content[: 1 + cut % len(content)])
    try:
        external_tensors(path)
    except BundleError as error:
        assert str(error).startswith(f"{path}: not an ONNX file")


def test_memory(tmp_path: Path) -> None:
    """The worst that the limits let through: as many marked tensors as there may be fields, beside bytes that nothing asks for."""
    marked = tagged(GRAPH, tagged(5, b"\x70\x01") * (MOST_FIELDS // 2 - 10))
    (tmp_path / "m.onnx").write_bytes(marked + tagged(2, bytes(PROGRAM_BYTES - len(marked) - 100)))
    tracemalloc.start()
    try:
        found = external_tensors(tmp_path / "m.onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == MOST_FIELDS // 2 - 10 and peak < PROGRAM_BYTES + 40 * 2**20


# What it is for: ONNX Runtime 1.19 does so; newer ones refuse it themselves


@pytest.mark.training_api
def test_the_runtime_opens_any_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "bundle").mkdir()
    path = write(tmp_path / "bundle" / "m.onnx", graph_of(tensor("w", location="../secret", offset="0", length="16")))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros(4, np.float32)})[0].tolist() == [0, 1, 2, 3]
    assert "'w' has its data in '../secret'" in refusal(path)


@pytest.mark.training_api
def test_the_runtime_reads_any_address(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", graph_of(tensor("w", location="*/_ORT_MEM_ADDR_/*", offset="4096", length="16")))
    done = python("import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])", path)
    assert done.returncode == -signal.SIGSEGV
    assert "'w' has its data in '*/_ORT_MEM_ADDR_/*'" in refusal(path)


def test_the_runtime_writes_where_its_configuration_says(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.node_partition_config_file", str(tmp_path / "written"))
    onnxruntime.InferenceSession(write(tmp_path / "m.onnx", graph_of()), options, providers=["CPUExecutionProvider"])
    assert (tmp_path / "written").read_text().startswith("{") and "session.node_partition_config_file" not in SESSION_CONFIG
