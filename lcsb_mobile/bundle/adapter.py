"""The adapter: all LoRA matrices of one layer as one flat float32 vector, and the file that other tools read.

A fine-tune's parameters are float32[L, n]. The table of names, shapes and offsets stands in the manifest. The file is
safetensors with PEFT's tensor names, so that it is readable without this package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.config import LoraConfig, Record
from lcsb_mobile.errors import AdapterError
from lcsb_mobile.io.files import replace_atomically
from lcsb_mobile.io.safetensors_writer import TensorEntry, write_safetensors

ArrayT = TypeVar("ArrayT")

PEFT_PREFIX = "base_model.model.model.layers"


class AdapterMatrix(Record, frozen=True):
    """One LoRA matrix within a layer's flat vector: `shape` row-major from `offset` (elements)."""

    name: str  # such as self_attn.q_proj.lora_A
    shape: tuple[int, int]
    offset: int

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


class AdapterLayout(Record, frozen=True):
    """Where each LoRA matrix lies in a layer's vector of `size` elements, the same for every layer.

    For a projection W [out, in]: A is [rank, in], B is [out, rank], and y = x Wᵀ + alpha/rank * (x Aᵀ) Bᵀ.
    """

    lora: LoraConfig
    num_layers: int
    size: int
    matrices: tuple[AdapterMatrix, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """The adapted projections by their names within a layer, such as self_attn.q_proj."""
        return tuple(m.name.removesuffix(".lora_A") for m in self.matrices if m.name.endswith(".lora_A"))

    def views(self, layer: ArrayT) -> dict[str, ArrayT]:
        """One layer's float32[n], an array or a tensor -> name -> view of the matrix."""
        flat: Any = layer
        return {m.name: flat[m.offset : m.offset + m.size].reshape(m.shape) for m in self.matrices}

    def named(self, adapter: Float32Array) -> Iterator[tuple[str, Float32Array]]:
        """float32[L, n] -> PEFT's tensor names and views."""
        for layer in range(self.num_layers):
            for name, view in self.views(adapter[layer]).items():
                yield tensor_name(layer, name), view

    def initial(self, seed: int) -> Float32Array:
        """As PEFT initialises: A Kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in)); B zero."""
        generator = np.random.default_rng(seed)
        adapter = np.zeros((self.num_layers, self.size), np.float32)
        for layer in adapter:
            for name, view in self.views(layer).items():
                if name.endswith(".lora_A"):
                    bound = 1 / math.sqrt(view.shape[1])
                    view[:] = generator.uniform(-bound, bound, view.shape).astype(np.float32)
        return adapter


def tensor_name(layer: int, matrix: str) -> str:
    """PEFT's name of a layer's matrix, such as self_attn.q_proj.lora_A."""
    return f"{PEFT_PREFIX}.{layer}.{matrix}.weight"


def adapter_layout(projections: Mapping[str, tuple[int, int]], num_layers: int, lora: LoraConfig) -> AdapterLayout:
    """`projections`: name of each adapted matrix (without `.weight`) -> [out, in]."""
    matrices: list[AdapterMatrix] = []
    offset = 0
    for name, (rows, columns) in projections.items():
        for part, shape in (("lora_A", (lora.rank, columns)), ("lora_B", (rows, lora.rank))):
            matrices.append(AdapterMatrix(name=f"{name}.{part}", shape=shape, offset=offset))
            offset += shape[0] * shape[1]
    return AdapterLayout(lora=lora, num_layers=num_layers, size=offset, matrices=tuple(matrices))


def save_adapter(path: Path, layout: AdapterLayout, adapter: Float32Array) -> None:
    """Writes the adapter as safetensors, atomically: `path` holds the old file or the new one."""
    metadata = {"format": "pt", "rank": str(layout.lora.rank), "alpha": repr(layout.lora.alpha)}
    tensors = dict(sorted(layout.named(adapter)))
    entries = {name: TensorEntry("F32", tensor.shape) for name, tensor in tensors.items()}
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        write_safetensors(file, entries, tensors.__getitem__, metadata)


def load_adapter(path: Path, layout: AdapterLayout) -> Float32Array:
    """Reads float32[L, n]. Raises AdapterError naming every tensor that is missing, unknown or of another shape or dtype."""
    adapter = np.zeros((layout.num_layers, layout.size), np.float32)
    wanted = dict(layout.named(adapter))
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            faults = [f"{name} is missing" for name in wanted if name not in found]
            faults += [f"{name} is unknown" for name in found if name not in wanted]
            faults += [
                f"{name}: expected {list(view.shape)}, found {list(found[name])}"
                for name, view in wanted.items()
                if name in found and found[name] != view.shape
            ]
            faults += [f"{name}: expected F32, found {part.get_dtype()}" for name, part in slices.items() if part.get_dtype() != "F32"]
            metadata = file.metadata() or {}
            for key, value in (("rank", str(layout.lora.rank)), ("alpha", repr(layout.lora.alpha))):
                if metadata.get(key, value) != value:
                    faults.append(f"{key}: expected {value}, found {metadata[key]}")
            if faults:
                more = f" (and {len(faults) - 6} more)" if len(faults) > 6 else ""
                raise AdapterError(f"{path}: does not fit the bundle's adapter: {'; '.join(faults[:6])}{more}")
            for name, view in wanted.items():
                view[:] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path}: not a readable safetensors file ({error})") from error
    if not np.isfinite(adapter).all():
        raise AdapterError(f"{path}: holds NaN or infinite values")
    return adapter
