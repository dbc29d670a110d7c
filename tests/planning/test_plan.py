"""What a run occupies and keeps: exact buffers, the choice that a budget allows, and the refusals. Nothing is measured here
(benchmarks/memory_model.py does)."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from helpers.bundles import RandomBundle
from helpers.manifests import HALF_BILLION, SMALL, deepened, kinds_of, layers_of, make_manifest
from helpers.random_bundles import small_random_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.manifest import Manifest
from lcsb_mobile.bundle.schedule import Subset
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import MemoryBudgetError, OptionError
from lcsb_mobile.export.models import model_of
from lcsb_mobile.export.weights.compress import weight_table
from lcsb_mobile.planning.cost import full_subset
from lcsb_mobile.planning.memory import SESSION_SHARE, kept_bytes, peak_terms, predicted_peak, run_terms, training_peak_terms
from lcsb_mobile.planning.plan import ALL, parse_keep, parse_size, plan_run

BASE = 30_000_000
LAYERS = 12
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Of an exported bundle, but deeper: its programs are those of any depth."""
    return deepened(Bundle.open(small_random_bundle(tmp_path_factory)).manifest, LAYERS)


def subset(*train: int, propagate: tuple[int, ...] = ()) -> Subset:
    return Subset(train=train, propagate=tuple(sorted({*train, *propagate})))


TOP, BOTTOM = subset(10, 11), subset(0, 1, propagate=tuple(range(LAYERS)))


def test_every_program_but_those_with_a_loop_has_a_working_set(manifest: Manifest) -> None:
    working = {name: graph.working_bytes for name, graph in manifest.graphs.items()}
    assert {name for name, count in working.items() if count is None} == {"head", "head_eval", "logits", "gemm", "gemm_backward"}
    assert working["block_forward"] < working["block_forward_keep"] < working["block_backward"]  # type: ignore[operator]
    assert working["block_backward_kept"] < working["block_backward"]  # type: ignore[operator]


def test_a_head_without_a_loop_counts_by_what_it_holds(manifest: Manifest) -> None:
    """As programs for a GPU have it: its session, and its working set instead of what a loop's body is reckoned to hold."""
    known = {name: msgspec.structs.replace(manifest.graphs[name], working_bytes=size) for name, size in (("head", 10**9), ("head_eval", 1))}
    unrolled = msgspec.structs.replace(manifest, graphs={**manifest.graphs, **known})
    before, after = (peak_terms(each, [TOP], 0) for each in (manifest, unrolled))
    files = sum(manifest.files[manifest.graphs[name].file].size for name in known)
    assert after["sessions"] - before["sessions"] == SESSION_SHARE * files
    assert after["working set"] == 10**9
    small = {name: msgspec.structs.replace(graph, working_bytes=graph.working_bytes and 1) for name, graph in unrolled.graphs.items()}
    assert peak_terms(msgspec.structs.replace(unrolled, graphs=small), [TOP], 0)["working set"] == 1


def test_buffers_are_counted_exactly(manifest: Manifest) -> None:
    hidden, n = manifest.seq_len * manifest.model.hidden_size * 4, manifest.kinds[0].size * 4
    outputs = manifest.graphs["block_forward_keep"].outputs[1:]
    kept = sum(np.zeros(x.shape, x.dtype).nbytes for x in outputs)
    assert kept_bytes(manifest, "block") == kept
    for subsets, keep, saved_layers, kept_layers, gradients in (
        ([TOP], 0, 2, 0, 2),
        ([TOP], 1, 2, 1, 2),
        ([subset(0)], ALL, 1, 1, 1),  # of an identity nothing is kept, nor its input saved
        ([TOP, BOTTOM], 3, 12, 3, 2),  # buffers serve one step after the other
        ([subset(11), subset(9, 10)], ALL, 2, 3, 2),  # but what a layer keeps has a place of its own
        ([full_subset(manifest)], ALL, 12, 12, 12),
    ):
        terms = peak_terms(manifest, subsets, keep)
        assert terms["saved layer inputs"] == saved_layers * hidden
        assert terms["kept activations"] == kept_layers * kept
        assert terms["gradients"] == gradients * n
        assert terms["crossing values"] == 0
        assert peak_terms(manifest, subsets, keep, accumulation=2)["gradients"] == 2 * gradients * n
        assert all(count >= 0 for count in terms.values())
        whole = run_terms(manifest, subsets, keep)
        assert predicted_peak(manifest, subsets, keep, BASE) == BASE + sum(whole.values()) and whole.items() > terms.items()


CHOSEN = st.sets(st.integers(0, LAYERS - 1), min_size=1).map(sorted)


@settings(deadline=None)
@given(train=CHOSEN, others=CHOSEN, keep=st.integers(0, LAYERS))
def test_more_is_never_less(manifest: Manifest, train: list[int], others: list[int], keep: int) -> None:
    """More kept layers never hold fewer bytes of activations, nor more in all while some layer still recomputes; an identity never takes
    more than a Jacobian, and no subset more than all layers."""
    chosen = subset(*train, propagate=tuple(others))
    fewer, more = (peak_terms(manifest, [chosen], count) for count in (keep, keep + 1))
    assert fewer["kept activations"] <= more["kept activations"]
    assert fewer["saved layer inputs"] == more["saved layer inputs"] and fewer["gradients"] == more["gradients"]
    if fewer["kept activations"] > 0 and more["sessions"] == fewer["sessions"]:
        assert sum(fewer.values()) <= sum(more.values())
    identity = predicted_peak(manifest, [subset(*train)], keep, BASE)
    assert identity <= predicted_peak(manifest, [chosen], keep, BASE)
    assert predicted_peak(manifest, [chosen], 0, BASE) <= predicted_peak(manifest, [full_subset(manifest)], 0, BASE)


@pytest.mark.parametrize("subsets", [[TOP], [BOTTOM], [TOP, BOTTOM]], ids=["top", "bottom", "both"])
def test_a_budget_is_spent_on_the_most_layers_that_fit(manifest: Manifest, subsets: list[Subset]) -> None:
    peaks = [predicted_peak(manifest, subsets, keep, BASE) for keep in range(LAYERS + 1)]
    for budget in sorted({peak + change for peak in peaks for change in (-1, 0, 1)}):
        fitting = [keep for keep, peak in enumerate(peaks) if peak <= budget]
        if fitting:
            plan = plan_run(manifest, subsets, BASE, budget, None)
            assert (plan.keep, plan.predicted_peak_bytes, plan.least_bytes) == (fitting[-1], peaks[fitting[-1]], min(peaks))
    nothing = plan_run(manifest, subsets, BASE, None, None)
    assert (nothing.keep, nothing.predicted_peak_bytes) == (0, peaks[0])
    assert plan_run(manifest, subsets, BASE, 10**12, None).keep == plan_run(manifest, subsets, BASE, None, ALL).keep == LAYERS
    assert plan_run(manifest, subsets, BASE, max(peaks), 5).predicted_peak_bytes == peaks[5]


@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime-training"])
def test_the_least_runs_and_a_byte_less_is_refused(manifest: Manifest, target: str) -> None:
    one = msgspec.structs.replace(manifest, target=target)
    least = plan_run(one, one.schedule, BASE, None, None).least_bytes
    assert plan_run(one, one.schedule, BASE, least, None).predicted_peak_bytes == least
    with pytest.raises(MemoryBudgetError) as refusal:
        plan_run(one, one.schedule, BASE, least - 1, None)
    message = str(refusal.value)
    assert "\n" not in message and refusal.value.exit_code == 2
    for part in (
        f"predicted to need at least {least / 1e6:,.1f} MB",
        "30.0 MB of it this process",
        "--seq-len",
        "--rank",
        "nothing was run",
    ):
        assert part in message, (part, message)


def test_keeping_more_than_fits_is_refused_and_what_fits_is_said(manifest: Manifest) -> None:
    subsets = [full_subset(manifest)]
    budget = predicted_peak(manifest, subsets, 4, BASE)
    assert plan_run(manifest, subsets, BASE, budget, 4).keep == 4
    fitting = plan_run(manifest, subsets, BASE, budget, None).keep  # all of them: then no program that recomputes is needed
    message = rf"^keeping 5 layers is predicted to take .* keeping {fitting} fits, and the least .*keep that many$"
    with pytest.raises(MemoryBudgetError, match=message):
        plan_run(manifest, subsets, BASE, budget, 5)


def test_only_target_onnxruntime_keeps(manifest: Manifest) -> None:
    training = msgspec.structs.replace(manifest, target="onnxruntime-training")
    assert plan_run(training, training.schedule, BASE, None, 0).keep == plan_run(training, training.schedule, BASE, 10**12, None).keep == 0
    with pytest.raises(OptionError, match=r"keep: target onnxruntime-training recomputes every layer"):
        plan_run(training, training.schedule, BASE, None, 1)
    with pytest.raises(OptionError, match="keep: expected 0 or more layers, found -1"):
        plan_run(manifest, manifest.schedule, BASE, None, -1)


def test_int8_activations_need_a_session_and_packed_weights_a_layer(manifest: Manifest) -> None:
    forward = manifest.graphs["block_forward"]
    constant = tuple(x for x in forward.inputs if x.name.endswith((".packed", ".scale")))
    int8 = msgspec.structs.replace(
        manifest, graphs=manifest.graphs | {"block_forward": msgspec.structs.replace(forward, initializers=constant)}
    )
    more = peak_terms(int8, [TOP], 0)["sessions"] - peak_terms(manifest, [TOP], 0)["sessions"]
    packed = sum(np.zeros(x.shape, x.dtype).nbytes for x in constant)
    assert more > LAYERS * packed


@pytest.mark.parametrize("target", ["onnxruntime", "executorch", "onnxruntime-training"])
def test_every_phase_of_a_run_is_planned(manifest: Manifest, target: str) -> None:
    """At start-up AdamW's program is checked. What writes texts has sessions of its own on target onnxruntime, and remembers keys and
    values of every layer where there is a decoder."""
    one = msgspec.structs.replace(manifest, target=target)
    without, with_texts = (run_terms(one, one.schedule, 0, samples=samples) for samples in (False, True))
    assert without["beside the steps"] == 10 * manifest.kinds[0].size * 4 and without["margin"] >= 8_000_000
    remembered = sum(4 * int(np.prod(x.shape)) for kind in manifest.kinds_of_layers() for x in kind.state)
    sessions = sum(45 * manifest.files[manifest.graphs[f"block_{role}"].file].size for role in ("prefill", "decode"))
    least = 0 if target == "onnxruntime-training" else remembered + (sessions if target == "onnxruntime" else 0)
    assert with_texts["beside the steps"] >= max(least, without["beside the steps"])
    plan = plan_run(one, one.schedule, BASE, None, None, samples=True)
    assert plan.predicted_peak_bytes == BASE + sum(with_texts.values())


def test_the_training_apis_peak_grows_with_tokens_rank_and_depth() -> None:
    large, model = make_manifest(SMALL, seq_len=20), model_of(HALF_BILLION)
    large = msgspec.structs.replace(
        large,
        model=HALF_BILLION,
        seq_len=256,
        kinds=kinds_of(model, LoraConfig(), 256),
        layers=layers_of(model, LoraConfig()),
        quantization=msgspec.structs.replace(large.quantization, group_size=32),
    )
    large = msgspec.structs.replace(large, weights=weight_table(HALF_BILLION, large.quantization, 256))
    shorter = msgspec.structs.replace(large, seq_len=64)
    low = LoraConfig(rank=4)
    lower = msgspec.structs.replace(large, lora=low, kinds=kinds_of(model, low, 256), layers=layers_of(model, low))
    shallower = deepened(large, 12)
    shallower = msgspec.structs.replace(shallower, weights=weight_table(shallower.model, large.quantization, 256))
    assert predicted_peak(large, large.schedule, 0, BASE) > BASE + sum(training_peak_terms(large).values())
    for other in (shorter, lower, shallower):
        assert sum(training_peak_terms(other).values()) < sum(training_peak_terms(large).values())


@pytest.fixture(scope="module")
def crossing(random_crossing_bundle: RandomBundle) -> Manifest:
    """Of six layers of two kinds, `full` and `shared` in turn; layers 0 and 2 give what 1 and 5, and 3 take."""
    return Bundle.open(random_crossing_bundle.bundle).manifest


def test_buffers_of_several_kinds_are_counted_exactly(crossing: Manifest) -> None:
    hidden, value = crossing.seq_len * crossing.model.hidden_size * 4, crossing.seq_len * 2 * 12 * 4
    sizes = {kind.name: kind.size * 4 for kind in crossing.kinds}
    kept = {name: kept_bytes(crossing, name) for name in sizes}
    for name in sizes:
        outputs = [x for x in crossing.graphs[f"{name}_forward_keep"].outputs if x.name.startswith("kept.")]
        assert kept[name] == sum(np.zeros(x.shape, x.dtype).nbytes for x in outputs) > 0
    assert kept["full"] != kept["shared"] and sizes["full"] != sizes["shared"]
    # Two layers give keys and values, of which each has a gradient; what a third gives to nobody is written somewhere all the same.
    crossing_bytes = 2 * (2 * 2 * value) + 2 * 2 * value
    for chosen, keep, saved_layers, kept_layers, gradients in (
        (subset(4, 5), 0, 2, (), ("full", "shared")),
        (subset(4, 5), 1, 2, ("shared",), ("full", "shared")),
        (
            subset(0, propagate=(3,)),
            3,
            2,
            ("shared",),
            ("full", "shared"),
        ),  # what layer 3 returns is not asked for, and written all the same
        (subset(0, 3, propagate=(2, 5)), 0, 4, (), ("full", "shared")),  # those of layers 2 and 5 where 0's and 3's come later
        (subset(0, 3, propagate=(1, 5)), 0, 4, (), ("full", "shared", "shared")),  # layer 1's would come after 3's
        (subset(0, 2), ALL, 2, ("full", "full"), ("full", "full")),
        (full_subset(crossing), 4, 6, ("full", "full", "shared", "shared"), ("full", "shared") * 3),
    ):
        terms = peak_terms(crossing, [chosen], keep)
        assert terms["saved layer inputs"] == saved_layers * hidden
        assert terms["kept activations"] == sum(kept[name] for name in kept_layers)
        assert terms["gradients"] == sum(sizes[name] for name in gradients)
        accumulated = peak_terms(crossing, [chosen], keep, accumulation=2)["gradients"] - terms["gradients"]
        assert accumulated == sum(sizes["full" if layer % 2 == 0 else "shared"] for layer in chosen.train)
        assert terms["crossing values"] == crossing_bytes
        assert run_terms(crossing, [chosen], keep).items() > terms.items()


def test_gradients_of_a_cycle_have_a_pool_for_each_size(crossing: Manifest) -> None:
    sizes = [kind.size * 4 for kind in crossing.kinds]
    pairs = [subset(0, 2), subset(5), subset(3, 4)]
    assert peak_terms(crossing, pairs, 0)["gradients"] == 2 * sizes[0] + sizes[1]
    assert peak_terms(crossing, pairs, 0, accumulation=2)["gradients"] == 4 * sizes[0] + sizes[1]


def test_sessions_are_those_of_the_kinds_that_run(crossing: Manifest) -> None:
    """The forward of every kind; a backward of those alone that go down."""

    def programs(chosen: Subset, keep: int) -> list[str]:
        graphs = {
            name: graph if graph.working_bytes is None else msgspec.structs.replace(graph, working_bytes=0)
            for name, graph in crossing.graphs.items()
        }
        found = []
        for name, graph in graphs.items():
            files = {x.file: msgspec.structs.replace(crossing.files[x.file], size=int(x is graph)) for x in graphs.values()}
            alone = msgspec.structs.replace(crossing, graphs=graphs, files=crossing.files | files)
            if peak_terms(alone, [chosen], keep)["sessions"]:
                found.append(name)
        return sorted(found)

    forward = ["full_forward", "shared_forward"]
    assert programs(subset(5), 0) == [*forward[:1], "shared_backward", *forward[1:]]
    assert programs(subset(4), 0) == ["full_backward", *forward]
    assert programs(subset(0, 5), 1) == ["full_backward", "full_forward", "shared_backward_kept", "shared_forward", "shared_forward_keep"]
    assert programs(subset(0, 5), 0) == ["full_backward", "full_forward", "shared_backward", "shared_forward"]


@pytest.mark.parametrize(("text", "expected"), [("none", 0), ("all", ALL), ("0", 0), ("7", 7), ("400", 400)])
def test_what_to_keep_is_read(text: str, expected: int) -> None:
    assert parse_keep(text) == expected


@pytest.mark.parametrize("text", ["", "some", "-1", "1.5", "1e3", "ALL", "７", "12345678", "3 layers"])
def test_what_says_not_what_to_keep_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="keep: expected none, all or a number of layers, found"):
        parse_keep(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512MB", 512_000_000),
        ("512MiB", 512 * MIB),
        ("2GB", 2_000_000_000),
        ("1GiB", 1024 * MIB),
        ("64kB", 64_000),
        ("64KiB", 65_536),
        ("1.5GB", 1_500_000_000),
        (" 512 mb ", 512_000_000),
        ("123456", 123_456),
        ("100B", 100),
    ],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "512XB", "-1MB", "0", "0MB", "1e3MB", "512MBs", "1.2.3GB", "nan", "inf", "5 0MB", "0.4"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="expected a size such as 512MB"):
        parse_size(text)
