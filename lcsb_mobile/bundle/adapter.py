"""The adapter: all LoRA matrices of one layer as one flat float32 vector, and the file that other tools read.

A fine-tune's parameters are float32[N], the layers' vectors one after the other; a vector's length is its kind's. The tables of
names, shapes and offsets stand in the manifest. The file is safetensors with PEFT's tensor names, so that it is readable without this
package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from lcsb_mobile.arrays import Float32Array
from lcsb_mobile.bundle.layers import AdapterMatrix
from lcsb_mobile.config import LoraConfig
from lcsb_mobile.errors import AdapterError
from lcsb_mobile.io.bounded import one_line
from lcsb_mobile.io.files import replace_atomically
from lcsb_mobile.io.safetensors_writer import DIGEST, UNKNOWN_DIGEST, TensorEntry, file_digest, write_digested, write_safetensors

ArrayT = TypeVar("ArrayT")

PEFT_PREFIX = "base_model.model."
MORE_FAULTS = 6  # of a file's tensors that an error names
DIGESTED = ("toolkit", "base_model", "base")  # keys of the metadata that only a file with a digest has


@dataclass(frozen=True)
class Base:
    """The model that an adapter changes: what it is called, the SHA-256 of its frozen tensors (`directory.base_digest`), and the version of
    the toolkit that exported it; None where the bundle does not say."""

    name: str
    digest: str | None = None
    toolkit: str | None = None


@dataclass(frozen=True)
class AdapterLayout:
    """Where each layer's vector lies in the adapter, and each LoRA matrix in the vector. `matrices`: of each kind of layers; `kinds`: of
    each layer. `prefix`: what the names of a checkpoint's text model begin with. `base`: None for an adapter of no bundle yet.

    For a projection W [out, in]: A is [rank, in], B is [out, rank], and y = x Wᵀ + alpha/rank * (x Aᵀ) Bᵀ.
    """

    lora: LoraConfig
    matrices: Mapping[str, tuple[AdapterMatrix, ...]]
    kinds: tuple[str, ...]
    prefix: str = "model."
    base: Base | None = field(default=None, compare=False)  # two bundles' layouts are one where the vectors lie alike

    @property
    def num_layers(self) -> int:
        return len(self.kinds)

    @property
    def sizes(self) -> list[int]:
        """Of each layer's vector, in elements."""
        by_kind = {kind: vector_size(matrices) for kind, matrices in self.matrices.items()}
        return [by_kind[kind] for kind in self.kinds]

    @property
    def size(self) -> int:
        """Of the whole adapter, in elements."""
        return sum(self.sizes)

    @property
    def offsets(self) -> list[int]:
        """Of each layer's vector in the adapter."""
        return offsets_of(self.sizes)

    @property
    def slices(self) -> list[slice]:
        return [slice(offset, offset + size) for offset, size in zip(self.offsets, self.sizes)]

    def modules(self, layer: int) -> tuple[str, ...]:
        """A layer's adapted projections by their names within it, such as self_attn.q_proj."""
        return tuple(m.name.removesuffix(".lora_A") for m in self.matrices[self.kinds[layer]] if m.name.endswith(".lora_A"))

    def vectors(self, adapter: ArrayT) -> list[ArrayT]:
        """The adapter, an array or a tensor [N] -> the view of each layer."""
        flat: Any = adapter
        return [flat[part] for part in self.slices]

    def views(self, layer: int, vector: ArrayT) -> dict[str, ArrayT]:
        """One layer's vector -> name -> view of the matrix."""
        return matrix_views(self.matrices[self.kinds[layer]], vector)

    def named(self, adapter: Float32Array) -> Iterator[tuple[str, Float32Array]]:
        """float32[N] -> PEFT's tensor names and views."""
        for layer, vector in enumerate(self.vectors(adapter)):
            for name, view in self.views(layer, vector).items():
                yield self.tensor_name(layer, name), view

    def module_name(self, layer: int, module: str) -> str:
        """A projection's name in the checkpoint, such as model.layers.0.self_attn.q_proj."""
        return f"{self.prefix}layers.{layer}.{module}"

    def tensor_name(self, layer: int, matrix: str) -> str:
        """PEFT's name of a layer's matrix, such as self_attn.q_proj.lora_A."""
        return f"{PEFT_PREFIX}{self.module_name(layer, matrix)}.weight"

    def initial(self, seed: int) -> Float32Array:
        """As PEFT initialises: A Kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in)); B zero."""
        generator = np.random.default_rng(seed)
        adapter = np.zeros(self.size, np.float32)
        for name, view in self.named(adapter):
            if ".lora_A." in name:
                bound = 1 / math.sqrt(view.shape[1])
                view[:] = generator.uniform(-bound, bound, view.shape).astype(np.float32)
        return adapter


def offsets_of(sizes: Sequence[int]) -> list[int]:
    """Where each of some vectors begins that lie one after the other."""
    return [sum(sizes[:number]) for number in range(len(sizes))]


def vector_size(matrices: Sequence[AdapterMatrix]) -> int:
    return matrices[-1].offset + matrices[-1].size if matrices else 0


def matrix_views(matrices: Sequence[AdapterMatrix], vector: ArrayT) -> dict[str, ArrayT]:
    flat: Any = vector
    return {m.name: flat[m.offset : m.offset + m.size].reshape(m.shape) for m in matrices}


def adapter_matrices(projections: Mapping[str, tuple[int, int]], rank: int) -> tuple[AdapterMatrix, ...]:
    """`projections`: name of each adapted matrix (without `.weight`) -> [out, in]."""
    matrices: list[AdapterMatrix] = []
    for name, (rows, columns) in projections.items():
        for part, shape in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
            matrices.append(AdapterMatrix(name=f"{name}.{part}", shape=shape, offset=vector_size(matrices)))
    return tuple(matrices)


def save_adapter(path: Path, layout: AdapterLayout, adapter: Float32Array, private: bool = True) -> None:
    """Writes the adapter as safetensors, atomically: `path` holds the old file or the new one. A `private` one is its owner's alone.

    A bundle's initial adapter, of a layout without a base, states none and no digest: the manifest has both.
    """
    metadata = {"format": "pt", "rank": str(layout.lora.rank), "alpha": repr(layout.lora.alpha)}
    if layout.base is not None:
        named = {"toolkit": layout.base.toolkit, "base_model": layout.base.name, "base": layout.base.digest}
        metadata |= {key: value for key, value in named.items() if value is not None} | {DIGEST: UNKNOWN_DIGEST}
    tensors = dict(sorted(layout.named(adapter)))
    entries = {name: TensorEntry("F32", tensor.shape) for name, tensor in tensors.items()}
    with replace_atomically(path, private) as temporary, temporary.open("wb") as file:
        (write_safetensors if layout.base is None else write_digested)(file, entries, tensors.__getitem__, metadata)


def load_adapter(path: Path, layout: AdapterLayout) -> Float32Array:
    """Reads float32[N]. Raises AdapterError for a file that is damaged, or of another base, as far as it says; else naming every tensor
    that is missing, unknown or of another shape or dtype."""
    adapter = np.zeros(layout.size, np.float32)
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
            check_digest(path, metadata)
            _check_base(path, metadata, layout.base)
            for key, value in (("rank", str(layout.lora.rank)), ("alpha", repr(layout.lora.alpha))):
                if metadata.get(key, value) != value:
                    faults.append(f"{key}: expected {value}, found {metadata[key]}")
            if faults:
                more = f" (and {len(faults) - MORE_FAULTS} more)" if len(faults) > MORE_FAULTS else ""
                raise AdapterError(f"{path}: does not fit the bundle's adapter: {'; '.join(faults[:MORE_FAULTS])}{more}")
            for name, view in wanted.items():
                view[:] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path}: not a readable safetensors file ({error})") from error
    if not np.isfinite(adapter).all():
        raise AdapterError(f"{path}: holds NaN or infinite values")
    return adapter


def check_digest(path: Path, metadata: Mapping[str, str]) -> None:
    """Files of other tools, and of before there was one, state none; one whose key for it was damaged states what goes with it.
    Raises AdapterError."""
    stated = metadata.get(DIGEST)
    if stated is None and not any(key in metadata for key in DIGESTED):
        return
    with path.open("rb") as file:
        size = int.from_bytes(start := file.read(8), "little")
        found = file_digest(start + file.read(size), file, stated or UNKNOWN_DIGEST)
    if found != stated:
        expected = "one" if stated is None else f"{one_line(stated, 12)}"
        raise AdapterError(f"{path}: damaged: expected SHA-256 {expected}, found {found[:12]}…; copy or write it again")


def _check_base(path: Path, metadata: Mapping[str, str], base: Base | None) -> None:
    stated = metadata.get("base")
    if base is not None and base.digest is not None and stated not in (None, base.digest):
        trained = one_line(metadata.get("base_model", "unknown"), 80)
        raise AdapterError(
            f"{path}: was trained on another base: expected {one_line(base.name, 80)} ({base.digest[:12]}…), found {trained} "
            f"({one_line(stated, 12)}); name a bundle of that base, or take it over by lcsb adapter export there and lcsb adapter import"
        )
