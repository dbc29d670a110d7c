"""An inspection of a real tiny bundle: what it says must follow from the bundle's files, and its tables must fit a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
import torch
from helpers.bundles import RandomBundle
from helpers.calibrations import TIMED
from helpers.checkpoints import write_checkpoint
from helpers.random_bundles import small_random_bundle
from rich.console import Console

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.schedule import ScheduleConfig
from lcsb_mobile.cli.show_inspection import render
from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.export.bundle import ExportOptions, export_bundle
from lcsb_mobile.planning.calibration import Calibration, predicted_seconds
from lcsb_mobile.planning.cost import full_subset, step_cost
from lcsb_mobile.planning.inspection import Inspection, inspect_bundle
from lcsb_mobile.planning.memory import kept_bytes, predicted_peak

torch.set_num_threads(1)
SEQ_LEN, GROUP = 32, 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("inspection")
    model = write_checkpoint(directory / "checkpoint", "llama", tied=True)
    options = ExportOptions(
        str(model),
        directory / "bundle",
        quantization=QuantizationConfig(group_size=GROUP),
        schedule=ScheduleConfig(subsets=3),
        seq_len=SEQ_LEN,
    )
    export_bundle(options)
    return Bundle.open(options.output)


@pytest.fixture(scope="module")
def inspection(bundle: Bundle) -> Inspection:
    return inspect_bundle(bundle)


def test_the_facts_are_the_manifests(bundle: Bundle, inspection: Inspection) -> None:
    manifest = bundle.manifest
    assert (inspection.source, inspection.target, inspection.seq_len) == (manifest.source, "onnxruntime", SEQ_LEN)
    assert (inspection.model.layers, inspection.model.hidden_size, inspection.model.tied) == (3, 48, True)
    assert inspection.model.attention_windows == (None,)
    assert inspection.adapter_parameters == bundle.initial_adapter().size
    assert inspection.quantization == manifest.quantization and inspection.lora == manifest.adapter.lora
    assert inspection.graphs == manifest.graphs and inspection.tools == manifest.tools
    assert len(inspection.reconstruction_error) == 8 and all(0 < error < 0.2 for error in inspection.reconstruction_error.values())
    assert inspection.predicted_peak_bytes == predicted_peak(manifest, manifest.schedule, 0, 0)
    assert len(inspection.keeping) == 4 and inspection.calibration is None  # not asked for


def test_a_target_that_recomputes_every_layer(bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, target="onnxruntime-training")
    inspection = inspect_bundle(Bundle(bundle.path, manifest))
    assert inspection.keeping == ()
    assert inspection.predicted_peak_bytes == predicted_peak(manifest, manifest.schedule, 0, 0)
    assert "keep their activations" not in shown(inspection, 80)


def test_parameters_and_bytes_follow_from_the_packing(bundle: Bundle, inspection: Inspection) -> None:
    """int4 is half a byte, int8 one, and a group of G has a float16 scale: 2 / G. Norms are float32, two a layer."""
    config = bundle.manifest.model
    heads = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    matrices = 3 * config.hidden_size * (heads + 3 * config.intermediate_size)
    norms = 3 * 2 * config.hidden_size
    assert inspection.blocks.parameters == matrices + norms
    assert inspection.blocks.nbytes == matrices * (0.5 + 2 / GROUP) + norms * 4
    assert inspection.embedding_and_head.parameters == config.vocab_size * config.hidden_size  # stored once, as it is tied
    assert inspection.embedding_and_head.bytes_per_parameter == 1 + 2 / GROUP
    assert inspection.blocks.bytes_per_parameter == pytest.approx(inspection.blocks.nbytes / inspection.blocks.parameters)
    assert inspection.blocks.nbytes + inspection.embedding_and_head.nbytes < inspection.file_sizes["weights.bin"]


def test_the_kind_is_described(bundle: Bundle, inspection: Inspection) -> None:
    kind, (found,) = bundle.manifest.kinds[0], inspection.kinds
    assert (found.name, found.layers, found.adapter_parameters, found.flops) == ("block", "0–2", kind.size, kind.flops)
    assert 3 * found.parameters == inspection.blocks.parameters and 3 * found.adapter_parameters == inspection.adapter_parameters
    assert found.decompressed_bytes == kind.decompressed_bytes.backward and found.kept_bytes == kept_bytes(bundle.manifest, "block")
    graphs = bundle.manifest.graphs
    assert found.working_bytes == max(graphs[name].working_bytes or 0 for name in ("block_backward", "block_forward_keep"))


def test_several_kinds_are_described(random_crossing_bundle: RandomBundle) -> None:
    """Of six layers of two kinds, `full` and `shared` in turn."""
    crossing = Bundle.open(random_crossing_bundle.bundle)
    inspection = inspect_bundle(crossing)
    full, shared = inspection.kinds
    assert (full.name, full.layers, shared.name, shared.layers) == ("full", "0, 2, 4", "shared", "1, 3, 5")
    projections = 2 * 24 * 48  # keys and values, which layers of the other kind take
    assert full.parameters - shared.parameters == projections
    assert 3 * (full.parameters + shared.parameters) == inspection.blocks.parameters
    assert 3 * (full.adapter_parameters + shared.adapter_parameters) == inspection.adapter_parameters == crossing.initial_adapter().size
    assert full.flops.forward - shared.flops.forward == 2 * SEQ_LEN * (projections + full.adapter_parameters - shared.adapter_parameters)
    assert full.decompressed_bytes - shared.decompressed_bytes == 4 * projections
    for kind in inspection.kinds:
        assert kind.kept_bytes == kept_bytes(crossing.manifest, kind.name)
    assert msgspec.json.decode(msgspec.json.encode(inspection), type=Inspection) == inspection
    text = " ".join(shown(inspection, 100).split())
    for name, error in inspection.reconstruction_error.items():  # one matrix of each kind has the same name within its layer
        parts = name.removesuffix(".weight").split(".")
        matrix = f"{parts[1]} {parts[-1]}" if parts[0] == "layers" else parts[-1]
        assert f"{matrix} {error:.2%}" in text


def test_the_kinds_of_a_target_without_programs_by_layer(bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, target="onnxruntime-training", graphs={})
    (kind,) = inspect_bundle(Bundle(bundle.path, manifest)).kinds
    assert kind.kept_bytes is None and kind.working_bytes is None


def test_the_steps_are_those_of_the_cycle(bundle: Bundle, inspection: Inspection) -> None:
    assert [(step.train, step.propagate) for step in inspection.steps] == [("2", "2"), ("1", "1–2"), ("0", "0–2")]
    assert inspection.cycle_steps == 3
    for step, subset in zip(inspection.steps, bundle.manifest.schedule, strict=True):
        cost = step_cost(bundle.manifest, subset)
        assert (step.flops, step.decompressed_bytes) == (cost.flops, cost.decompressed_bytes)
        assert 0 < step.flops_share == pytest.approx(step.flops / inspection.full.flops)
    shares = [step.time_share for step in inspection.steps]
    assert shares == sorted(shares) and shares[-1] == inspection.full.time_share == inspection.full.flops_share == 1.0
    assert inspection.cycle_mean.flops == pytest.approx(sum(step.flops for step in inspection.steps) / 3)
    assert inspection.cycle_mean.time_share == pytest.approx(sum(shares) / 3)


def test_a_repeated_subset_is_listed_once_and_weighs_as_often_as_it_comes(bundle: Bundle) -> None:
    top, middle, _ = bundle.manifest.schedule
    repeated = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, schedule=(top, middle, top, top)))
    inspection = inspect_bundle(repeated)
    assert [step.train for step in inspection.steps] == ["2", "1"] and inspection.cycle_steps == 4
    assert inspection.cycle_mean.flops == pytest.approx((3 * inspection.steps[0].flops + inspection.steps[1].flops) / 4)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of target onnxruntime, which can keep activations."""
    return Bundle.open(small_random_bundle(tmp_path_factory))


def test_keeping_is_shown_for_none_a_quarter_half_and_all(programs: Bundle) -> None:
    manifest, inspection = programs.manifest, inspect_bundle(programs)
    assert [summary.keep for summary in inspection.keeping] == [0, 1, 2, 3]
    for summary in inspection.keeping:
        assert summary.predicted_peak_bytes == predicted_peak(manifest, manifest.schedule, summary.keep, 0)
        flops = sum(step_cost(manifest, subset, keep=summary.keep).flops for subset in manifest.schedule) / len(manifest.schedule)
        assert summary.flops_share == pytest.approx(flops / inspection.full.flops) and summary.seconds is None
    shares = [summary.flops_share for summary in inspection.keeping]
    assert shares == sorted(shares, reverse=True) and shares[0] == pytest.approx(inspection.cycle_mean.flops_share)
    assert inspection.keeping[0].time_share == pytest.approx(inspection.cycle_mean.time_share)
    for step, subset in zip(inspection.steps, manifest.schedule, strict=True):
        assert step.predicted_peak_bytes == predicted_peak(manifest, [subset], 0, 0)


def test_a_calibration_adds_seconds(programs: Bundle) -> None:
    made_up = Calibration(dict.fromkeys(TIMED, 0.25))
    inspection = inspect_bundle(programs, made_up)
    assert inspection.full.seconds == predicted_seconds(programs.manifest, made_up, full_subset(programs.manifest))
    assert inspection.cycle_mean.seconds == pytest.approx(sum(step.seconds or 0 for step in inspection.steps) / len(inspection.steps))
    assert inspection.keeping[0].seconds == pytest.approx(inspection.cycle_mean.seconds)
    assert f"{inspection.full.seconds:.3g}" in shown(inspection, 100)


def test_every_file_is_listed_with_its_size(bundle: Bundle, inspection: Inspection) -> None:
    files = [file for file in bundle.path.rglob("*") if file.is_file()]
    assert inspection.file_sizes == {file.relative_to(bundle.path).as_posix(): file.stat().st_size for file in files}


def test_it_is_json_and_back(inspection: Inspection) -> None:
    assert msgspec.json.decode(msgspec.json.encode(inspection), type=Inspection) == inspection


def shown(inspection: Inspection, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(inspection))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace(str(Path(inspection.path)), "")  # nothing is cut off
    return text


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_fit_the_terminal(inspection: Inspection, programs: Bundle, width: int) -> None:
    text = shown(inspection, width)
    for part in ("weights.bin", "block_backward", "step 3", "labels int64[32]", "lcsb-exact", "1–2", "100%"):
        assert part in text, part
    calibrated = inspect_bundle(programs, Calibration(dict.fromkeys(TIMED, 0.25)))
    assert "keep their activations" in shown(calibrated, width)
