"""Checkpoints from anywhere: what a `config.json` may say, and a bundle whose weights are another architecture's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.bundles import RandomBundle, one_error
from helpers.checkpoints import write_checkpoint

from lcsb_mobile.bundle.directory import Bundle
from lcsb_mobile.cli.console import print_error
from lcsb_mobile.errors import BundleError, CheckpointError, TokenizerError
from lcsb_mobile.export.checkpoints.hugging_face import copy_tokenizer, open_checkpoint
from lcsb_mobile.runners import make_runner


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"\ud800": 1}, "not readable as JSON"),
        ({"bos_token": "\udfff"}, "not readable as JSON"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": 2, "head_dim": None}, "head_dim"),
    ],
)
def test_configurations(checkpoint: Path, changes: dict[str, Any], expected: str) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize("scalar", [0, -1])
def test_a_scale_of_queries_that_is_none(tmp_path: Path, scalar: int) -> None:
    path = write_checkpoint(tmp_path / "gemma", "gemma3_text", tied=True) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"query_pre_attn_scalar": scalar}))
    with pytest.raises(CheckpointError, match="query_pre_attn_scalar"):
        open_checkpoint(path.parent)


def test_a_template_that_is_no_text(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja: not UTF-8"):
        copy_tokenizer(checkpoint, tmp_path / "tokenizer")


def test_weights_of_another_architecture(random_bundle: RandomBundle) -> None:
    """The eager runner goes by the architecture's own list."""
    opened = Bundle.open(random_bundle.bundle)
    other = msgspec.structs.replace(opened.manifest, weights=opened.manifest.weights[:-1])
    with pytest.raises(BundleError, match="its layers are not those of a llama"):
        make_runner(Bundle(opened.path, other), "eager")


def test_layers_of_another_architecture(random_bundle: RandomBundle) -> None:
    """What each is, what it reads, and its adapter: that too is the architecture's, whatever the manifest says."""
    opened = Bundle.open(random_bundle.bundle)
    manifest = opened.manifest
    (kind,), (first, *rest) = manifest.kinds, manifest.layers
    renamed = msgspec.structs.replace(kind, matrices=(msgspec.structs.replace(kind.matrices[0], name="x.lora_A"), *kind.matrices[1:]))
    for change in (
        {"layers": (msgspec.structs.replace(first, reads=first.reads | {"sin": first.reads["cos"]}), *rest)},
        {"layers": (msgspec.structs.replace(first, kind="other"), *rest)},
        {"layers": (msgspec.structs.replace(first, gives={"keys": "keys"}), *rest)},
        {"kinds": (renamed,)},
    ):
        other = msgspec.structs.replace(manifest, **change)
        with pytest.raises(BundleError, match="its layers are not those of a llama"):
            make_runner(Bundle(opened.path, other), "eager")


def test_errors_do_not_change_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("error", "a\x1b[2Jb\nc\u202ed")
    assert one_error("", capsys.readouterr().err) == r"error: a\x1b[2Jb c\u202ed"
