"""The made-up architecture whose values cross layers as a checkpoint and as a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import save_file

from helpers import crossing_model
from helpers.bundles import RandomBundle, small_export
from helpers.checkpoints import write_tokenizer
from lcsb_mobile.export.bundle import export_bundle
from lcsb_mobile.export.models import ARCHITECTURES, checkpoint_weights
from lcsb_mobile.targets import Target


def export_crossing(directory: Path, target: Target = "onnxruntime", **sizes: int) -> RandomBundle:
    """`sizes`: instead of the architecture's own."""
    checkpoint, raw = directory / "checkpoint", crossing_model.RAW | sizes
    with known_architecture():
        shapes = checkpoint_weights(crossing_model.read_config(raw))
        read = crossing_model.random_tensors(shapes)
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.json").write_text(json.dumps(raw))
        save_file({name: read(name) for name in shapes}, checkpoint / "model.safetensors")
        write_tokenizer(checkpoint)
        export_bundle(small_export(model=str(checkpoint), output=directory / "bundle", target=target))
    return RandomBundle.within(directory)


@contextmanager
def known_architecture() -> Iterator[None]:
    """Within it the architecture is one of those that can be exported, and that the eager reference knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, crossing_model.MODEL_TYPE, crossing_model)
        yield
