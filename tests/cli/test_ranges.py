"""Every number of every verb is held to its range before any work: the paths here do not exist, and are not reached."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest
from helpers.bundles import EXPORT, RandomBundle, lcsb, lcsb_error
from helpers.checkpoints import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from lcsb_mobile.bundle import checks
from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.cli import VERBS
from lcsb_mobile.config import AdamWConfig
from lcsb_mobile.errors import OptionError
from lcsb_mobile.planning.plan import parse_size
from lcsb_mobile.ranges import MOST_INTEGER, NO_CLIPPING, RANGES, Range, check_ranges, range_of

# What a verb must be given, of which nothing exists.
ABSENT = {
    "quickstart": ("--model", "/absent/model", "--output", "/absent/quick"),
    "export": ("/absent/model", "--output", "/absent/bundle"),
    "inspect": ("/absent/bundle", "--calibrate"),
    "verify": ("/absent/bundle",),
    "data": ("/absent/data", "--bundle", "/absent/bundle"),
    "simulate": ("/absent/bundle", "--data", "/absent/data", "--steps", "1"),
    "compare": ("/absent/bundle", "--after", "/absent/adapter", "--data", "/absent/data"),
    "generate": ("/absent/bundle", "--prompt", "x"),
    "web": ("/absent/bundle", "--site", "/absent/site"),
    "bench": ("/absent/bundle",),
}
# Options that others must go with, which is said before a path is read.
OF_OTHERS = ("accuracy-level", "seq-len", "rank", "layers")
# The manifest's field of an option of `export`.
FIELDS = {
    "rank": "lora.rank",
    "alpha": "lora.alpha",
    "subsets": "schedule_config.subsets",
    "group-size": "quantization.group_size",
    "weight-decay": "optimizer.weight_decay",
    "clip-norm": "optimizer.clip_norm",
    "seed": "seed",
    "seq-len": "seq_len",
}


def numbers(verb: str) -> Iterator[tuple[str, type]]:
    """The verb's options that are numbers, and of which type; those of its own verbs too."""
    for command in vars(importlib.import_module(f"lcsb_mobile.cli.{verb}")).values():
        for name, parameter in inspect.signature(command).parameters.items() if hasattr(command, "__signature__") else ():
            types = [get_args(parameter.annotation)[0]] if get_origin(parameter.annotation) is Annotated else []
            found = [number for each in types for number in (int, float) if number in (each, *get_args(each))]
            yield from ((name.replace("_", "-"), number) for number in found)


OPTIONS = [(verb, option, number) for verb in VERBS for option, number in numbers(verb)]


def test_every_number_has_its_range() -> None:
    assert {option for _, option, _ in OPTIONS} | {"memory-budget"} == {name.rpartition(" ")[2] for name in RANGES}
    assert {verb for verb, _, _ in OPTIONS} == set(ABSENT)


def beyond(allowed: Range, number: type) -> Iterator[float]:
    steps = (1, 10, 2**40) if number is int else (1e-6, 1, 1e9)
    if allowed.values:
        yield from (value for value in range(-1, 20) if value not in allowed.values)
        return
    yield from (-step for step in steps)
    yield from (allowed.most + step for step in steps if allowed.most + step > allowed.most)
    yield from () if number is int else (math.nan, math.inf, -math.inf, allowed.most * 1.001)
    yield from (allowed.least,) if allowed.above else ()
    yield from (allowed.most,) if allowed.below else ()


def within(allowed: Range, number: type) -> st.SearchStrategy[float]:
    if allowed.values:
        return st.sampled_from(allowed.values)
    if number is int:
        return st.integers(int(allowed.least), int(allowed.most))
    values = st.floats(allowed.least, allowed.most, exclude_min=allowed.above, exclude_max=allowed.below)
    return st.just(0.0) | values if allowed.off else values


@st.composite
def drawn(draw: st.DrawFn) -> tuple[str, str, float, bool]:
    verb, option, number = draw(st.sampled_from(OPTIONS))
    allowed = range_of(option, verb)
    good = draw(st.booleans())
    return verb, option, number(draw(within(allowed, number) if good else st.sampled_from(list(beyond(allowed, number))))), good


@settings(max_examples=150, deadline=None)
@given(drawn())
def test_what_is_outside_is_refused_before_any_work(case: tuple[str, str, float, bool]) -> None:
    """What is within is not spoken of: the first thing that is wrong is then a path that is not there."""
    verb, option, value, good = case
    line = lcsb_error(2, verb, *ABSENT[verb], f"--{option}={value}")
    assert line.startswith(f"error: {option}: expected ") != good, line
    assert not good or "absent" in line or option in OF_OTHERS, line


def test_all_that_is_wrong_is_said_at_once() -> None:
    line = lcsb_error(2, "export", *ABSENT["export"], "--clip-norm", "-1", "--alpha", "nan", "--bits", 5, "--seed", -1)
    assert re.fullmatch(
        r"error: alpha: expected at least 1e-09 and at most 1000000000, found nan; bits: expected 4 or 8, found 5; "
        r"clip-norm: expected 0, which is none, or at least 1e-30, found -1\.0; seed: expected 0 or more, found -1",
        line,
    )


def test_python_is_told_the_same() -> None:
    with pytest.raises(OptionError, match="top-p: expected more than 0 and at most 1, found 2"):
        check_ranges({"top-p": 2, "threads": None})


def test_the_table_is_the_manifests() -> None:
    """So that nothing is exported that no verb will open."""
    ranges = {field: (least, most) for field, least, most in checks.RANGES}
    for option, field in FIELDS.items():
        least, most = ranges[field]
        assert least <= RANGES[option].least and RANGES[option].most <= most, option
    assert RANGES["seed"].most == MOST_INTEGER == checks.MOST_INTEGER


def test_a_length_that_no_verb_would_open_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after minutes, by the verb that opens the bundle: of a model whose layers are wide, a buffer bounds the length."""
    checkpoint = write_checkpoint(tmp_path / "wide", "llama", tied=True, intermediate_size=32784)
    monkeypatch.setattr("lcsb_mobile.export.bundle.write_weights", lambda *_: pytest.fail("the weights were read"))
    line = lcsb_error(2, "export", checkpoint, "--output", tmp_path / "b", *EXPORT, "--seq-len", 8192)
    assert "seq-len: expected at most 8188, as activations of this model are 32784 wide, found 8192" in line
    assert not (tmp_path / "b").exists()


def test_no_clipping(random_bundle: RandomBundle, tmp_path: Path) -> None:
    """0 is none, as it is to transformers' `max_grad_norm`; in the manifest a norm that no gradient reaches, which every reader takes."""
    lcsb("export", random_bundle.checkpoint, "--output", tmp_path / "b", *EXPORT, "--clip-norm", 0, "--weight-decay", 0)
    manifest = Bundle.open(tmp_path / "b").manifest
    assert (manifest.optimizer.clip_norm, manifest.optimizer.weight_decay) == (NO_CLIPPING, 0)
    assert AdamWConfig().clip_norm == 1


@pytest.mark.parametrize("size", ["0", "0.2", "9" * 400, "9" * 400 + "GB", "10000000GB"])
def test_a_budget_that_is_no_size(size: str) -> None:
    with pytest.raises(OptionError, match="expected a size"):
        parse_size(size)


def test_the_table_of_the_documentation() -> None:
    def bound(value: float, strict: str | None) -> str:
        return f"{strict} {value:.16g}" if strict else f"{value:.16g}"

    def note(allowed: Range) -> str:
        return " or ".join(map(str, allowed.values)) or ("0: none" if allowed.off else "")

    def option(name: str) -> str:
        return f"lcsb {name.replace(' ', ' --')}" if " " in name else f"--{name}"

    rows = [
        f"| `{option(name)}` | {bound(each.least, 'more than' if each.above else None)} "
        f"| {bound(each.most, 'less than' if each.below else None)} | {note(each)} |".replace("|  |", "| |")
        for name, each in RANGES.items()
    ]
    page = (Path(__file__).parents[2] / "docs" / "promises.md").read_text("utf-8")
    assert "\n".join(rows) in page
