"""Reading a GGUF file: its model in Hugging Face's names, one tensor at a time. Nothing beside the file is read."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lcsb_mobile.config import ModelConfig
from lcsb_mobile.errors import CheckpointError, MissingDependencyError, TokenizerError, UnsupportedModelError
from lcsb_mobile.export.models import checkpoint_weights
from lcsb_mobile.installing import how_to_install
from lcsb_mobile.io.bounded import one_line, some

if TYPE_CHECKING:  # these import the package gguf, which need not be installed
    from lcsb_mobile.export.checkpoints.gguf_file import GgufFile, GgufTensor
    from lcsb_mobile.export.checkpoints.gguf_names import Family

BIAS = re.compile(r".*\.bias")
PERMUTED = re.compile(r".*\.self_attn\.([qk])_proj\.(?:weight|bias)")


class GgufWeights:
    """Tensors by Hugging Face's names, float32, decoded when they are read."""

    def __init__(self, config: ModelConfig, family: Family, tensors: Mapping[str, GgufTensor]) -> None:
        self._config, self._family, self._tensors = config, family, dict(tensors)
        self._shapes = checkpoint_weights(config)

    def read(self, name: str) -> Tensor:
        return self.read_rows(name, 0, self._shapes[name][0])

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a matrix, or values of a vector."""
        shape = self._shapes[name]
        if name not in self._tensors:
            return torch.zeros(shape)[start:stop]  # a bias that the file leaves out
        tensor = self._tensors[name]
        order = self._order(name, shape[0])[start:stop]
        rows = torch.from_numpy(tensor.rows(np.zeros(1, np.int64))[0][order] if len(shape) == 1 else tensor.rows(order))
        return rows - 1 if self._family.one_plus_norms and name.endswith("norm.weight") else rows

    def close(self) -> None:
        self._tensors.clear()

    def _order(self, name: str, rows: int) -> Any:
        """Where the file has each row: RoPE turns rows 2 i and 2 i + 1 of a head together, which Hugging Face has half a head apart."""
        found = PERMUTED.fullmatch(name) if self._family.permuted else None
        if found is None:
            return np.arange(rows)
        heads = self._config.num_attention_heads if found[1] == "q" else self._config.num_key_value_heads
        return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def read_gguf(path: Path) -> tuple[dict[str, Any], GgufFile, Family, tuple[str, ...]]:
    """(what `config.json` would hold, the file, its family, whose keys are passed over). Only keys and the table of tensors are read.

    Raises MissingDependencyError, CheckpointError for a malformed file, UnsupportedModelError for an architecture or an option that cannot
    be read.
    """
    _require()
    import gguf

    from lcsb_mobile.export.checkpoints.gguf_config import hf_config
    from lcsb_mobile.export.checkpoints.gguf_file import read_file
    from lcsb_mobile.export.checkpoints.gguf_names import FAMILIES, check_keys

    file = read_file(path)
    found = file.keys.get("general.architecture")
    if not isinstance(found, str):
        raise CheckpointError(f"{path}: general.architecture: expected a name, found {found!r}: not a model's GGUF file")
    if found not in FAMILIES:
        raise UnsupportedModelError(
            f"{path}: GGUF architecture {one_line(repr(found), 60)} is not supported; supported: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[found]
    try:
        others = check_keys(family, file.keys, frozenset(gguf.MODEL_ARCH_NAMES.values()))
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{path}: {error}; use the model's Hugging Face directory of safetensors if its model_type is supported"
        ) from None
    return hf_config(file, family), file, family, others


def open_weights(config: ModelConfig, file: GgufFile, family: Family) -> GgufWeights:
    """Holds the table of tensors to the model's names and shapes. Raises CheckpointError or UnsupportedModelError, naming every fault."""
    from lcsb_mobile.export.checkpoints.gguf_names import tensor_name

    tensors, unknown = {}, []
    expected = checkpoint_weights(config)
    for name, tensor in file.tensors.items():
        ours = tensor_name(family, config.num_hidden_layers, name)
        if ours in expected:
            tensors[ours] = tensor
        elif ours != "":
            unknown.append(name)
    if unknown:
        raise UnsupportedModelError(
            f"{file.path}: tensors that are not read and would change the model: {some(unknown)}; {family.name} with others than "
            "its own is another architecture (a mixture of experts, say)"
        )
    faults = [f"{name}: missing" for name in expected if name not in tensors and not BIAS.fullmatch(name)]
    faults += [f"{name}: missing" for name in expected if family.name == "qwen2" and name not in tensors and BIAS.fullmatch(name)]
    faults += [
        f"{name}: expected shape {list(expected[name])}, found {list(tensor.shape)}"
        for name, tensor in sorted(tensors.items())
        if tensor.shape != expected[name]
    ]
    if faults:
        raise CheckpointError(f"{file.path}: {some(faults)}")
    return GgufWeights(config, family, tensors)


def save_tokenizer(path: Path, directory: Path) -> None:
    """Writes the file's tokenizer as `tokenizer.json` and `tokenizer_config.json`. Raises TokenizerError, CheckpointError."""
    _require()
    from lcsb_mobile.export.checkpoints.gguf_file import read_file
    from lcsb_mobile.export.checkpoints.gguf_tokenizer import write_tokenizer

    file = read_file(path)
    try:
        write_tokenizer(file.keys, directory)
    except TokenizerError as error:
        raise TokenizerError(
            f"{path}: the tokenizer cannot be read ({error}); use a Hugging Face directory with a tokenizer.json"
        ) from error


def _require() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(f"a .gguf file needs gguf; {how_to_install('gguf')}")
