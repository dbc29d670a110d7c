"""Tiles in turn: the order in the file, the same numbers, and what ONNX Runtime then holds at once. The twin of export/tile_order.py."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.captured import TILE, TILES, MakeGraphs, layer_feeds, random_hidden, run
from helpers.lowered import run_file, write
from helpers.tiny_models import ARCHITECTURES, MakeTiny, packed_batch
from onnx import numpy_helper
from torch import Tensor

from lcsb_mobile.export.graphs.blocks import KindGraphs
from lcsb_mobile.export.graphs.captured import CapturedGraph
from lcsb_mobile.export.onnx import lowering
from lcsb_mobile.export.onnx.settings import SETTINGS

GROUP = 8
PROGRAMS = ("forward", "backward", "forward_keep", "backward_kept")
# Gemma 3's norm after the MLP needs all of `down_proj`'s output before a gradient reaches any tile: its recomputing backward
# goes through the tiles twice (test_gemma_goes_through_its_tiles_twice).
IN_TURN = [(name, program) for name in ARCHITECTURES for program in PROGRAMS if (name, program) != ("gemma3", "backward")]


class Nodes:
    """A model's nodes by what they give, and all that a node needs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.producer = {name: index for index, node in enumerate(self.nodes) for name in node.output}
        self.users = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.users[name].append(index)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def ancestors(self, index: int) -> set[int]:
        found: set[int] = set()
        pending = [index]
        while pending:
            for name in self.nodes[pending.pop()].input:
                source = self.producer.get(name)
                if source is not None and source not in found:
                    found.add(source)
                    pending.append(source)
        return found


@dataclass(frozen=True)
class Cut:
    """A `Slice` of packed weights or scales, and the name of the node that makes floats of it."""

    projection: str
    tile: int
    index: int
    decompression: str


def cuts(nodes: Nodes) -> list[Cut]:
    """Of the MLP's weights. A tile's number is that of its end, which is a constant also where the start is computed."""
    found = []
    for index, node in enumerate(nodes.nodes):
        projection, is_weight, _ = node.input[0].partition(".weight.")
        if node.op_type == "Slice" and is_weight:
            (end,) = nodes.constants[node.input[2]]
            size = TILE // GROUP if projection == "mlp.down_proj" else TILE
            end = end - 80 if projection == "mlp.gate_up_proj" and end > 80 else end  # up's rows stand behind gate's
            while node.op_type != "DequantizeLinear":  # all ways lead there
                node = nodes.nodes[nodes.users[node.output[0]][0]]
            found.append(Cut(projection, -(-int(end) // size) - 1, index, node.name))
    return found


def float_tile(nodes: Nodes, cut: Cut) -> tuple[int, int, list[int]]:
    """The node that decompresses a tile, the one that gives it its shape, and those that read it."""
    (decompression,) = (index for index, node in enumerate(nodes.nodes) if node.name == cut.decompression)
    (shaped,) = nodes.users[nodes.nodes[decompression].output[0]]
    return decompression, shaped, nodes.users[nodes.nodes[shaped].output[0]]


# Structure


@pytest.mark.parametrize(("name", "program"), IN_TURN)
def test_every_cut_waits_for_the_tile_before(graphs: MakeGraphs, tmp_path: Path, name: str, program: str) -> None:
    """For each tile but the first, upwards or downwards: packed weights and scales of gate, up and down are cut out only once all products
    with the tile before are there. The file is in topological order, so there is no cycle."""
    model = write(getattr(graphs(name, tile=TILE), program), tmp_path / "block.onnx")
    onnx.checker.check_model(model)
    nodes = Nodes(model)
    assert all(source < index for index in range(len(nodes.nodes)) for source in nodes.ancestors(index))
    tiles = defaultdict(list)
    for cut in cuts(nodes):
        tiles[cut.tile].append(cut)
    assert {tile: len(found) for tile, found in tiles.items()} == dict.fromkeys(range(TILES), 6)
    order = range(TILES) if program.startswith("forward") else reversed(range(TILES))
    for before, tile in pairwise(order):
        needed = {product for cut in tiles[before] for product in float_tile(nodes, cut)[2]}
        assert len(needed) >= 3 and all(nodes.nodes[product].op_type == "Gemm" for product in needed)
        for cut in tiles[tile]:
            assert needed <= nodes.ancestors(cut.index)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_matrices_wait_for_nothing(graphs: MakeGraphs, tmp_path: Path, name: str) -> None:
    """Without tiles there is nothing to order, and no node is added for it."""
    nodes = Nodes(write(graphs(name).backward, tmp_path / "block.onnx"))
    assert cuts(nodes) == []
    assert not [node for node in nodes.nodes if node.op_type == "Cast" and "scale" not in node.input[0]]


# Numbers


def all_feeds(tiny: MakeTiny, blocks: KindGraphs, name: str) -> dict[str, Tensor]:
    model = tiny(name)
    feeds = layer_feeds(model, 1, packed_batch(), model.adapter()) | random_hidden(model)
    return feeds | dict(zip(blocks.kept, run(blocks.forward_keep, feeds)[1:], strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ordered_programs_give_the_untiled_results(tiny: MakeTiny, graphs: MakeGraphs, tmp_path: Path, name: str) -> None:
    tiled, whole = graphs(name, tile=TILE), graphs(name)
    feeds, tolerance = (
        all_feeds(tiny, tiled, name),
        2e-5 if name == "gemma3" else 5e-6,
    )  # as in test_lowering.py and test_tiles.py
    for program, same in (("forward", "forward"), ("backward", "backward"), ("forward_keep", "forward"), ("backward_kept", "backward")):
        write(getattr(tiled, program), tmp_path / "block.onnx")
        expected = run(getattr(whole, same), feeds)
        for found, want in zip(run_file(tmp_path / "block.onnx", feeds), expected):
            np.testing.assert_allclose(found, want.numpy(), rtol=0, atol=tolerance * float(want.abs().max()))


# Effect


def weights_at_once(captured: CapturedGraph, feeds: Mapping[str, Tensor], directory: Path, sweeps: int = 1) -> dict[str, int]:
    """Projection -> how many of its float tiles ONNX Runtime holds at the same time, at most: from its own order of the nodes, in
    the graph as it optimised it, with the bundle's settings. A tile lives from its decompression to the last node that reads it."""
    found = cuts(Nodes(write(captured, directory / "block.onnx")))
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(directory / "profile")
    options.optimized_model_filepath, options.log_severity_level, options.intra_op_num_threads = str(directory / "optimised.onnx"), 3, 1
    for key, entry in SETTINGS.session_config.items():
        options.add_session_config_entry(key, entry)
    session = onnxruntime.InferenceSession(directory / "block.onnx", options, providers=["CPUExecutionProvider"])
    session.run(None, {i.name: feeds[i.name].numpy() for i in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = sorted((e for e in events if e["name"].endswith("_kernel_time")), key=lambda event: event["ts"])
    turns = {event["name"].removesuffix("_kernel_time"): turn for turn, event in enumerate(kernels)}
    nodes = Nodes(onnx.load(directory / "optimised.onnx"))
    turn_of = [turns[node.name] for node in nodes.nodes]
    lives: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for cut in found:
        decompression, shaped, readers = float_tile(nodes, cut)
        ((kind, shape),) = kernels[turn_of[shaped]]["args"]["output_type_shape"][0].items()
        assert kind == "float" and sorted(shape) in ([TILE, 48], [80 % TILE, 48])
        lives[cut.projection].add((turn_of[decompression], max(turn_of[reader] for reader in readers)))
    assert [len(found) for found in lives.values()] == [sweeps * TILES] * 3
    return {projection: most_at_once(found) for projection, found in lives.items()}


def most_at_once(lives: set[tuple[int, int]]) -> int:
    return max(sum(start <= turn <= end for start, end in lives) for turn, _ in lives)


@pytest.mark.parametrize("program", ["forward", "backward", "backward_kept"])
def test_one_tile_of_a_projection_is_held(tiny: MakeTiny, graphs: MakeGraphs, tmp_path: Path, program: str) -> None:
    blocks = graphs("llama", tile=TILE)
    held = weights_at_once(getattr(blocks, program), all_feeds(tiny, blocks, "llama"), tmp_path)
    assert held == {"mlp.gate_proj": 1, "mlp.up_proj": 1, "mlp.down_proj": 1}


@pytest.mark.parametrize(("name", "program"), [("qwen2", "backward"), ("gemma3", "forward"), ("gemma3", "backward_kept")])
def test_one_tile_is_held_in_other_architectures(tiny: MakeTiny, graphs: MakeGraphs, tmp_path: Path, name: str, program: str) -> None:
    blocks = graphs(name, tile=TILE)
    assert set(weights_at_once(getattr(blocks, program), all_feeds(tiny, blocks, name), tmp_path).values()) == {1}


def test_without_the_order_all_tiles_are_held(tiny: MakeTiny, graphs: MakeGraphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail: what ONNX Runtime does of itself."""
    monkeypatch.setattr(lowering, "run_tiles_in_turn", lambda b, captured, values: None)
    blocks = graphs("llama", tile=TILE)
    assert max(weights_at_once(blocks.backward, all_feeds(tiny, blocks, "llama"), tmp_path).values()) > 1


def test_gemma_goes_through_its_tiles_twice(tiny: MakeTiny, graphs: MakeGraphs, tmp_path: Path) -> None:
    """Upwards for the MLP's output, downwards for its gradient; each time a tile is decompressed and let go."""
    blocks = graphs("gemma3", tile=TILE)
    held = weights_at_once(blocks.backward, all_feeds(tiny, blocks, "gemma3"), tmp_path, sweeps=2)
    assert held == {"mlp.gate_proj": 1, "mlp.up_proj": 1, "mlp.down_proj": 1}


def test_most_at_once() -> None:
    assert most_at_once({(0, 2), (3, 5), (6, 6)}) == 1
    assert most_at_once({(0, 3), (3, 5), (1, 6)}) == 3
    assert all(most_at_once(set(pair)) == 1 for pair in combinations([(0, 1), (2, 3), (4, 9)], 2))
