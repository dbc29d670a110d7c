"""`lcsb export --quantizer gptq`: whole bundles on both targets, what they say of themselves, and every bad input as one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error, lcsb_json, left_behind

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.bundle.export_options import ExportOptions
from lcsb_mobile.bundle.weights import WEIGHTS_FILE
from lcsb_mobile.config import QuantizationConfig
from lcsb_mobile.errors import OptionError
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.io.files import sha256

GPTQ = (*EXPORT, "--quantizer", "gptq")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (path := tmp_path / "text.txt").write_text("the train was late again, and it had started to rain. " * 60)
    return path


def test_with_a_text_of_ones_own(random_bundle: RandomBundle, tmp_path: Path, text: Path) -> None:
    """The golden trace holds on the target's runtime; the weights differ from the search's, and nothing else of the format does."""
    options = (*GPTQ, "--calibration", text)
    summary = lcsb_json("export", random_bundle.checkpoint, *options, "--output", tmp_path / "out")
    found, searched = (Bundle.open(path).manifest for path in (tmp_path / "out", random_bundle.bundle))
    assert (summary["quantizer"], summary["calibration"]) == ("gptq", found.quantization.calibration)
    assert found.quantization == QuantizationConfig(group_size=8, quantizer="gptq", calibration=summary["calibration"])
    assert re.fullmatch(rf"text.txt, \d+ of \d+ tokens, sha256 {sha256(text)[:16]}", summary["calibration"])
    lcsb("verify", tmp_path / "out")
    assert found.weights == searched.weights
    assert found.files[WEIGHTS_FILE].size == searched.files[WEIGHTS_FILE].size
    assert found.files[WEIGHTS_FILE].sha256 != searched.files[WEIGHTS_FILE].sha256


def test_for_onnxruntime_with_the_toolkits_text(random_bundle: RandomBundle, tmp_path: Path) -> None:
    output = lcsb("export", random_bundle.checkpoint, *GPTQ, "--target", "onnxruntime", "--output", tmp_path / "out")
    assert "gptq      keeps their outputs rather than the weights, on the toolkit's own text, 8192 of " in output
    lcsb("verify", tmp_path / "out")


def test_the_search_records_no_text(random_bundle: RandomBundle) -> None:
    assert Bundle.open(random_bundle.bundle).manifest.quantization == QuantizationConfig(group_size=8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--calibration", "absent.txt"), "absent.txt: No such file or directory"),
        (("--calibration", "short.txt"), "short.txt: calibration needs at least 1024 tokens, found 5; use a longer text"),
        (("--bits", 8), "quantizer: gptq rounds to 4 bits, found 8"),
        (("--group-size", 7), "group size 7 does not divide"),
        (
            ("--quantizer", "search", "--calibration", "short.txt"),
            "calibration: short.txt would not be read; give --quantizer gptq with it",
        ),
    ],
)
def test_bad_input(
    random_bundle: RandomBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[Any, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("short")
    assert expected in lcsb_error(2, "export", random_bundle.checkpoint, "--output", "out", *GPTQ, *options)
    assert left_behind(tmp_path, "out") == []


def test_a_quantizer_that_there_is_not(tmp_path: Path) -> None:
    options = ExportOptions("tiny", tmp_path / "out", quantization=QuantizationConfig(quantizer="awq"))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="quantizer: expected search or gptq, found 'awq'"):
        export_bundle(options)
