"""Which quantizer a model gets, and the two losses that say what it cost, computed again in other ways."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from helpers.bundles import EXPORT, RandomBundle, lcsb_json
from helpers.checkpoints import write_checkpoint
from helpers.tiny_models import HYBRIDS, MODELS
from torch import Tensor
from torch.nn import functional

import lcsb_mobile.cli.quickstart as quickstart_module
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.cli.export import ExportSummary, show
from lcsb_mobile.cli.quickstart import QuickstartOptions, quickstart
from lcsb_mobile.config import QuantizationConfig, Quantizer
from lcsb_mobile.errors import DataError, OptionError
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint, open_checkpoint
from lcsb_mobile.export.merge import BundleWeights
from lcsb_mobile.export.reference import text_loss
from lcsb_mobile.export.reference.float_model import Read, model_logits
from lcsb_mobile.export.reference.text_loss import float_loss, text_batch
from lcsb_mobile.export.rounding import check_quantizer, plan_rounding, suiting_quantizer
from lcsb_mobile.export.weights.calibrate import read_calibration
from lcsb_mobile.text.tokenizer import Tokenizer
from lcsb_mobile.tiny import tiny_checkpoint


def opened(path: Path) -> tuple[Checkpoint, Tokenizer]:
    checkpoint = open_checkpoint(path)
    return checkpoint, Tokenizer.open(path, checkpoint.config.vocab_size)


# The rule


@pytest.mark.parametrize(
    ("bits", "calibration", "loss_over_guessing", "expected"),
    [
        (4, None, 0.32, "gptq"),  # SmolLM2
        (4, None, 0.89, "gptq"),
        (4, None, 0.91, "search"),
        (4, None, 1.08, "search"),  # random weights
        (4, None, math.nan, "search"),
        (4, None, None, "search"),  # no text
        (4, Path("own.txt"), 1.08, "gptq"),
        (8, None, 0.32, "search"),
    ],
)
def test_the_rule(bits: int, calibration: Path | None, loss_over_guessing: float | None, expected: Quantizer) -> None:
    config = open_checkpoint(tiny_checkpoint()).config
    loss = None if loss_over_guessing is None else loss_over_guessing * math.log(config.vocab_size)
    assert suiting_quantizer(config, bits, calibration, loss) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "gptq"),
        ({"quantizer": "search"}, "search"),
        ({"quantization": QuantizationConfig(8)}, "search"),
        ({"quantization": QuantizationConfig(group_size=16)}, "gptq"),
    ],
)
def test_a_trained_model_gets_gptq(tmp_path: Path, options: dict[str, Any], expected: Quantizer) -> None:
    plan = plan_rounding(*opened(tiny_checkpoint()), ExportOptions("tiny", tmp_path, **options))
    assert plan.quantization.quantizer == expected
    assert (plan.calibration is not None) == (plan.quantization.calibration is not None) == (expected == "gptq")
    assert plan.exact_loss is not None and plan.exact_loss < 2.5  # 256 bytes and some: 5.6 by guessing


@pytest.mark.parametrize("name", [*(name for name in MODELS if not name.endswith("-untied")), *HYBRIDS])
def test_random_weights_get_the_search_unless_asked(name: str, tmp_path: Path) -> None:
    model_type, tied, overrides = (MODELS | HYBRIDS)[name]
    model = opened(write_checkpoint(tmp_path / "checkpoint", model_type, tied=tied, **overrides))
    text = tmp_path / "text.txt"
    text.write_text("the train was late again, and it had started to rain. " * 60)
    own: dict[str, Any] = {"model": "", "output": tmp_path, "seq_len": 32}
    assert plan_rounding(*model, ExportOptions(**own)).quantization.quantizer == "search"
    asked: list[dict[str, Any]] = [{"quantizer": "gptq"}, {"quantization": QuantizationConfig(quantizer="gptq")}, {"calibration": text}]
    assert all(plan_rounding(*model, ExportOptions(**own, **options)).quantization.quantizer == "gptq" for options in asked)


def test_a_text_of_too_few_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the toolkit's own may be in an odd tokenizer: then there is neither a loss nor gptq, unless that was asked for."""
    (short := tmp_path / "own.jsonl").write_text('{"text": "short"}\n')
    monkeypatch.setattr("lcsb_mobile.export.weights.calibrate.OWN_TEXT", str(short))
    plan = plan_rounding(*opened(tiny_checkpoint()), ExportOptions("tiny", tmp_path))
    assert (plan.quantization.quantizer, plan.measured, plan.exact_loss) == ("search", None, None)
    for options in ({"quantizer": "gptq"}, {"calibration": short}):
        with pytest.raises(DataError, match="at least 1024 tokens"):
            plan_rounding(*opened(tiny_checkpoint()), ExportOptions("tiny", tmp_path, **options))  # type: ignore[arg-type]


def test_a_text_that_would_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"own.txt would not be read at 8 bits; leave it out, or give --bits 4 with it"):
        check_quantizer(ExportOptions("", tmp_path, quantization=QuantizationConfig(8), calibration=Path("own.txt")))


def test_quickstart_takes_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ExportOptions] = []

    def record(options: ExportOptions) -> None:
        asked.append(options)
        raise InterruptedError

    monkeypatch.setattr(quickstart_module, "run_export", record)
    with pytest.raises(InterruptedError):
        quickstart(QuickstartOptions(tmp_path / "quick"))
    assert asked[0].quantizer == "search"


# The losses


def mean_loss(checkpoint: Checkpoint, read: Read, sequences: Tensor) -> float:
    """Sequence by sequence, with all logits."""
    losses = [functional.cross_entropy(model_logits(checkpoint.config, read, ids)[:-1], ids[1:]) for ids in sequences]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize(("sequences", "measured", "held_out"), [(200, 8, True), (69, 5, True), (64, 8, False), (8, 8, False)])
def test_what_is_left_of_the_text_is_measured(tmp_path: Path, sequences: int, measured: int, held_out: bool) -> None:
    (path := tmp_path / "text.txt").write_text("".join(f"{number:06}. " for number in range(16 * sequences)))  # each sequence another
    found = read_calibration(path, Tokenizer.open(tiny_checkpoint(), 259))
    rounded_against, others = ({tuple(row) for row in rows.tolist()} for rows in (found.tokens, found.measured))
    assert (len(rounded_against), len(others), found.held_out) == (min(sequences, 64), measured, held_out)
    assert rounded_against.isdisjoint(others) if held_out else others <= rounded_against


@pytest.mark.parametrize("name", [*MODELS, *HYBRIDS])
def test_the_float_loss(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of packed sequences, with embedding, head and logits in parts, none of which is read whole."""
    model_type, tied, overrides = (MODELS | HYBRIDS)[name]
    checkpoint, _ = opened(write_checkpoint(tmp_path / "checkpoint", model_type, tied=tied, **overrides))
    tokens = torch.randint(4, checkpoint.config.vocab_size, (3, 32), generator=torch.Generator().manual_seed(0))
    expected = mean_loss(checkpoint, checkpoint.read, tokens)
    monkeypatch.setattr(text_loss, "LOGITS_AT_ONCE", 93 * 50)  # 50 rows of the head
    monkeypatch.setattr("lcsb_mobile.export.weights.calibrate.ROWS_AT_ONCE", 40)
    read, rows = type(checkpoint).read, type(checkpoint).read_rows
    parts: list[int] = []

    def vectors_and_blocks(self: Checkpoint, tensor: str) -> Tensor:
        assert "embed_tokens" not in tensor and "lm_head" not in tensor
        return read(self, tensor)

    def some_rows(self: Checkpoint, tensor: str, start: int, stop: int) -> Tensor:
        parts.append(stop - start)
        return rows(self, tensor, start, stop)

    monkeypatch.setattr(type(checkpoint), "read", vectors_and_blocks)
    monkeypatch.setattr(type(checkpoint), "read_rows", some_rows)
    assert float_loss(checkpoint, text_batch(tokens)) == pytest.approx(expected, rel=2e-6)  # float32 through up to four layers
    assert max(parts) == 50


@pytest.mark.parametrize("quantizer", ["search", "gptq"])
def test_both_losses_are_those_of_the_two_models(
    random_bundle: RandomBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], quantizer: str
) -> None:
    """In the JSON and on the console, on sequences of the bundle's length; the stored loss out of the bundle's files."""
    summary = lcsb_json("export", random_bundle.checkpoint, *EXPORT, "--quantizer", quantizer, "--output", tmp_path / "out")
    losses = summary["losses"]
    checkpoint, tokenizer = opened(random_bundle.checkpoint)
    sequences = read_calibration(None, tokenizer).measured[:, :32]
    stored = BundleWeights(Bundle.open(tmp_path / "out"), checkpoint)

    def read(name: str) -> Tensor:
        exact = checkpoint.read(name)
        return exact if exact.dim() < 2 else stored.read_rows(name, 0, len(exact))

    found, expected = (mean_loss(checkpoint, reader, sequences) for reader in (checkpoint.read, read))
    # float32 through three layers, in another order
    assert (losses["exact"], losses["stored"]) == (pytest.approx(found, rel=1e-5), pytest.approx(expected, rel=1e-5))
    assert losses["tokens"] == 8 * 31 and abs(losses["stored"] - losses["exact"]) > 1e-3
    show(msgspec.convert(summary, ExportSummary))
    difference = f"{losses['stored'] - losses['exact']:+.3f} by {quantizer}"
    line = f"  loss      {losses['exact']:.3f} in float, {losses['stored']:.3f} as stored ({difference}), on 248 tokens "
    assert line + "that it was not rounded against\n" in capsys.readouterr().out
